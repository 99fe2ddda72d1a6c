//! A trial that is made to fail, to prove the way back on this very machine.
//!
//! 1. [`arm`]: the other slot must hold a system that would boot and whose program
//!    knows drills, and the running one must be able to come back; one write of
//!    the boot state;
//! 2. the menu starts the slot, once, as it starts any trial;
//! 3. the boot service there notes [`ON_PURPOSE`] and restarts at once; where the
//!    slot hangs, the deadline restarts it;
//! 4. the menu finds no try left and starts the committed slot, whose boot service
//!    [`settle`]s the drill.
//!
//! The slot is before and afterwards what it was, and nothing confirms it.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::kernel_drift::{self, Drift};
use super::{boot_sector, rollback};
use crate::appliance::Appliance;
use crate::appliance::history::{self, Event};
use crate::appliance::machine::Machine;
use crate::boot::files as boot_files;
use crate::boot::state::{Phase, Reason, State};
use crate::install::program;
use crate::paths::PROGRAM;
use crate::progress::Step;
use crate::refuse;
use crate::slot::Slot;
use crate::system::{Chroot, Cmd, Lock};

/// Why the drilled slot restarts.
pub const ON_PURPOSE: &str = "came up for a drill, and is left again on purpose";

/// How long the other system's program may take to print its help.
const HELP_LIMIT: Duration = Duration::from_secs(60);

/// What `drill` did.
#[derive(Debug, PartialEq, Eq)]
pub struct Armed {
    /// The slot that the next boot starts.
    pub slot: Slot,
    /// The version in it.
    pub version: String,
    /// Whether the drill was armed already, so that nothing was written.
    pub was_armed: bool,
}

/// Has the next boot start the other slot, once, and leave it; writes the boot
/// state once.
///
/// # Errors
/// Class `Refused` when either slot would not boot, or the other one would not
/// know that it is a drill.
pub fn arm(appliance: &Appliance, machine: &Machine, lock: &Lock) -> Result<Armed> {
    let Some(mut state) = machine.state.clone() else {
        refuse!("a drill needs another system to start, {WAY_OUT}");
    };
    let slot = machine.booted.other();
    rollback::require_default(machine, &state)?;
    appliance.progress.start(Step::CheckSlot(slot), None);
    if state.is_drilling() && state.trial().is_some() {
        let record = rollback::require_boot_files(appliance, slot)?;
        return Ok(Armed {
            slot,
            version: record.version,
            was_armed: true,
        });
    }
    require_quiet(&state)?;
    require_way_back(appliance, machine)?;
    let version = require_start(appliance, machine, &state, slot)?;
    appliance.progress.start(Step::Arm, None);
    state.start_drill(slot)?;
    appliance.save(&state, lock)?;
    note(appliance, slot, "armed");
    Ok(Armed {
        slot,
        version,
        was_armed: false,
    })
}

/// Where there is no system to start.
const WAY_OUT: &str =
    "and there is none yet; write one with `va-upgrade apply --stage FILE.vab`, then drill";

/// Refuses while a trial, of a slot or of a kernel, is not over.
fn require_quiet(state: &State) -> Result<()> {
    if let Some(trial) = state.trial() {
        refuse!(
            "slot {} is on trial, so the next boot is no drill; restart to try it, or drop it with \
             `va-upgrade discard`",
            trial.slot
        );
    }
    if state.kernel_trial().is_some() || state.kernel_failed().is_some() || state.is_drilling() {
        refuse!(
            "another kernel is on trial, or the end of a trial is not written down yet; restart \
             first, then drill"
        );
    }
    Ok(())
}

/// Refuses unless the running system would come up again afterwards.
fn require_way_back(appliance: &Appliance, machine: &Machine) -> Result<()> {
    rollback::require_boot_files(appliance, machine.booted)?;
    if let Some(drift @ Drift::Gone { .. }) = kernel_drift::look(appliance, machine) {
        refuse!("{drift}");
    }
    if let Some(fault) = boot_sector::owner(appliance, machine)?.and_then(boot_sector::fault) {
        refuse!("{fault}");
    }
    Ok(())
}

/// Refuses unless `slot` would boot, know the drill and end it; returns its version.
fn require_start(
    appliance: &Appliance,
    machine: &Machine,
    state: &State,
    slot: Slot,
) -> Result<String> {
    match state.phase(slot) {
        Phase::Good | Phase::Ready => {}
        Phase::Empty => refuse!("a drill needs another system to start, {WAY_OUT}"),
        phase => refuse!(
            "a drill needs another system that would boot, but slot {slot} is {phase}; write one \
             with `va-upgrade apply --stage FILE.vab`, then drill"
        ),
    }
    let record = rollback::require_boot_files(appliance, slot)?;
    rollback::check_root(appliance, machine, slot, &record)?;
    rollback::look_into(appliance, slot, |root| {
        require_knowledge(appliance, slot, root)
    })??;
    Ok(record.version)
}

