//! Arming what `apply --stage` wrote, and dropping a system before its first start.
//!
//! [`activate`]: 1. the slot must be `ready`; 2. it is looked at whether it would
//! boot, as a rollback looks, and whether it still holds the system that its boot
//! files are of; 3. what its health is compared with is written down anew: days may
//! have gone by since `apply`; 4. one write of the boot state.
//!
//! [`discard`]: 1. one write of the boot state takes the slot off its trial and
//! declares it empty; 2. the boot sector starts what it started before `apply`, if
//! that is as it was then; 3. the boot files and the GRUB that nothing starts any
//! more go, after the first `apply` all of `/boot/va`. Of a [`drill`] only the arming
//! is taken back.

use std::path::Path;

use anyhow::Result;

use super::{boot_sector, drill, rollback};
use crate::appliance::Appliance;
use crate::appliance::history::{self, Event};
use crate::appliance::machine::{Machine, boot_disk};
use crate::appliance::release::ReleaseRecord;
use crate::boot::bios::before::{Before, Stage};
use crate::boot::files as boot_files;
use crate::boot::record::SlotRecord;
use crate::boot::state::{Phase, State};
use crate::install::boot_files::write_baseline;
use crate::paths::RELEASE_FILE;
use crate::progress::Step;
use crate::refuse;
use crate::slot::Slot;
use crate::system::Lock;
use crate::system::files::read_yaml;
use crate::tree::resolve;

/// What `activate` did.
#[derive(Debug, PartialEq, Eq)]
pub struct Activated {
    /// The slot on trial.
    pub slot: Slot,
    /// The version in it.
    pub version: String,
    /// The starts it has.
    pub tries: u8,
    /// Whether it was on trial already, so that nothing was written.
    pub was_armed: bool,
}

/// What `discard` dropped.
#[derive(Debug, PartialEq, Eq)]
pub struct Discarded {
    /// The slot, which is empty now.
    pub slot: Slot,
    /// The version that was in it; `None` where its record is gone.
    pub version: Option<String>,
    /// Whether it was on trial.
    pub was_armed: bool,
    /// Whether that was a drill: then the slot is what it was before.
    pub was_drill: bool,
    /// Whether the boot sector starts again what it started before `apply`.
    pub is_grub_back: bool,
}

/// Puts the staged system on trial; writes what its health is compared with, then
/// the boot state once.
///
/// # Errors
/// Class `Refused` when nothing is staged, or it would not boot.
pub fn activate(appliance: &Appliance, machine: &Machine, lock: &Lock) -> Result<Activated> {
    let Some(mut state) = machine.state.clone() else {
        refuse!("nothing is staged; write a system with `va-upgrade apply --stage FILE.vab`");
    };
    rollback::require_default(machine, &state)?;
    drill::require_none(&state)?;
    let slot = machine.booted.other();
    appliance.progress.start(Step::CheckSlot(slot), None);
    if let Some(trial) = state.trial() {
        let record = rollback::require_boot_files(appliance, slot)?;
        return Ok(Activated {
            slot,
            version: record.version,
            tries: trial.tries_left,
            was_armed: true,
        });
    }
    let record = require_staged(appliance, machine, &state, slot)?;
    let tries = appliance.config.tries;
    appliance.progress.start(Step::Arm, None);
    write_baseline(appliance, &boot_files::dir(appliance.sys, slot))?;
    state.start_trial(slot, tries)?;
    appliance.save(&state, lock)?;
    let outcome = format!("on trial for {tries} tries");
    note(appliance, "activate", slot, &record.version, &outcome);
    Ok(Activated {
        slot,
        version: record.version,
        tries,
        was_armed: false,
    })
}

/// Refuses unless `slot` holds a whole system that has never been on trial, and
/// would boot; returns its record.
fn require_staged(
    appliance: &Appliance,
    machine: &Machine,
    state: &State,
    slot: Slot,
) -> Result<SlotRecord> {
    let phase = state.phase(slot);
    if phase != Phase::Ready {
        refuse!(
            "nothing is staged: slot {slot} is {phase}; write a system with \
             `va-upgrade apply --stage FILE.vab`"
        );
    }
    let record = rollback::require_boot_files(appliance, slot)?;
    if let Some(fault) = boot_sector::owner(appliance, machine)?.and_then(boot_sector::fault) {
        refuse!("{fault}");
    }
    rollback::check_root(appliance, machine, slot, &record)?;
    let release = rollback::look_into(appliance, slot, release_in)??;
    if release.version != record.version {
        refuse!(
            "slot {slot} holds version {}, but its boot files are of version {}; \
             write it again with `va-upgrade apply --stage FILE.vab`",
            release.version,
            record.version
        );
    }
    Ok(record)
}

