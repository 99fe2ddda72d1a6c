//! What the slots are, what boots next and why. Changes nothing.

use anyhow::Result;
use serde::Serialize;

use super::trial_over::is_marked_over;
use super::{boot_sector, evidence, kernel_drift, window};
use crate::appliance::Appliance;
use crate::appliance::machine::Machine;
use crate::appliance::release::ReleaseRecord;
use crate::boot::bios::installed::Owner;
use crate::boot::files as boot_files;
use crate::boot::next;
use crate::boot::record::SlotRecord;
use crate::boot::state::{Drill, Phase, Reason, State, Trial};
use crate::config::ConfirmBy;
use crate::slot::Slot;

/// The answer of `status`; its JSON form stands in docs/interface.md.
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
    /// The confirmation that a person is to give to the trial that runs.
    pub confirmation: Option<Confirmation>,
    /// The last trial that did not come up.
    pub failed: Option<Failed>,
    /// Whether the menu could not read the boot state when it started this boot,
    /// though it is readable now.
    pub state_unread: bool,
    /// Whose GRUB the boot sector starts; `None` before the first `apply`.
    pub boot_sector: Option<Owner>,
    /// How the kernel that the running slot starts and those in its system came
    /// apart, in a person's words.
    pub kernel_drift: Option<String>,
    /// The other kernel of the committed slot that is on trial.
    pub kernel_trial: Option<KernelTrial>,
    /// The drill that is armed, or the last one.
    pub drill: Option<Drill>,
    /// Both slots.
    pub slots: Vec<SlotStatus>,
}

/// A person's word that is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Confirmation {
    /// In how many seconds the old slot boots again without it.
    pub seconds_left: u64,
}

/// A kernel that a package brought, tried beside the one of its slot.
#[derive(Debug, Serialize)]
pub struct KernelTrial {
    /// Its release; `None` where its files are gone.
    pub kernel: Option<String>,
    /// How many starts it has left.
    pub tries_left: u8,
}

/// A trial that did not come up.
#[derive(Debug, Serialize)]
pub struct Failed {
    /// Its slot.
    pub slot: Slot,
    /// The version that was tried; `None` once it is being written over.
    pub version: Option<String>,
    /// Why it ended.
    pub reason: Reason,
    /// The directory with its report and journal, where it could keep them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept: Option<String>,
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
pub fn status(appliance: &Appliance, machine: &Machine) -> Result<Status> {
    let state = after_boot(appliance, machine);
    let record = |slot| boot_files::record(appliance.sys, slot);
    let mut slots = Vec::new();
    for slot in Slot::ALL {
        slots.push(slot_status(
            appliance,
            machine,
            &state,
            slot,
            record(slot)?,
        )?);
    }
    let failed = match state.failed() {
        Some((slot, reason)) => Some(Failed {
            slot,
            version: match state.phase(slot) {
                Phase::Failed => record(slot)?.map(|r| r.version),
                // What is on /boot by now, if anything, is of another system.
                _ => None,
            },
            reason,
            kept: match state.phase(slot) {
                Phase::Failed => evidence::kept(appliance, slot),
                _ => None,
            },
        }),
        None => None,
    };
    Ok(Status {
        format: 1,
        booted: machine.booted,
        committed: state.committed(),
        next: state.next(),
        trial: state.trial(),
        confirmation: confirmation(appliance, machine, &state),
        failed,
        state_unread: was_unread(machine),
        // Who may not read the disk gets the rest of the answer.
        boot_sector: boot_sector::owner(appliance, machine).unwrap_or(Some(Owner::Unknown)),
        kernel_drift: kernel_drift::look(appliance, machine).map(|drift| drift.to_string()),
        kernel_trial: state.kernel_trial().map(|trial| KernelTrial {
            kernel: next::load(appliance.sys, trial.slot)
                .ok()
                .flatten()
                .map(|record| record.kernel),
            tries_left: trial.tries_left,
        }),
        drill: state.drill(),
        slots,
    })
}

/// Returns how long a person still has to confirm the running slot, where its
/// health is checked and the settings leave the rest to a person.
fn confirmation(appliance: &Appliance, machine: &Machine, state: &State) -> Option<Confirmation> {
    let is_waiting = appliance.config.confirm_by == ConfirmBy::Operator
        && state
            .trial()
            .is_some_and(|trial| trial.slot == machine.booted)
        && !state.is_drilling()
        && window::is_granted(appliance)
        && !is_marked_over(appliance);
    let left = is_waiting.then(|| window::left(appliance).ok())??;
    Some(Confirmation {
        seconds_left: left.as_secs(),
    })
}

/// Tells whether the menu started this boot without the boot state that is
/// readable now.
pub fn was_unread(machine: &Machine) -> bool {
    machine.booted_by.why == "noenv" && machine.state.is_some()
}

/// Returns the state with what the menu could not write itself: a trial that
/// was never started because its count could not be stored, or a boot from the
/// baked slot because no copy of the state was readable.
pub fn after_boot(appliance: &Appliance, machine: &Machine) -> State {
    let mut state = machine.state();
    let why = machine.booted_by.why.as_str();
    let waiting = state
        .trial()
        .is_some_and(|trial| trial.slot != machine.booted);
    // One that was armed since this boot is not the one that was not counted.
    let kernel_waiting = state.kernel_trial().is_some() && !is_marked_over(appliance);
    if why == "nowrite" && (waiting || kernel_waiting) {
        // The trial is there, as was just seen.
        let _ = state.fail_trial(Reason::Nowrite);
    }
    if why == "noenv" && machine.state.is_none() {
        let other = machine.booted.other();
        if boot_files::record(appliance.sys, other)
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
    appliance: &Appliance,
    machine: &Machine,
    state: &State,
    slot: Slot,
    record: Option<SlotRecord>,
) -> Result<SlotStatus> {
    let phase = state.phase(slot);
    let filled = !matches!(phase, Phase::Empty | Phase::Writing);
    let running = slot == machine.booted;
    let adopted = machine.state.is_some();
    let whole = record.as_ref().is_some_and(|r| {
        r.faults(&boot_files::dir(appliance.sys, slot), false)
            .is_empty()
    });
    let kernel = match &record {
        Some(record) => Some(record.kernel.clone()),
        None if running => boot_files::running_kernel(appliance.sys)
            .ok()
            .map(|kernel| kernel.release),
        None => None,
    };
    let version = match record {
        Some(record) => Some(record.version),
        None if running => Some(ReleaseRecord::of_running(appliance)?.version),
        None => None,
    };
    Ok(SlotStatus {
        name: slot,
        device: appliance.config.device(slot).display().to_string(),
        state: phase,
        version: version.filter(|_| filled),
        kernel: kernel.filter(|_| filled),
        // Without a boot state it is the installer's menu that boots it.
        bootable: filled && phase != Phase::Failed && (whole || (running && !adopted)),
    })
}