/// Refuses unless the system at `root` has a boot service that leaves it again: an
/// older one would keep it.
fn require_knowledge(appliance: &Appliance, slot: Slot, root: &Path) -> Result<()> {
    let chroot = Chroot::enter(appliance.sys, root, &[])?;
    let help = Cmd::new(PROGRAM).args(["drill", "--help"]);
    let answer = chroot.run(help.limit(HELP_LIMIT));
    chroot.leave()?;
    if let Err(error) = answer {
        refuse!(
            "the program in slot {slot} knows no drills, so it would keep the system instead of \
             leaving it; write a newer one with `va-upgrade apply --stage FILE.vab`, then drill \
             ({error:#})"
        );
    }
    if let Some(unit) = program::disabled_unit(root)? {
        refuse!(
            "{unit} is not enabled in slot {slot}, so nothing there would end the drill; write \
             the slot again with `va-upgrade apply --stage FILE.vab`, then drill"
        );
    }
    Ok(())
}

/// Refuses while a drill is armed or runs.
pub(super) fn require_none(state: &State) -> Result<()> {
    if state.is_drilling() {
        refuse!(
            "a drill is armed or runs, which nothing confirms; `va-upgrade discard` cancels it \
             before the restart, `va-upgrade status` says afterwards how it ended"
        );
    }
    Ok(())
}

/// Tells whether the running slot was started for a drill, which the menu says where
/// the boot state is gone.
pub(super) fn is_drilled(machine: &Machine) -> bool {
    let started = || machine.booted_by.is_drill && machine.booted_by.why == "trial";
    machine
        .state
        .as_ref()
        .map_or_else(started, |state| match state.trial() {
            Some(trial) => state.is_drilling() && trial.slot == machine.booted,
            None => false,
        })
}

/// Refuses where the running slot was started for a drill.
pub(super) fn require_no_drilled(machine: &Machine) -> Result<()> {
    if is_drilled(machine) {
        refuse!(
            "slot {} runs for a drill, which nothing confirms; its boot service ends it with a \
             restart, and `va-upgrade status` says afterwards how it ended",
            machine.booted
        );
    }
    Ok(())
}

/// Takes a drill that is armed back; writes the boot state. Returns whether there
/// was one.
pub(super) fn cancel(appliance: &Appliance, state: &mut State, lock: &Lock) -> Result<bool> {
    let Some(trial) = state.trial().filter(|_| state.is_drilling()) else {
        return Ok(false);
    };
    state.cancel_trial()?;
    appliance.save(state, lock)?;
    note(appliance, trial.slot, "cancelled");
    Ok(true)
}

/// Ends, in `state` alone, a drill from which this boot came back; returns its
/// slot and how it ended.
pub(super) fn settle(machine: &Machine, state: &mut State) -> Option<(Slot, Reason)> {
    if machine.booted != state.committed() {
        return None;
    }
    let drill = state.end_drill()?;
    Some((drill.slot, drill.outcome?))
}

/// Says how the drill of `slot` ended, as the history has it.
pub fn record_of(slot: Slot, reason: Reason) -> String {
    format!("drill {}", verdict(slot, reason))
}

/// Says how the drill of `slot` ended.
pub fn verdict(slot: Slot, reason: Reason) -> String {
    let back = slot.other();
    match reason {
        Reason::Drill => format!("passed: slot {slot} started, slot {back} came back"),
        Reason::Exhausted => format!(
            "failed: slot {slot} did not start, or could not write that it did; slot {back} came \
             back; watch the console while it is drilled again"
        ),
        Reason::Nowrite => format!(
            "failed: GRUB could not store the count, so slot {slot} was not started; see what \
             `va-upgrade check` says of /boot"
        ),
        Reason::Deadline => format!(
            "failed: slot {slot} started, but its boot service did not leave it; the deadline \
             did, and slot {back} came back"
        ),
        Reason::Health | Reason::Noenv => {
            format!("failed: slot {slot} was left ({reason}), and slot {back} came back")
        }
    }
}

fn note(appliance: &Appliance, slot: Slot, outcome: &str) {
    let record = boot_files::record(appliance.sys, slot).ok().flatten();
    let event = Event {
        operation: "drill",
        slot,
        version: &record.map_or_else(|| "unknown".into(), |record| record.version),
        step: None,
        outcome,
    };
    history::record(appliance, &event);
}
