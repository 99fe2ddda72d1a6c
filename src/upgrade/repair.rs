//! Mending what starts the slots, after other programs changed it.
//!
//! 1. the copies of the boot state and the default, where they differ;
//! 2. the boot sector, where it starts another GRUB.

use anyhow::Result;

use super::boot_sector;
use crate::appliance::Appliance;
use crate::appliance::history::{self, Event};
use crate::appliance::machine::{Machine, boot_disk};
use crate::appliance::release::ReleaseRecord;
use crate::boot::bios::installed::Owner;
use crate::boot::bios::reinstall;
use crate::paths::BOOT_DIR;
use crate::progress::Step;
use crate::refuse;
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
/// Class `Refused` where there is nothing of ours to start; those of
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
        appliance.progress.start(Step::InstallGrub, None);
        reinstall::reinstall(appliance.sys, &boot_disk(appliance)?)?;
        repaired.boot_sector = true;
        record(appliance, machine)?;
    }
    Ok(repaired)
}

fn record(appliance: &Appliance, machine: &Machine) -> Result<()> {
    let event = Event {
        operation: "repair",
        slot: machine.booted,
        version: &ReleaseRecord::of_running(appliance)?.version,
        step: None,
        outcome: "the boot sector starts va-upgrade's GRUB again",
    };
    history::record(appliance, &event);
    Ok(())
}
