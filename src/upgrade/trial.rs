//! What the boot service does in a started system.
//!
//! On any boot: tell when the boot sector does not start our GRUB. On a trial:
//! check health, then confirm, or note why not and restart; GRUB counts the
//! tries. On any other boot: mend the boot state and write down what became of a
//! trial. [`watch_deadline`] restarts a trial that nothing ends.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use super::{boot_sector, health, status};
use crate::appliance::Appliance;
use crate::appliance::history::{self, Event};
use crate::appliance::machine::Machine;
use crate::boot::entry::booted_by;
use crate::boot::files as boot_files;
use crate::boot::state::{Reason, State};
use crate::paths::BOOT_DIR;
use crate::progress::Step;
use crate::refuse;
use crate::slot::Slot;
use crate::system::{Lock, Restart};

/// How long an ordered restart may take before the kernel is told to restart.
const RESTART_PATIENCE: Duration = Duration::from_secs(90);

/// How long another command, even one that only looks, may hold the lock before a trial counts as not
/// confirmable.
const LOCK_PATIENCE: Duration = Duration::from_secs(120);

/// What a boot turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Not a trial; nothing was waiting.
    Ordinary,
    /// The trial is confirmed.
    Confirmed(Slot),
    /// The trial is unhealthy; a restart was asked for.
    Restarting(String),
    /// A slot runs that is not the committed one.
    OtherSlot(Slot),
    /// A trial had failed before this boot.
    TrialFailed(Slot, Reason),
}

/// Does what this boot asks for; see the module.
///
/// # Errors
/// When the machine cannot be looked at or the boot state not be written.
pub fn after_boot(appliance: &Appliance) -> Result<Outcome> {
    let machine = Machine::look(appliance)?;
    tell_boot_sector(appliance, &machine);
    if on_trial(&machine) {
        return run_trial(appliance, &machine);
    }
    let lock = appliance.wait_for_lock(LOCK_PATIENCE)?;
    let state = status::after_boot(appliance, &machine);
    if status::was_unread(&machine) {
        write_unread(appliance, &machine, &state, &lock)?;
    } else if machine.state.as_ref() != Some(&state) {
        appliance.save(&state, &lock)?;
    } else if !state.is_whole(&appliance.at(BOOT_DIR)) && appliance.save(&state, &lock)? {
        appliance
            .progress
            .note("a damaged copy of the boot state was repaired");
    }
    if machine.booted != state.committed() {
        // The menu starts it when the committed one does not load, or a person did.
        let outcome = format!("runs although slot {} is committed", state.committed());
        record(appliance, "boot", machine.booted, &outcome);
        return Ok(Outcome::OtherSlot(machine.booted));
    }
    // The words the menu gives to the first boot after a trial.
    let just_failed = ["exhausted", "nowrite", "noenv"].contains(&machine.booted_by.why.as_str())
        && !status::was_unread(&machine);
    match state.failed() {
        Some((slot, reason)) if just_failed => {
            record(appliance, "trial", slot, &format!("failed: {reason}"));
            Ok(Outcome::TrialFailed(slot, reason))
        }
        _ => Ok(Outcome::Ordinary),
    }
}

/// Writes the boot state that the menu could not read once more, and all of
/// `/boot` out of its journal, which the menu does not replay.
fn write_unread(
    appliance: &Appliance,
    machine: &Machine,
    state: &State,
    lock: &Lock,
) -> Result<()> {
    appliance.save(state, lock)?;
    appliance.flush_boot()?;
    let outcome = "started without the boot state, which the menu could not read; \
                   it is written again";
    appliance.progress.warn(outcome);
    record(appliance, "boot", machine.booted, outcome);
    Ok(())
}

/// Tells when the boot sector starts another GRUB; that ends nothing.
fn tell_boot_sector(appliance: &Appliance, machine: &Machine) {
    match boot_sector::owner(appliance, machine) {
        Ok(owner) => {
            if let Some(fault) = owner.and_then(boot_sector::fault) {
                appliance.progress.warn(fault);
                record(appliance, "boot", machine.booted, fault);
            }
        }
        Err(error) => appliance
            .progress
            .warn(&format!("the boot sector was not looked at: {error:#}")),
    }
}

/// Makes the running trial slot the committed one.
///
/// Returns `false` when it is committed already.
///
/// # Errors
/// Class `Refused` when the running slot is neither on trial nor committed.
pub fn confirm(appliance: &Appliance, lock: &Lock) -> Result<bool> {
    let machine = Machine::look(appliance)?;
    let mut state = machine.state();
    match state.trial() {
        Some(trial) if trial.slot == machine.booted => {}
        _ if state.committed() == machine.booted => return Ok(false),
        _ => refuse!(
            "slot {} is {}; only a slot on trial can be confirmed, and only while it runs",
            machine.booted,
            state.phase(machine.booted)
        ),
    }
    state.confirm()?;
    appliance.save(&state, lock)?;
    record(appliance, "confirm", machine.booted, "committed");
    Ok(true)
}

