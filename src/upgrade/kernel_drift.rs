//! Whether the running slot starts a kernel that its system still has.
//!
//! A slot starts the kernel in its directory on `/boot`, whatever a package
//! installs or removes in its system meanwhile, until it is
//! [adopted](super::kernel_update).

use std::cmp::Ordering;
use std::fmt;
use std::fs;

use anyhow::Result;

use super::kernel_update;
use crate::appliance::Appliance;
use crate::appliance::machine::Machine;
use crate::boot::bootable::{self, Modules};
use crate::boot::files as boot_files;
use crate::boot::next::{self, Refused};
use crate::boot::record::SlotRecord;
use crate::boot::seen::Seen;
use crate::boot::state::State;
use crate::slot::Slot;
use crate::version;

/// Where a kernel's modules are (depmod(8)).
const MODULES_DIR: &str = "/lib/modules";

/// How the kernel that starts and those that are installed came apart.
#[derive(Debug, PartialEq, Eq)]
pub enum Drift {
    /// The modules of the kernel that the slot starts are gone.
    Gone {
        /// The slot.
        slot: Slot,
        /// The kernel's release.
        started: String,
    },
    /// A newer kernel is installed, which nothing starts.
    Newer {
        /// The slot.
        slot: Slot,
        /// The release of the kernel that it starts.
        started: String,
        /// The release of the newer one.
        installed: String,
    },
    /// The initramfs of the kernel that the slot starts was made anew in its system,
    /// and nothing starts that one.
    Anew {
        /// The slot.
        slot: Slot,
        /// The kernel's release.
        started: String,
    },
    /// The kernel, or initramfs, that would be the one to start did not come up.
    Refused {
        /// The slot.
        slot: Slot,
        /// That kernel.
        kernel: Refused,
    },
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Drift::Gone { slot, started } => write!(
                f,
                "slot {slot} starts kernel {started}, whose modules its system no longer has, so \
                 the next boot would lack drivers; install the package of that kernel again \
                 before a restart"
            ),
            Drift::Newer {
                slot,
                started,
                installed,
            } => write!(
                f,
                "kernel {installed} is installed, but slot {slot} goes on starting {started}; \
                 `va-upgrade boot --adopt-kernel` has it tried with the next restart; keep the \
                 package of {started} until it has come up"
            ),
            Drift::Anew { slot, started } => write!(
                f,
                "the initramfs of kernel {started} in /boot was made anew, but slot {slot} goes on \
                 starting the one before; `va-upgrade boot --adopt-kernel={started}` has it tried \
                 with the next restart; else the one after that tries it"
            ),
            Drift::Refused { slot, kernel } => f.write_str(&kernel_update::refusal(kernel, *slot)),
        }
    }
}

/// Looks at the running slot; `None` where all is well or nothing is known, as
/// when another menu has started another kernel.
pub fn look(appliance: &Appliance, machine: &Machine) -> Option<Drift> {
    let slot = machine.booted;
    let own = boot_files::record(appliance.sys, slot).ok()??;
    let started = own.kernel.clone();
    let running = fs::read_to_string(appliance.at("/proc/sys/kernel/osrelease")).ok()?;
    if running.trim() != started {
        return None;
    }
    let root = appliance.at("/");
    if bootable::modules(&root, &started).ok()? == Modules::Gone {
        return Some(Drift::Gone { slot, started });
    }
    if machine
        .state
        .as_ref()
        .and_then(State::kernel_trial)
        .is_some()
    {
        return None;
    }
    newer(appliance, slot, &started).or_else(|| made_anew(appliance, slot, &own))
}

/// Looks for a newer kernel than `started`.
fn newer(appliance: &Appliance, slot: Slot, started: &str) -> Option<Drift> {
    let root = appliance.at("/");
    let newest = installed(appliance)
        .into_iter()
        .filter(|release| bootable::is_same_flavour(release, started))
        .filter(|release| bootable::modules(&root, release).is_ok_and(|it| it == Modules::There))
        .max_by(|a, b| version::compare(a, b))
        .filter(|newest| version::compare(newest, started) == Ordering::Greater)?;
    let refused = next::refused(appliance.sys, slot).unwrap_or_default();
    match refused.into_iter().find(|it| it.kernel == newest) {
        Some(kernel) => Some(Drift::Refused { slot, kernel }),
        None => Some(Drift::Newer {
            slot,
            started: started.to_owned(),
            installed: newest,
        }),
    }
}

/// Looks whether the initramfs of the kernel that the slot starts is another than
/// when the slot was last seen to run, and not the one that starts.
fn made_anew(appliance: &Appliance, slot: Slot, own: &SlotRecord) -> Option<Drift> {
    let sys = appliance.sys;
    let last = Seen::load(sys).ok()??;
    if (last.slot, &last.kernel) != (slot, &own.kernel) {
        return None;
    }
    let now = Seen::look(sys, slot, &own.kernel, Some(&last)).ok()?;
    let made = now.initramfs?.sha256;
    let known = [
        last.initramfs.map(|it| it.sha256),
        own.source.map(|source| source.initramfs),
    ];
    if known.contains(&Some(made)) {
        return None;
    }
    let refused = next::refused(sys, slot).unwrap_or_default();
    let found = refused.into_iter().find(|it| it.source.initramfs == made);
    Some(match found {
        Some(kernel) => Drift::Refused { slot, kernel },
        None => Drift::Anew {
            slot,
            started: own.kernel.clone(),
        },
    })
}

/// Writes down which initramfs the running slot sees, unless one that it made anew
/// still waits to be tried.
pub fn note_seen(appliance: &Appliance, machine: &Machine) {
    let note = || -> Result<()> {
        let (sys, slot) = (appliance.sys, machine.booted);
        let Some(own) = boot_files::record(sys, slot)? else {
            return Ok(());
        };
        if made_anew(appliance, slot, &own).is_some() {
            return Ok(());
        }
        let last = Seen::load(sys).unwrap_or_default();
        let now = Seen::look(sys, slot, &own.kernel, last.as_ref())?;
        match last == Some(now.clone()) {
            true => Ok(()),
            false => now.save(sys),
        }
    };
    if let Err(error) = note() {
        appliance.progress.note(&format!(
            "an initramfs that is made anew by hand may not be noticed: {error:#}"
        ));
    }
}

/// Lists the kernels that have a directory for their modules.
fn installed(appliance: &Appliance) -> Vec<String> {
    let entries = fs::read_dir(appliance.at(MODULES_DIR))
        .into_iter()
        .flatten();
    entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}
