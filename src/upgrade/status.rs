//! What the slots are, what boots next and why. Changes nothing.

use anyhow::Result;
use serde::Serialize;

use super::machine::Machine;
use super::record::{ReleaseRecord, SlotRecord};
use super::slot_boot;
use crate::config::Config;
use crate::slot::Slot;
use crate::state::{Phase, Reason, State, Trial};

/// The answer of `status`; its JSON form is in docs/interface.md.
#[derive(Debug, Serialize)]
pub struct Status {
    /// The version of this shape.
    pub format: u32,
    /// The slot that runs.
    pub booted: Slot,
    /// The default slot.
    pub committed: Slot,
    /// The slot that boots next.
    pub next: Slot,
    /// The slot on trial.
    pub trial: Option<Trial>,
    /// The last trial that did not come up.
    pub failed: Option<Failed>,
    /// Both slots.
    pub slots: Vec<SlotStatus>,
}

/// A trial that did not come up.
#[derive(Debug, Serialize)]
pub struct Failed {
    /// Its slot.
    pub slot: Slot,
    /// The version that was tried.
    pub version: Option<String>,
    /// Why it ended.
    pub reason: Reason,
}

/// One slot.
#[derive(Debug, Serialize)]
pub struct SlotStatus {
    /// Its name.
    pub name: Slot,
    /// Its device.
    pub device: String,
    /// What it is.
    pub state: Phase,
    /// The version of the system in it.
    pub version: Option<String>,
    /// The release of its kernel.
    pub kernel: Option<String>,
    /// Whether its boot files are there and it is meant to boot.
    pub bootable: bool,
}

/// Finds out the status of the machine.
///
/// # Errors
/// When a record cannot be read.
pub fn status(config: &Config, machine: &Machine) -> Result<Status> {
    let state = after_boot(config, machine);
    let record = |slot| SlotRecord::load(&slot_boot::dir(config, slot));
    let mut slots = Vec::new();
    for slot in Slot::ALL {
        slots.push(slot_status(config, machine, &state, slot, record(slot)?)?);
    }
    let failed = match state.failed() {
        Some((slot, reason)) => Some(Failed {
            slot,
            version: record(slot)?.map(|r| r.version),
            reason,
        }),
        None => None,
    };
    Ok(Status {
        format: 1,
        booted: machine.booted,
        committed: state.committed(),
        next: state.next(),
        trial: state.trial(),
        failed,
        slots,
    })
}

/// Returns the state with what the menu could not write itself: a trial that
/// was never started because its count could not be stored, or a boot from the
/// baked slot because no copy of the state was readable.
pub fn after_boot(config: &Config, machine: &Machine) -> State {
    let mut state = machine.state();
    let why = machine.booted_by.why.as_str();
    let waiting = state
        .trial()
        .is_some_and(|trial| trial.slot != machine.booted);
    if why == "nowrite" && waiting {
        // The trial is there, as was just seen.
        let _ = state.fail_trial(Reason::Nowrite);
    }
    if why == "noenv" && machine.state.is_none() {
        let other = machine.booted.other();
        if SlotRecord::load(&slot_boot::dir(config, other))
            .ok()
            .flatten()
            .is_some()
        {
            state.fail(other, Reason::Noenv);
        }
    }
    state
}

fn slot_status(
    config: &Config,
    machine: &Machine,
    state: &State,
    slot: Slot,
    record: Option<SlotRecord>,
) -> Result<SlotStatus> {
    let phase = state.phase(slot);
    let filled = !matches!(phase, Phase::Empty | Phase::Writing);
    let running = slot == machine.booted;
    let adopted = machine.state.is_some();
    let whole = record
        .as_ref()
        .is_some_and(|r| r.faults(&slot_boot::dir(config, slot), false).is_empty());
    let kernel = match &record {
        Some(record) => Some(record.kernel.clone()),
        None if running => slot_boot::running_kernel(config)
            .ok()
            .map(|kernel| kernel.release),
        None => None,
    };
    let version = match record {
        Some(record) => Some(record.version),
        None if running => Some(ReleaseRecord::of_running(config)?.version),
        None => None,
    };
    Ok(SlotStatus {
        name: slot,
        device: config.device(slot).display().to_string(),
        state: phase,
        version: version.filter(|_| filled),
        kernel: kernel.filter(|_| filled),
        // Without a boot state it is the installer's menu that boots it.
        bootable: filled && phase != Phase::Failed && (whole || (running && !adopted)),
    })
}

impl Status {
    /// Renders the status for a person.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for slot in &self.slots {
            let mark = if slot.name == self.booted { '*' } else { ' ' };
            let unknown = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".into());
            text += &format!(
                "{mark} {:<5} {:<10} version {:<12} kernel {}{}\n",
                slot.name,
                slot.state,
                unknown(&slot.version),
                unknown(&slot.kernel),
                if slot.bootable {
                    ""
                } else {
                    "  (not bootable)"
                }
            );
        }
        let why = match self.trial {
            Some(trial) if trial.slot == self.booted => {
                format!(
                    "on trial, {} more tries; not confirmed yet",
                    trial.tries_left
                )
            }
            Some(trial) if trial.tries_left > 0 => format!("its trial, {} tries", trial.tries_left),
            Some(_) => "the trial has no tries left".to_owned(),
            None => "committed".to_owned(),
        };
        text += &format!("boots next: {} ({why})\n", self.next);
        let on_trial = self.trial.is_some_and(|trial| trial.slot == self.booted);
        if self.booted != self.committed && !on_trial {
            text += &format!(
                "slot {} runs although {} is committed: rolled back and not restarted yet, chosen in \
                 the menu, or the committed slot did not load\n",
                self.booted, self.committed
            );
        }
        if let Some(failed) = &self.failed {
            let version = failed.version.as_deref().unwrap_or("unknown");
            text += &format!(
                "failed: version {version} in slot {}: {}\n",
                failed.slot,
                explain(failed.reason)
            );
        }
        text
    }
}

fn explain(reason: Reason) -> &'static str {
    match reason {
        Reason::Exhausted => "it used up its tries without coming up (exhausted)",
        Reason::Health => "it came up, but a health check failed (health)",
        Reason::Deadline => "it was not confirmed in time (deadline)",
        Reason::Nowrite => "GRUB could not store the count, so it was not tried (nowrite)",
        Reason::Noenv => "the boot state was unreadable (noenv)",
    }
}