fn release_in(root: &Path) -> Result<ReleaseRecord> {
    let path = resolve::place(root, Path::new(RELEASE_FILE))?;
    match read_yaml(&path) {
        Ok(release) => Ok(release),
        Err(error) => refuse!(
            "the staged system does not say which version it is ({error:#}); \
             write it again with `va-upgrade apply --stage FILE.vab`"
        ),
    }
}

/// Drops the system that is staged or on trial and has not been started; writes
/// the boot state and the boot sector, and removes what nothing starts any more.
/// `None` when there is none.
///
/// What fails once the boot state counts is a warning.
///
/// # Errors
/// Class `Refused` when the system to drop is the one that runs.
pub fn discard(appliance: &Appliance, machine: &Machine, lock: &Lock) -> Result<Option<Discarded>> {
    let Some(mut state) = machine.state.clone() else {
        return Ok(None);
    };
    let trial = state.trial().map(|trial| trial.slot);
    let slot = trial.unwrap_or(state.committed().other());
    if slot == machine.booted {
        rollback::require_default(machine, &state)?;
    }
    let version = boot_files::record(appliance.sys, slot).ok().flatten();
    let version = version.map(|record| record.version);
    if drill::cancel(appliance, &mut state, lock)? {
        return Ok(Some(Discarded {
            slot,
            version,
            was_armed: true,
            was_drill: true,
            is_grub_back: false,
        }));
    }
    if !matches!(state.phase(slot), Phase::Trial | Phase::Ready) {
        finish(appliance, machine, slot);
        return Ok(None);
    }
    if trial.is_some() {
        state.cancel_trial()?;
    }
    state.clear(slot)?;
    appliance.save(&state, lock)?;
    let before = put_back_grub(appliance, machine, &state, slot).unwrap_or_else(|error| {
        appliance.progress.warn(&format!(
            "GRUB stays the one that `va-upgrade apply` installed, which starts the running \
             system: {error:#}"
        ));
        None
    });
    let removed = boot_files::remove(appliance.sys, slot, lock);
    let removed = removed.and_then(|()| match &before {
        Some(before) => before.remove_new(appliance.sys),
        None => appliance.flush_boot(),
    });
    if let Err(error) = removed {
        appliance.progress.warn(&format!(
            "nothing starts slot {slot} any more, but its boot files are not all gone, which the \
             next `va-upgrade apply` sees to: {error:#}"
        ));
    }
    let outcome = match trial {
        Some(_) => "trial cancelled, slot emptied",
        None => "slot emptied",
    };
    let named = version.as_deref().unwrap_or("unknown");
    note(appliance, "discard", slot, named, outcome);
    Ok(Some(Discarded {
        slot,
        version,
        was_armed: trial.is_some(),
        was_drill: false,
        is_grub_back: before.is_some(),
    }))
}

/// Has the boot sector start what it started before the `apply` that wrote `slot`;
/// `None` where that is not known, or not to be trusted any more.
fn put_back_grub(
    appliance: &Appliance,
    machine: &Machine,
    state: &State,
    slot: Slot,
) -> Result<Option<Before>> {
    let disk = boot_disk(appliance)?;
    let Some((before, stage)) = Before::look(appliance.sys, &disk, slot)? else {
        return Ok(None);
    };
    // Another's menu has started this boot; later ones it has not been seen to start.
    let is_seen = machine.booted_by.slot.is_none() || !before.is_foreign(appliance.sys);
    if !is_seen || state.kernel_trial().is_some() {
        return Ok(None);
    }
    if stage == Stage::Switched {
        before.put_back(appliance.sys, &disk)?;
    }
    Ok(Some(before))
}

/// Removes what a `discard` that was cut short has left of the GRUB of `slot`.
fn finish(appliance: &Appliance, machine: &Machine, slot: Slot) {
    let finish = || -> Result<()> {
        let disk = boot_disk(appliance)?;
        match Before::look(appliance.sys, &disk, slot)? {
            Some((before, Stage::PutBack)) if slot != machine.booted => {
                before.remove_new(appliance.sys)
            }
            _ => Ok(()),
        }
    };
    if let Err(error) = finish() {
        appliance.progress.note(&format!("{error:#}"));
    }
}

fn note(appliance: &Appliance, operation: &str, slot: Slot, version: &str, outcome: &str) {
    let event = Event {
        operation,
        slot,
        version,
        step: None,
        outcome,
    };
    history::record(appliance, &event);
}
