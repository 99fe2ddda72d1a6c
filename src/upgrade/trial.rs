//! What the boot service does in a started system.
//!
//! On any boot: tell when the boot sector does not start our GRUB, or the slot no
//! kernel of its system. On a trial:
//! check health, then confirm, or note why not and restart; GRUB counts the
//! tries. On any other boot: mend the boot state and write down what became of a
//! trial. [`deadline`](super::deadline) restarts a trial that nothing ends.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::changes;
use super::health::{Baseline, Tried};
use super::kernel_drift::Drift;
use super::kernel_update::{self, Adopted, Change, Ended};
use super::trial_over::{is_marked_over, mark_over};
use super::{
    banner, boot_sector, drill, evidence, health, kernel_drift, owners, settings, status, window,
};
use crate::appliance::Appliance;
use crate::appliance::history::{self, Event};
use crate::appliance::machine::Machine;
use crate::boot::bios::before;
use crate::boot::files as boot_files;
use crate::boot::state::{Reason, State};
use crate::config::ConfirmBy;
use crate::paths::BOOT_DIR;
use crate::progress::Step;
use crate::refuse;
use crate::slot::Slot;
use crate::system::{Lock, Restart, Sysrq};

/// How long an ordered restart may take before the kernel is told to restart.
pub(super) const RESTART_PATIENCE: Duration = Duration::from_secs(90);

/// How long another command, even one that only looks, may hold the lock before a trial counts as not
/// confirmable.
pub const LOCK_PATIENCE: Duration = Duration::from_secs(120);

/// What a boot turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Not a trial; nothing was waiting.
    Ordinary,
    /// The trial is confirmed.
    Confirmed(Slot),
    /// The trial is healthy; a person is to confirm it in this time.
    Waiting(Slot, Duration),
    /// The trial is unhealthy; a restart was asked for.
    Restarting(String),
    /// A slot runs that is not the committed one.
    OtherSlot(Slot),
    /// A trial had failed before this boot.
    TrialFailed(Slot, Reason),
    /// A drill ended before this boot.
    DrillOver(Slot, Reason),
    /// A kernel that a package brought is the slot's own from now on.
    KernelKept(Slot, String),
    /// It had not come up.
    KernelFailed(Slot, String),
    /// It was not started, since its tries could not be counted.
    KernelNotTried(Slot, String),
}

/// Does what this boot asks for; see the module.
///
/// # Errors
/// When the machine cannot be looked at or the boot state not be written.
pub fn after_boot(appliance: &Appliance) -> Result<Outcome> {
    let outcome = do_after_boot(appliance);
    banner::renew(appliance);
    outcome
}

