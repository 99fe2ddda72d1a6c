//! Mending what starts the slots, after other programs changed it.
//!
//! 1. the copies of the boot state and the default, where they differ;
//! 2. the boot sector, where it starts another GRUB: the running system is adopted
//!    anew if that GRUB started another kernel of it, the committed slot is looked
//!    at whether it would boot, then the sector is replaced.

use anyhow::Result;

use super::{boot_sector, rollback};
use crate::appliance::Appliance;
use crate::appliance::history::{self, Event};
use crate::appliance::machine::{Machine, boot_disk};
use crate::appliance::release::ReleaseRecord;
use crate::boot::bios::installed::Owner;
use crate::boot::bios::reinstall;
use crate::boot::files as boot_files;
use crate::paths::BOOT_DIR;
use crate::progress::Step;
use crate::refuse;
use crate::slot::Slot;
use crate::system::Lock;

/// What `repair` mended.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Repaired {
    /// The boot state was not whole.
    pub boot_state: bool,
    /// The boot sector did not start our GRUB.
    pub boot_sector: bool,
}

/// Mends the boot state and the boot sector; changes nothing that is whole.
///
/// # Errors
/// Class `Refused` where nothing of ours would start; those of
/// [`reinstall`](reinstall::reinstall).
pub fn repair(appliance: &Appliance, machine: &Machine, lock: &Lock) -> Result<Repaired> {
    let Some(state) = &machine.state else {
        refuse!("there is no boot state in {BOOT_DIR} to repair by; `va-upgrade apply` makes one");
    };
    let mut repaired = Repaired::default();
    if !state.is_whole(&appliance.at(BOOT_DIR)) {
        appliance.save(state, lock)?;
        repaired.boot_state = true;
    }
    if boot_sector::owner(appliance, machine)? != Some(Owner::Ours) {
        let version = ReleaseRecord::of_running(appliance)?.version;
        require_start(appliance, machine, state.committed(), &version, lock)?;
        appliance.progress.start(Step::InstallGrub, None);
        reinstall::reinstall(appliance.sys, &boot_disk(appliance)?)?;
        repaired.boot_sector = true;
        let event = Event {
            operation: "repair",
            slot: machine.booted,
            version: &version,
            step: None,
            outcome: "the boot sector starts va-upgrade's GRUB again",
        };
        history::record(appliance, &event);
    }
    Ok(repaired)
}

/// Sees that `slot`, which our menu would start, would boot.
fn require_start(
    appliance: &Appliance,
    machine: &Machine,
    slot: Slot,
    version: &str,
    lock: &Lock,
) -> Result<()> {
    if slot == machine.booted {
        boot_files::adopt(appliance.sys, slot, &machine.cmdline, version, lock)?;
        return rollback::require_boot_files(appliance, slot).map(drop);
    }
    let record = rollback::require_boot_files(appliance, slot)?;
    rollback::check_root(appliance, machine, slot, &record)
}
