//! What this machine is: the facts every flow starts from. Changes nothing.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::context::Appliance;
use crate::boot::entry::{BootedBy, booted_by};
use crate::boot::state::State;
use crate::config::Config;
use crate::disk::blkid::{self, Tag};
use crate::disk::lvm::{self, LogicalVolume};
use crate::linux::device_mapper;
use crate::linux::mountinfo::{self, MountEntry};
use crate::paths::{BOOT, BOOT_DIR};
use crate::refuse;
use crate::slot::Slot;

/// The appliance as found.
pub struct Machine {
    /// The slot this system runs from.
    pub booted: Slot,
    /// How our menu came to start it; empty when another menu did.
    pub booted_by: BootedBy,
    /// The kernel's command line.
    pub cmdline: String,
    /// The file system type of the running root.
    pub root_fs_type: String,
    /// The mount of `/boot`.
    pub boot: MountEntry,
    /// The boot state; `None` before the first `apply`.
    pub state: Option<State>,
}

impl Machine {
    /// Looks at the running machine.
    ///
    /// # Errors
    /// Class `Refused` when it runs from neither slot or `/boot` is not mounted.
    pub fn look(appliance: &Appliance) -> Result<Machine> {
        let table = mounts(appliance)?;
        let root = mountinfo::at(&table, Path::new("/")).context("the mount table has no root")?;
        let booted = booted_slot(appliance, root)?;
        let Some(boot) = mountinfo::at(&table, Path::new(BOOT)).cloned() else {
            refuse!("/boot is not mounted; mount it (see /etc/fstab) and try again");
        };
        let cmdline_path = appliance.at("/proc/cmdline");
        let cmdline = fs::read_to_string(&cmdline_path)
            .with_context(|| format!("reading {}", cmdline_path.display()))?;
        let booted_by = booted_by(&cmdline);
        let state = match State::load(&appliance.at(BOOT_DIR)) {
            Ok(state) => state,
            // GRUB booted its baked slot, or another menu started this system: the
            // state starts anew from what runs.
            Err(_) if booted_by.why == "noenv" || booted_by.slot.is_none() => None,
            Err(error) => return Err(error),
        };
        Ok(Machine {
            booted,
            booted_by,
            cmdline,
            root_fs_type: root.fs_type.clone(),
            boot,
            state,
        })
    }

    /// Returns the boot state, or that of an appliance that knows one system.
    pub fn state(&self) -> State {
        self.state
            .clone()
            .unwrap_or_else(|| State::adopt(self.booted))
    }

    /// Returns the UUID of the file system on `/boot`.
    ///
    /// # Errors
    /// When blkid(8) does not know it.
    pub fn boot_uuid(&self, appliance: &Appliance) -> Result<String> {
        let device = &self.boot.source;
        blkid::ask(appliance.sys, Path::new(device), Tag::Uuid)?
            .with_context(|| format!("the file system on {device} has no UUID"))
    }
}

/// Reads the mount table.
///
/// # Errors
/// When it cannot be read.
pub fn mounts(appliance: &Appliance) -> Result<Vec<MountEntry>> {
    let path = appliance.at("/proc/self/mountinfo");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    Ok(mountinfo::parse(&text))
}

/// Returns the disk GRUB starts from: the configured one, or that of the volume group.
///
/// # Errors
/// When it cannot be told.
pub fn boot_disk(appliance: &Appliance) -> Result<PathBuf> {
    match &appliance.config.disk {
        Some(disk) => Ok(disk.clone()),
        None => lvm::disk_of_group(appliance.sys, &appliance.at("/sys"), &appliance.config.vg),
    }
}

/// Returns the volume of `slot` among `volumes`.
///
/// # Errors
/// Class `Refused` when it is not there or not linear.
pub fn slot_volume<'a>(
    config: &Config,
    volumes: &'a [LogicalVolume],
    slot: Slot,
) -> Result<&'a LogicalVolume> {
    let device = config.device(slot);
    let Some(volume) = volumes.iter().find(|v| v.name == config.volume(slot)) else {
        refuse!("there is no volume {} for slot {slot}", device.display());
    };
    if volume.segment_type != "linear" {
        refuse!(
            "{} is {}; a slot must be linear",
            device.display(),
            volume.segment_type
        );
    }
    Ok(volume)
}

/// Returns the slot that is mounted as `/`, by its device-mapper name.
fn booted_slot(appliance: &Appliance, root: &MountEntry) -> Result<Slot> {
    let config = appliance.config;
    let path = appliance.at(format!("/sys/dev/block/{}/dm/name", root.device_number));
    let name = fs::read_to_string(&path).unwrap_or_default();
    let found = Slot::ALL
        .into_iter()
        .find(|slot| device_mapper::name(&config.vg, config.volume(*slot)) == name.trim());
    match found {
        Some(slot) => Ok(slot),
        None => refuse!(
            "this system runs from {}, neither from {} nor from {}; \
             if the volumes have other names, set vg and volumes in config.yaml",
            root.source,
            config.device(Slot::Root).display(),
            config.device(Slot::Back).display()
        ),
    }
}
