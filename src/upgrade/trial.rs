//! What the boot service does in a started system.
//!
//! On a trial: check health, then confirm, or note why not and restart; GRUB
//! counts the tries. On any other boot: mend the boot state and write down what
//! became of a trial. [`watch_deadline`] restarts a trial that nothing ends.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use super::health;
use super::history::{self, Event};
use super::machine::{self, BOOT, BOOT_DIR, Machine};
use super::record::SlotRecord;
use super::slot_boot;
use super::status;
use crate::boot::entry::booted_by;
use crate::config::Config;
use crate::disk::space;
use crate::progress::Progress;
use crate::refuse;
use crate::slot::Slot;
use crate::state::{Reason, State};
use crate::system::{Lock, Restart, System};

/// The lock of every command that changes something.
pub const LOCK_FILE: &str = "/run/va-upgrade.lock";

/// How long an ordered restart may take before the kernel is told to restart.
const RESTART_SECONDS: u64 = 90;

/// How long another command may hold the lock before a trial counts as not
/// confirmable.
const LOCK_SECONDS: u64 = 120;

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
pub fn after_boot(sys: &dyn System, config: &Config, progress: &dyn Progress) -> Result<Outcome> {
    let machine = Machine::look(config)?;
    if on_trial(&machine) {
        return run_trial(sys, config, &machine, progress);
    }
    let _lock = wait_for_lock(config)?;
    let state = status::after_boot(config, &machine);
    let dir = config.at(BOOT_DIR);
    if machine.state.as_ref() != Some(&state) {
        machine::store(sys, config, &state)?;
    } else if state.repair(&dir)? {
        space::flush_journal(sys, &config.at(BOOT))?;
        progress.note("a damaged copy of the boot state was repaired");
    }
    if machine.booted != state.committed() {
        // The menu starts it when the committed one does not load, or a person did.
        let outcome = format!("runs although slot {} is committed", state.committed());
        record(config, "boot", machine.booted, &outcome, progress);
        return Ok(Outcome::OtherSlot(machine.booted));
    }
    // The words the menu gives to the first boot after a trial.
    let just_failed = ["exhausted", "nowrite", "noenv"].contains(&machine.booted_by.why.as_str());
    match state.failed() {
        Some((slot, reason)) if just_failed => {
            record(
                config,
                "trial",
                slot,
                &format!("failed: {reason}"),
                progress,
            );
            Ok(Outcome::TrialFailed(slot, reason))
        }
        _ => Ok(Outcome::Ordinary),
    }
}

/// Makes the running trial slot the committed one; the caller holds the lock.
///
/// Returns `false` when it is committed already.
///
/// # Errors
/// Class `Refused` when the running slot is neither on trial nor committed.
pub fn confirm(sys: &dyn System, config: &Config, progress: &dyn Progress) -> Result<bool> {
    let machine = Machine::look(config)?;
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
    machine::store(sys, config, &state)?;
    record(config, "confirm", machine.booted, "committed", progress);
    Ok(true)
}

/// Takes the lock, also when a command that only looks holds it for a moment:
/// a healthy trial must not fail for that.
fn wait_for_lock(config: &Config) -> Result<Lock> {
    Lock::wait(&config.at(LOCK_FILE), config.pause(LOCK_SECONDS))
}

fn record(config: &Config, operation: &str, slot: Slot, outcome: &str, progress: &dyn Progress) {
    let version = version_of(config, slot);
    let event = Event {
        operation,
        slot,
        version: &version,
        outcome,
    };
    history::record(config, &event, progress);
}

fn on_trial(machine: &Machine) -> bool {
    let slot = machine
        .state
        .as_ref()
        .and_then(State::trial)
        .map(|trial| trial.slot);
    slot == Some(machine.booted)
}

fn run_trial(
    sys: &dyn System,
    config: &Config,
    machine: &Machine,
    progress: &dyn Progress,
) -> Result<Outcome> {
    progress.start(
        &format!("checking the health of slot {}", machine.booted),
        None,
    );
    let Err(error) = health::check(sys, config, machine) else {
        let _lock = wait_for_lock(config)?;
        confirm(sys, config, progress)?;
        return Ok(Outcome::Confirmed(machine.booted));
    };
    let reason = format!("{error:#}");
    if !give_up(sys, config, Reason::Health, &reason, progress) {
        return Ok(Outcome::Ordinary);
    }
    restart(sys, config, Restart::Orderly, progress);
    Ok(Outcome::Restarting(reason))
}

/// Waits until this boot's deadline, then restarts the machine if it is still
/// an unconfirmed trial. Needs neither `/boot` nor a sound boot state to restart.
///
/// # Errors
/// When the kernel's clock or command line cannot be read.
pub fn watch_deadline(sys: &dyn System, config: &Config, progress: &dyn Progress) -> Result<()> {
    let cmdline = fs::read_to_string(config.at("/proc/cmdline"))
        .context("reading the kernel command line")?;
    if booted_by(&cmdline).why != "trial" {
        return Ok(());
    }
    let uptime = uptime_seconds(&config.at("/proc/uptime"))?;
    thread::sleep(Duration::from_secs(
        config.deadline_seconds.saturating_sub(uptime),
    ));
    let text = format!(
        "nothing confirmed this system in {} seconds",
        config.deadline_seconds
    );
    if give_up(sys, config, Reason::Deadline, &text, progress) {
        restart(sys, config, Restart::Forced, progress);
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
fn give_up(
    sys: &dyn System,
    config: &Config,
    reason: Reason,
    text: &str,
    progress: &dyn Progress,
) -> bool {
    let note = || -> Result<bool> {
        let _lock = wait_for_lock(config)?;
        let machine = Machine::look(config)?;
        if !on_trial(&machine) {
            return Ok(false);
        }
        let mut state = machine.state();
        state.note_reason(reason)?;
        machine::store(sys, config, &state)?;
        record(config, "trial", machine.booted, text, progress);
        Ok(true)
    };
    let due = note().unwrap_or_else(|error| {
        progress.note(&format!("the reason could not be stored: {error:#}"));
        true
    });
    if due {
        progress.note(&format!("this trial is given up ({reason}): {text}"));
    }
    due
}

/// Restarts, if need be without asking anyone.
fn restart(sys: &dyn System, config: &Config, how: Restart, progress: &dyn Progress) {
    match sys.reboot(how) {
        Ok(()) => thread::sleep(config.pause(RESTART_SECONDS)),
        Err(error) => progress.note(&format!("the restart was not accepted: {error:#}")),
    }
    // Linux, "Magic SysRq": s syncs, b restarts at once.
    for key in ["s", "b"] {
        if let Err(error) = fs::write(config.at("/proc/sysrq-trigger"), key) {
            progress.note(&format!("restarting through sysrq: {error}"));
        }
    }
}

fn version_of(config: &Config, slot: Slot) -> String {
    let record = SlotRecord::load(&slot_boot::dir(config, slot))
        .ok()
        .flatten();
    record.map_or_else(|| "unknown".into(), |record| record.version)
}