fn record(appliance: &Appliance, operation: &str, slot: Slot, outcome: &str) {
    let version = version_of(appliance, slot);
    let event = Event {
        operation,
        slot,
        version: &version,
        step: None,
        outcome,
    };
    history::record(appliance, &event);
}

fn on_trial(machine: &Machine) -> bool {
    let slot = machine
        .state
        .as_ref()
        .and_then(State::trial)
        .map(|trial| trial.slot);
    slot == Some(machine.booted)
}

fn run_trial(appliance: &Appliance, machine: &Machine) -> Result<Outcome> {
    let step = Step::CheckHealth(machine.booted);
    appliance.progress.start(step, None);
    let Err(error) = health::check(appliance, machine) else {
        let lock = appliance.wait_for_lock(LOCK_PATIENCE)?;
        confirm(appliance, &lock)?;
        return Ok(Outcome::Confirmed(machine.booted));
    };
    let reason = format!("{error:#}");
    if !give_up(appliance, Reason::Health, &reason) {
        return Ok(Outcome::Ordinary);
    }
    restart(appliance, Restart::Orderly);
    Ok(Outcome::Restarting(reason))
}

/// Waits until this boot's deadline, then restarts the machine if it is still
/// an unconfirmed trial. Needs neither `/boot` nor a sound boot state to restart.
///
/// # Errors
/// When the kernel's clock or command line cannot be read.
pub fn watch_deadline(appliance: &Appliance) -> Result<()> {
    let cmdline = fs::read_to_string(appliance.at("/proc/cmdline"))
        .context("reading the kernel command line")?;
    if booted_by(&cmdline).why != "trial" {
        return Ok(());
    }
    let uptime = uptime_seconds(&appliance.at("/proc/uptime"))?;
    let left = appliance.config.deadline_seconds.saturating_sub(uptime);
    appliance.sys.wait(Duration::from_secs(left));
    let text = format!(
        "nothing confirmed this system in {} seconds",
        appliance.config.deadline_seconds
    );
    if give_up(appliance, Reason::Deadline, &text) {
        restart(appliance, Restart::Forced);
    }
    Ok(())
}

fn uptime_seconds(path: &Path) -> Result<u64> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let seconds = text
        .split(['.', ' '])
        .next()
        .and_then(|word| word.parse().ok());
    seconds.with_context(|| format!("{} says {text:?}", path.display()))
}

/// Notes why the trial is about to end; returns whether it is to end at all,
/// since it may have been confirmed or cancelled meanwhile.
///
/// Where that cannot be found out the restart is due: a system whose `/boot` or
/// boot state is unreadable is not one to keep.
fn give_up(appliance: &Appliance, reason: Reason, text: &str) -> bool {
    let note = || -> Result<bool> {
        let lock = appliance.wait_for_lock(LOCK_PATIENCE)?;
        let machine = Machine::look(appliance)?;
        if !on_trial(&machine) {
            return Ok(false);
        }
        let mut state = machine.state();
        state.note_reason(reason)?;
        appliance.save(&state, &lock)?;
        record(appliance, "trial", machine.booted, text);
        Ok(true)
    };
    let due = note().unwrap_or_else(|error| {
        appliance
            .progress
            .note(&format!("the reason could not be stored: {error:#}"));
        true
    });
    if due {
        appliance
            .progress
            .note(&format!("this trial is given up ({reason}): {text}"));
    }
    due
}

/// Restarts, if need be without asking anyone.
fn restart(appliance: &Appliance, how: Restart) {
    match appliance.sys.reboot(how) {
        Ok(()) => appliance.sys.wait(RESTART_PATIENCE),
        Err(error) => appliance
            .progress
            .note(&format!("the restart was not accepted: {error:#}")),
    }
    // Linux, "Magic SysRq": s syncs, b restarts at once.
    for key in ["s", "b"] {
        if let Err(error) = fs::write(appliance.at("/proc/sysrq-trigger"), key) {
            appliance
                .progress
                .note(&format!("restarting through sysrq: {error}"));
        }
    }
}

fn version_of(appliance: &Appliance, slot: Slot) -> String {
    let record = boot_files::record(appliance.sys, slot).ok().flatten();
    record.map_or_else(|| "unknown".into(), |record| record.version)
}
