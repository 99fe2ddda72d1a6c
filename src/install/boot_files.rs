//! The boot files of a system that has just been settled.

use std::path::Path;

use anyhow::{Context, Result};

use super::cards as names;
use crate::appliance::Appliance;
use crate::appliance::assets::{self, Assets};
use crate::appliance::before::{self, Before};
use crate::appliance::cards::{self, Interfaces};
use crate::appliance::network::{self, Network};
use crate::appliance::services;
use crate::boot::bootable::Bootable;
use crate::boot::files::{self as boot_files, BootSet};
use crate::boot::{crashkernel, entry, image_arguments};
use crate::slot::Slot;
use crate::system::{Lock, files};

/// Which system boots from where, and what its kernel is told.
pub struct BootPlan<'a> {
    /// The slot it is in.
    pub slot: Slot,
    /// The version of the system.
    pub version: &'a str,
    /// What was found in its tree.
    pub bootable: &'a Bootable,
    /// The command line whose words are inherited.
    pub cmdline: &'a str,
}

/// Writes the boot files of the system whose tree is at `root`, and beside them
/// what its health is compared with: the network, its cards
/// and the units that have failed; and what only a report tells of.
///
/// # Errors
/// When the tree cannot be read, or a file cannot be written or does not read
/// back.
pub fn write(appliance: &Appliance, root: &Path, plan: &BootPlan, lock: &Lock) -> Result<()> {
    write_alone(appliance, root, plan, lock)?;
    write_baseline(appliance, &boot_files::dir(appliance.sys, plan.slot))
}

/// Writes the boot files without that.
///
/// # Errors
/// Like [`write`].
pub fn write_alone(appliance: &Appliance, root: &Path, plan: &BootPlan, lock: &Lock) -> Result<()> {
    let config = appliance.config;
    let volume = |slot| format!("{}/{}", config.vg, config.volume(slot));
    let kernel = &plan.bootable.kernel;
    let mut args = entry::arguments(
        &config.mapped_device(plan.slot),
        &volume(plan.slot),
        &volume(plan.slot.other()),
        plan.cmdline,
    );
    let adapted = crashkernel::adapt(&mut args, &kernel.release, root)?;
    let added = image_arguments::add(&mut args, &kernel.release, root)?;
    for note in adapted.into_iter().chain(added) {
        appliance.progress.note(&note);
    }
    let links = names::links(root)?;
    let set = BootSet {
        version: plan.version,
        kernel_release: &kernel.release,
        kernel: &root.join(&kernel.image),
        initramfs: &root.join(&kernel.initramfs),
        args: &args,
        deadline_seconds: Some(config.deadline_seconds),
        links: &links,
    };
    boot_files::write(appliance.sys, plan.slot, &set, lock)
}

/// Writes into `dir` what the next start is compared with.
///
/// # Errors
/// When the machine cannot be looked at or a file not be written.
pub fn write_baseline(appliance: &Appliance, dir: &Path) -> Result<()> {
    let failed_units = services::failed(appliance)?;
    for (name, text) in [
        (
            network::FILE,
            serde_yaml::to_string(&Network::look(appliance)?),
        ),
        (
            cards::FILE,
            serde_yaml::to_string(&Interfaces::look(appliance)?.record()),
        ),
        (
            assets::FILE,
            serde_yaml::to_string(&Assets::look(appliance)),
        ),
        (services::FILE, serde_yaml::to_string(&failed_units)),
        (
            before::FILE,
            serde_yaml::to_string(&Before::look(appliance)?),
        ),
    ] {
        let text = text.with_context(|| format!("rendering {name}"))?;
        files::write_atomic(&dir.join(name), text.as_bytes(), 0o644)?;
    }
    Ok(())
}
