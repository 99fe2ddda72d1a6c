//! Making the other slot the one that boots, by hand.
//!
//! 1. find the slot that would boot next; the target is the other one;
//! 2. refuse unless the target would boot: phase, boot files with their
//!    digests, root file system, a GRUB of ours;
//! 3. one write of the boot state.

use std::path::Path;

use anyhow::{Context, Result};

use super::grub;
use super::history::{self, Event};
use super::machine::{self, Machine, boot_disk};
use super::record::SlotRecord;
use super::slot_boot;
use crate::config::Config;
use crate::disk::lvm;
use crate::progress::Progress;
use crate::refuse;
use crate::slot::Slot;
use crate::state::{Phase, State};
use crate::system::{Cmd, Mount, Mounted, System, beneath};

/// Where the other slot is mounted while it is looked at.
const MOUNT_POINT: &str = "/run/va-upgrade/other";

/// What `rollback` did.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The slot that boots next now.
    pub next: Slot,
    /// The version in it.
    pub version: String,
    /// Whether a trial was cancelled for it.
    pub cancelled_trial: bool,
}

/// Makes the other slot boot next; writes the boot state once.
///
/// # Errors
/// Class `Refused` when the other slot would not boot.
pub fn rollback(
    sys: &dyn System,
    config: &Config,
    machine: &Machine,
    progress: &dyn Progress,
) -> Result<Outcome> {
    let Some(mut state) = machine.state.clone() else {
        refuse!("there is no other system to go back to: va-upgrade has never written one here");
    };
    let target = target_of(&state);
    progress.start(&format!("checking slot {target}"), None);
    let record = bootable(sys, config, machine, &state, target)?;
    let cancelled_trial = state.trial().is_some();
    if cancelled_trial {
        state.cancel_trial()?;
    }
    state.commit(target)?;
    machine::store(sys, config, &state)?;
    let outcome = if cancelled_trial {
        "trial cancelled"
    } else {
        "made the default"
    };
    let event = Event {
        operation: "rollback",
        slot: target,
        version: &record.version,
        outcome,
    };
    history::record(config, &event, progress);
    Ok(Outcome {
        next: target,
        version: record.version,
        cancelled_trial,
    })
}

/// Returns the slot other than the one that boots, or runs, as things stand.
fn target_of(state: &State) -> Slot {
    state
        .trial()
        .map_or(state.committed(), |trial| trial.slot)
        .other()
}

/// Refuses unless `slot` would really boot; returns its record.
fn bootable(
    sys: &dyn System,
    config: &Config,
    machine: &Machine,
    state: &State,
    slot: Slot,
) -> Result<SlotRecord> {
    let phase = state.phase(slot);
    if !matches!(phase, Phase::Good | Phase::Committed) {
        refuse!(
            "slot {slot} is {phase}; only a system that has been committed before can be gone back to. \
             Use `va-upgrade apply` to install one"
        );
    }
    let dir = slot_boot::dir(config, slot);
    let Some(record) = SlotRecord::load(&dir)? else {
        refuse!("slot {slot} has no boot entry in {}", dir.display());
    };
    let faults = record.faults(&dir, true);
    if !faults.is_empty() {
        refuse!("slot {slot} would not boot: {}", faults.join("; "));
    }
    if !grub::is_ours(config, &boot_disk(sys, config)?)? {
        refuse!(
            "the boot sector starts another GRUB, which does not read va-upgrade's boot state; \
             run `va-upgrade apply` to install it again"
        );
    }
    if slot != machine.booted {
        check_root(sys, config, machine, slot, &record)?;
    }
    Ok(record)
}

/// Refuses unless the slot's file system mounts and holds a system for its kernel.
fn check_root(
    sys: &dyn System,
    config: &Config,
    machine: &Machine,
    slot: Slot,
    record: &SlotRecord,
) -> Result<()> {
    let device = config.device(slot);
    lvm::activate(sys, &config.vg, config.volume(slot))?;
    let ask = Cmd::new("blkid")
        .args(["-p", "-s", "TYPE", "-o", "value"])
        .arg(&device);
    let fs_type = sys.run(&ask).unwrap_or_default().trim().to_owned();
    if fs_type.is_empty() {
        refuse!(
            "slot {slot} would not boot: {} holds no file system",
            device.display()
        );
    }
    let options = if fs_type == "xfs" { "ro,nouuid" } else { "ro" };
    let mount = Mount::device(&device, &config.at(MOUNT_POINT), &fs_type, options);
    let mounted = match Mounted::new(sys, &mount) {
        Ok(mounted) => mounted,
        Err(error) => refuse!("slot {slot} would not boot: {error:#}"),
    };
    let modules = format!("/lib/modules/{}", record.kernel);
    let inits = [
        "/sbin/init",
        "/usr/lib/systemd/systemd",
        "/lib/systemd/systemd",
    ];
    let has = |path: &str| {
        beneath::place(mounted.path(), Path::new(path)).is_ok_and(|p| p.symlink_metadata().is_ok())
    };
    let whole = inits.iter().any(|path| has(path)) && has(&modules) && has("/etc/fstab");
    mounted
        .unmount()
        .with_context(|| format!("looking at slot {slot}"))?;
    if !whole {
        refuse!(
            "slot {slot} would not boot: {} lacks init, {modules} or /etc/fstab (running: slot {})",
            device.display(),
            machine.booted
        );
    }
    Ok(())
}