fn do_after_boot(appliance: &Appliance) -> Result<Outcome> {
    let machine = Machine::look(appliance)?;
    tell_boot_sector(appliance, &machine);
    let drift = kernel_drift::look(appliance, &machine);
    if let Some(drift) = &drift {
        appliance.progress.warn(&drift.to_string());
    }
    kernel_drift::note_seen(appliance, &machine);
    // A boot state that is gone takes no system for good that was only tried.
    let lost = machine.state.is_none() && machine.booted_by.why == "trial";
    if lost || on_trial(appliance, &machine) {
        return run_trial(appliance, &machine);
    }
    // Nothing of ours is on /boot before the first `apply`, or after it was discarded.
    if machine.state.is_none() && !appliance.at(BOOT_DIR).exists() {
        return Ok(Outcome::Ordinary);
    }
    let lock = appliance.wait_for_lock(LOCK_PATIENCE)?;
    // Whoever had the lock may have written another one.
    let machine = Machine::look(appliance)?;
    let mut state = status::after_boot(appliance, &machine);
    let drilled = drill::settle(&machine, &mut state);
    let failed_kernel = kernel_update::settle(appliance, &machine, &mut state, &lock);
    if let Err(error) = &failed_kernel {
        appliance.progress.warn(&format!(
            "what a kernel's trial left is still there: {error:#}"
        ));
    }
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
    owners::settle(appliance, &lock);
    if let Some((slot, reason)) = drilled {
        record(appliance, "drill", slot, &drill::record_of(slot, reason));
    }
    match failed_kernel {
        Ok(Some(Ended::Refused(refused))) => {
            return Ok(Outcome::KernelFailed(machine.booted, refused.kernel));
        }
        Ok(Some(Ended::NotStarted(kernel))) => {
            return Ok(Outcome::KernelNotTried(machine.booted, kernel));
        }
        _ => {}
    }
    match &drift {
        Some(Drift::Gone { .. }) => try_another(appliance, Change::default(), &lock),
        Some(Drift::Anew { started, .. }) => {
            let change = Change {
                release: Some(started.as_str()),
                is_removal: false,
            };
            try_another(appliance, change, &lock);
        }
        _ => {}
    }
    if let Some((slot, reason)) = drilled {
        return Ok(Outcome::DrillOver(slot, reason));
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

/// Has another kernel of the running system, or its initramfs, tried with the next
/// start, if there is one.
fn try_another(appliance: &Appliance, change: Change, lock: &Lock) {
    let adopted = Machine::look(appliance)
        .and_then(|machine| kernel_update::adopt(appliance, &machine, change, lock));
    match adopted {
        Ok(Adopted::OnTrial(release)) => appliance
            .progress
            .warn(&format!("kernel {release} is tried with the next restart")),
        Ok(Adopted::Nothing) => {}
        Err(error) => appliance.progress.warn(&format!("{error:#}")),
    }
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
    drill::require_no_drilled(&machine)?;
    let is_kernel = kernel_update::is_running(appliance, &machine);
    match state.trial() {
        Some(trial) if trial.slot == machine.booted => {}
        _ if is_kernel => {}
        _ if state.committed() == machine.booted => return Ok(false),
        _ => refuse!(
            "slot {} is {}; only a slot on trial can be confirmed, and only while it runs",
            machine.booted,
            state.phase(machine.booted)
        ),
    }
    state.confirm()?;
    match is_kernel {
        true => kernel_update::keep(appliance, &machine, &state, lock)?,
        false => {
            owners::plan(appliance, lock);
            appliance.save(&state, lock)?;
            record(appliance, "confirm", machine.booted, "committed");
            if let Err(error) = before::forget(appliance.sys) {
                appliance
                    .progress
                    .note(&format!("what GRUB was before still takes room: {error:#}"));
            }
        }
    }
    mark_over(appliance);
    banner::renew(appliance);
    settings::take_back(appliance, &machine.cmdline);
    // It takes its time, which no deadline is to end.
    owners::settle(appliance, lock);
    Ok(true)
}

/// Gives the running trial at least so many minutes from now; returns how long it
/// has then.
///
/// # Errors
/// Class `Refused` when the running slot is not on trial; those of [`window::grant`].
pub fn extend(appliance: &Appliance, minutes: u64, _lock: &Lock) -> Result<Duration> {
    let machine = Machine::look(appliance)?;
    if !on_trial(appliance, &machine) || is_marked_over(appliance) {
        refuse!(
            "slot {} is {}; only a trial that runs can be given more time",
            machine.booted,
            machine.state().phase(machine.booted)
        );
    }
    drill::require_no_drilled(&machine)?;
    let left = window::grant(appliance, minutes)?;
    let outcome = format!("may go on for {} minutes from now", left.as_secs() / 60);
    record(appliance, "confirm", machine.booted, &outcome);
    Ok(left)
}

pub(super) fn record(appliance: &Appliance, operation: &str, slot: Slot, outcome: &str) {
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

/// Tells whether what runs, the slot or the kernel it was started with, is on trial.
fn on_trial(appliance: &Appliance, machine: &Machine) -> bool {
    let slot = machine
        .state
        .as_ref()
        .and_then(State::trial)
        .map(|trial| trial.slot);
    slot == Some(machine.booted) || kernel_update::is_running(appliance, machine)
}

/// Returns what the health of the running system is compared with.
fn baseline(appliance: &Appliance, machine: &Machine) -> Baseline {
    let is_kernel = kernel_update::running_next(appliance, machine).is_some();
    Baseline {
        dir: changes::baseline(appliance, machine),
        tried: match is_kernel {
            true => Tried::Kernel,
            false => Tried::System,
        },
    }
}

fn run_trial(appliance: &Appliance, machine: &Machine) -> Result<Outcome> {
    if drill::is_drilled(machine) {
        return Ok(end_trial(
            appliance,
            Reason::Drill,
            drill::ON_PURPOSE.to_owned(),
        ));
    }
    let step = Step::CheckHealth(machine.booted);
    appliance.progress.start(step, None);
    let kernel = kernel_update::is_running(appliance, machine)
        .then(|| kernel_update::running_next(appliance, machine))
        .flatten();
    let before = baseline(appliance, machine);
    let Err(error) = health::check(appliance, &before) else {
        evidence::keep(appliance, &before.dir, None);
        let is_asked = appliance.config.confirm_by == ConfirmBy::Operator;
        if is_asked && kernel.is_none() && machine.state.is_some() {
            let left = window::grant(appliance, appliance.config.confirm_minutes)?;
            record(
                appliance,
                "trial",
                machine.booted,
                "healthy, waits for a person to confirm it",
            );
            return Ok(Outcome::Waiting(machine.booted, left));
        }
        // Whoever stalls with the lock does not make a healthy system a bad one.
        let deadline = Duration::from_secs(appliance.config.deadline_seconds);
        let lock = appliance.wait_for_lock(deadline.max(LOCK_PATIENCE))?;
        if !confirm(appliance, &lock)? && machine.state.is_none() {
            appliance.save(&machine.state(), &lock)?;
            mark_over(appliance);
        }
        return Ok(match kernel {
            Some(record) => Outcome::KernelKept(machine.booted, record.kernel),
            None => Outcome::Confirmed(machine.booted),
        });
    };
    Ok(end_trial(appliance, Reason::Health, format!("{error:#}")))
}

/// Restarts, in the usual way, unless the running trial is over already.
fn end_trial(appliance: &Appliance, reason: Reason, text: String) -> Outcome {
    let Some(given_up) = give_up(appliance, reason, &text, LOCK_PATIENCE) else {
        return Outcome::Ordinary;
    };
    if reason != Reason::Drill {
        evidence::keep_of_running(appliance, &text);
    }
    let sysrq = Sysrq::open(appliance.sys);
    restart(appliance, &given_up, Restart::Orderly, &sysrq);
    Outcome::Restarting(text)
}

/// A trial that is to end. Nobody confirms it any more: the lock is held until
/// the restart, unless somebody else holds it.
pub(super) struct GivenUp {
    _lock: Option<Lock>,
}

/// Notes why the trial is about to end; returns `None` when it is not to end at
/// all, since it was confirmed, cancelled or given more time meanwhile.
///
/// That is read without the lock, which an `apply` to the other slot may hold
/// for long; only the note waits for it, up to `patience`. Where it cannot be
/// found out the restart is due: a system whose `/boot` or boot state is
/// unreadable is not one to keep.
pub(super) fn give_up(
    appliance: &Appliance,
    reason: Reason,
    text: &str,
    patience: Duration,
) -> Option<GivenUp> {
    if is_over(appliance) {
        return None;
    }
    let has_time =
        || reason == Reason::Deadline && window::left(appliance).is_ok_and(|left| !left.is_zero());
    let lock = match note_reason(appliance, reason, text, patience) {
        Ok(lock) => Some(lock),
        Err(_) if is_over(appliance) || has_time() => return None,
        Err(error) => {
            appliance
                .progress
                .note(&format!("the reason could not be stored: {error:#}"));
            None
        }
    };
    appliance
        .progress
        .note(&format!("this trial is given up ({reason}): {text}"));
    Some(GivenUp { _lock: lock })
}

/// Tells whether it is clear that the running slot is not on trial any more.
fn is_over(appliance: &Appliance) -> bool {
    is_marked_over(appliance)
        || Machine::look(appliance)
            .is_ok_and(|machine| machine.state.is_some() && !on_trial(appliance, &machine))
}

/// Writes why the running trial is about to end; returns the lock, still held.
fn note_reason(
    appliance: &Appliance,
    reason: Reason,
    text: &str,
    patience: Duration,
) -> Result<Lock> {
    let lock = appliance.wait_for_lock(patience)?;
    let machine = Machine::look(appliance)?;
    ensure!(
        on_trial(appliance, &machine),
        "slot {} is not on trial",
        machine.booted
    );
    let mut state = machine.state();
    if reason == Reason::Deadline {
        // Nobody gives it more time from here on, since the lock is ours.
        ensure!(window::left(appliance)?.is_zero(), "it was given more time");
        // A healthy system that nobody wanted is not tried again.
        if appliance.config.confirm_by == ConfirmBy::Operator && window::is_granted(appliance) {
            state.spend_tries();
        }
    }
    state.note_reason(reason)?;
    appliance.save(&state, &lock)?;
    let operation = match state.is_drilling() {
        true => "drill",
        false => "trial",
    };
    record(appliance, operation, machine.booted, text);
    Ok(lock)
}

/// Restarts, if need be without asking anyone.
pub(super) fn restart(appliance: &Appliance, _trial: &GivenUp, how: Restart, sysrq: &Sysrq) {
    match appliance.sys.reboot(how) {
        Ok(()) => appliance.sys.wait(RESTART_PATIENCE),
        Err(error) => appliance
            .progress
            .note(&format!("the restart was not accepted: {error:#}")),
    }
    for outcome in [sysrq.sync(), sysrq.restart()] {
        if let Err(error) = outcome {
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
