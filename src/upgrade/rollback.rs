//! Making the other slot the one that boots, by hand.
//!
//! 1. find the slot that would boot next; the target is the other one;
//! 2. refuse unless the target would boot: phase, boot files with their
//!    digests, root file system, a GRUB of ours;
//! 3. one write of the boot state.

use std::path::Path;

use anyhow::{Context, Result};

use super::trial_over::mark_over;
use super::{banner, boot_sector};
use crate::appliance::Appliance;
use crate::appliance::history::{self, Event};
use crate::appliance::machine::Machine;
use crate::boot::files as boot_files;
use crate::boot::record::SlotRecord;
use crate::boot::state::{Phase, State};
use crate::disk::blkid::{self, Tag};
use crate::disk::lvm;
use crate::paths::OTHER_MOUNT;
use crate::progress::Step;
use crate::refuse;
use crate::slot::Slot;
use crate::system::{Lock, Mount, Mounted};
use crate::tree::resolve;

/// What `rollback` did.
#[derive(Debug, PartialEq, Eq)]
pub struct RolledBack {
    /// The slot that boots next now.
    pub next: Slot,
    /// The version in it.
    pub version: String,
    /// Whether a trial was cancelled for it.
    pub cancelled_trial: bool,
    /// Whether that was a drill.
    pub was_drill: bool,
}

/// Makes the other slot boot next; writes the boot state once.
///
/// # Errors
/// Class `Refused` when the other slot would not boot.
pub fn rollback(appliance: &Appliance, machine: &Machine, lock: &Lock) -> Result<RolledBack> {
    let Some(mut state) = machine.state.clone() else {
        refuse!("there is no other system to go back to: va-upgrade has never written one here");
    };
    let target = target_of(&state);
    appliance.progress.start(Step::CheckSlot(target), None);
    let record = bootable(appliance, machine, &state, target)?;
    let ends_kernel_trial = state.kernel_trial().is_some();
    let cancelled_trial = state.trial().is_some();
    let was_drill = cancelled_trial && state.is_drilling();
    if cancelled_trial {
        state.cancel_trial()?;
    }
    state.commit(target)?;
    appliance.save(&state, lock)?;
    if cancelled_trial || ends_kernel_trial {
        mark_over(appliance);
    }
    banner::renew(appliance);
    let outcome = if was_drill {
        "drill cancelled"
    } else if cancelled_trial {
        "trial cancelled"
    } else {
        "made the default"
    };
    let event = Event {
        operation: "rollback",
        slot: target,
        version: &record.version,
        step: None,
        outcome,
    };
    history::record(appliance, &event);
    Ok(RolledBack {
        next: target,
        version: record.version,
        cancelled_trial,
        was_drill,
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
    appliance: &Appliance,
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
    let record = require_boot_files(appliance, slot)?;
    if let Some(fault) = boot_sector::owner(appliance, machine)?.and_then(boot_sector::fault) {
        refuse!("{fault}");
    }
    if slot != machine.booted {
        check_root(appliance, machine, slot, &record)?;
    }
    Ok(record)
}

/// Refuses where the running system is not the default: then the slot that does
/// not run is no staged one.
pub(super) fn require_default(machine: &Machine, state: &State) -> Result<()> {
    let (booted, committed) = (machine.booted, state.committed());
    if state.is_drilling() && booted != committed {
        refuse!(
            "slot {booted} runs for a drill, which its boot service ends with a restart; if that \
             does not come, `va-upgrade rollback --reboot` goes back"
        );
    }
    if state.trial().is_some_and(|trial| trial.slot == booted) {
        refuse!(
            "slot {booted} runs and is on trial; `va-upgrade confirm` keeps it, \
             `va-upgrade rollback --reboot` goes back"
        );
    }
    if booted != committed {
        refuse!(
            "slot {booted} runs although slot {committed} is committed; restart, or keep what \
             runs with `va-upgrade rollback`"
        );
    }
    Ok(())
}

/// Refuses unless the boot files of `slot` are whole, byte for byte.
pub(super) fn require_boot_files(appliance: &Appliance, slot: Slot) -> Result<SlotRecord> {
    let dir = boot_files::dir(appliance.sys, slot);
    let Some(record) = SlotRecord::load(&dir)? else {
        refuse!("slot {slot} has no boot entry in {}", dir.display());
    };
    let faults = record.faults(&dir, true);
    if !faults.is_empty() {
        refuse!("slot {slot} would not boot: {}", faults.join("; "));
    }
    Ok(record)
}

/// Refuses unless the slot's file system mounts and holds a system for its kernel.
pub(super) fn check_root(
    appliance: &Appliance,
    machine: &Machine,
    slot: Slot,
    record: &SlotRecord,
) -> Result<()> {
    let modules = format!("/lib/modules/{}", record.kernel);
    let inits = [
        "/sbin/init",
        "/usr/lib/systemd/systemd",
        "/lib/systemd/systemd",
    ];
    let whole = look_into(appliance, slot, |root| {
        let has = |path: &str| {
            resolve::place(root, Path::new(path)).is_ok_and(|p| p.symlink_metadata().is_ok())
        };
        inits.iter().any(|path| has(path)) && has(&modules) && has("/etc/fstab")
    })?;
    if !whole {
        refuse!(
            "slot {slot} would not boot: {} lacks init, {modules} or /etc/fstab (running: slot {})",
            appliance.config.device(slot).display(),
            machine.booted
        );
    }
    Ok(())
}

/// Lets `look` see the tree of a slot that does not run, mounted read-only.
pub(super) fn look_into<T>(
    appliance: &Appliance,
    slot: Slot,
    look: impl FnOnce(&Path) -> T,
) -> Result<T> {
    let Appliance { sys, config, .. } = *appliance;
    let device = config.device(slot);
    lvm::activate(sys, &config.vg, config.volume(slot))?;
    let Ok(Some(fs_type)) = blkid::ask(sys, &device, Tag::Type) else {
        refuse!(
            "slot {slot} would not boot: {} holds no file system",
            device.display()
        );
    };
    let options = if fs_type == "xfs" { "ro,nouuid" } else { "ro" };
    let mount = Mount::device(&device, &appliance.at(OTHER_MOUNT), &fs_type, options);
    let mounted = match Mounted::new(sys, &mount) {
        Ok(mounted) => mounted,
        Err(error) => refuse!("slot {slot} would not boot: {error:#}"),
    };
    let seen = look(mounted.path());
    mounted
        .unmount()
        .with_context(|| format!("looking at slot {slot}"))?;
    Ok(seen)
}
