//! A kernel that a package brought or took inside the running slot.
//!
//! 1. find the newest kernel of the system that lacks nothing, and compare it with
//!    the one that the slot starts;
//! 2. copy it beside that one ([`next`]);
//! 3. put it on trial in the boot state, which the menu counts like any trial. The
//!    old pair stays the one that the slot starts otherwise;
//! 4. the boot service of a healthy start makes it the slot's own ([`keep`]); where
//!    it did not come up, [`settle`] removes it on the old kernel and says so.
//!
//! Where the modules of the kernel that starts are gone, nothing is left to fall
//! back to, so another whole kernel becomes the slot's own at once.

use anyhow::{Context, Result};

use super::trial_over::mark_over;
use crate::appliance::Appliance;
use crate::appliance::history::{self, Event};
use crate::appliance::machine::Machine;
use crate::boot::bootable::{self, KernelFiles};
use crate::boot::files::{self as boot_files, BootSet};
use crate::boot::next::{self, Refused};
use crate::boot::record::{SlotRecord, Source};
use crate::boot::state::State;
use crate::disk::space;
use crate::install::boot_files::write_baseline;
use crate::install::cards;
use crate::paths::BOOT;
use crate::refuse;
use crate::slot::Slot;
use crate::system::Lock;
use crate::version;

/// Room on `/boot` that stays free, in bytes.
const MARGIN_BYTES: u64 = 4 << 20;

/// What a package said of the kernels it changed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Change<'a> {
    /// The release whose kernel or initramfs is new, or is being removed.
    pub release: Option<&'a str>,
    /// Whether it is being removed; some of its files may still be there.
    pub is_removal: bool,
}

/// What came of it.
#[derive(Debug, PartialEq, Eq)]
pub enum Adopted {
    /// The slot starts what it should, or va-upgrade starts nothing here.
    Nothing,
    /// This kernel is tried with the next start.
    OnTrial(String),
    /// The slot starts this kernel from now on.
    AtOnce(String),
}

/// Adopts the newest whole kernel of the running system; see the module.
///
/// # Errors
/// Class `Refused` when it cannot be adopted now, or `/boot` has no room; else when
/// a file cannot be read or written. What the slot starts is then as before.
pub fn adopt(
    appliance: &Appliance,
    machine: &Machine,
    change: Change,
    lock: &Lock,
) -> Result<Adopted> {
    let Some(mut state) = machine.state.clone() else {
        return Ok(Adopted::Nothing);
    };
    let slot = machine.booted;
    require_quiet(appliance, machine, &state)?;
    let Some(own) = boot_files::record(appliance.sys, slot)? else {
        return Ok(Adopted::Nothing);
    };
    let root = appliance.at("/");
    let removed = change.release.filter(|_| change.is_removal);
    let is_gone =
        removed == Some(own.kernel.as_str()) || !bootable::has_modules(&root, &own.kernel)?;
    let found = bootable::newest_kernel(&root, removed)?;
    let Some(found) = found.filter(|found| is_wanted(found, &own, change, is_gone)) else {
        if is_gone {
            refuse!(
                "slot {slot} starts kernel {}, whose modules go or are gone, and no other kernel \
                 has modules, /boot/vmlinuz-<release> and an initramfs; install one before a restart",
                own.kernel
            );
        }
        withdraw(appliance, &mut state, slot, lock)?;
        return Ok(Adopted::Nothing);
    };
    let source = Source::of(&root.join(&found.image), &root.join(&found.initramfs))?;
    if own.source == Some(source) && !is_gone {
        withdraw(appliance, &mut state, slot, lock)?;
        return Ok(Adopted::Nothing);
    }
    if !is_gone {
        let waiting = next::load(appliance.sys, slot)?;
        if state.kernel_trial().is_some() && waiting.is_some_and(|w| w.source == Some(source)) {
            return Ok(Adopted::OnTrial(found.release));
        }
        if let Some(refused) = next::refused(appliance.sys, slot)?
            && refused.source == source
        {
            refuse!("{}", refusal(&refused, slot));
        }
    }
    withdraw(appliance, &mut state, slot, lock)?;
    require_room(appliance, &found)?;
    let written = write(appliance, slot, &own, &found, lock);
    let armed = written.and_then(|()| start(appliance, &mut state, slot, is_gone, lock));
    if let Err(error) = armed {
        next::withdraw(appliance.sys, slot, lock)?;
        return Err(error);
    }
    let (adopted, outcome) = match is_gone {
        true => (
            Adopted::AtOnce(found.release.clone()),
            format!("kernel {} starts from now on", found.release),
        ),
        false => (
            Adopted::OnTrial(found.release.clone()),
            format!("kernel {} is tried with the next start", found.release),
        ),
    };
    record(appliance, slot, &own.version, &outcome);
    Ok(adopted)
}

/// Refuses while a trial, of the other slot or of what runs, is not over.
fn require_quiet(appliance: &Appliance, machine: &Machine, state: &State) -> Result<()> {
    let slot = machine.booted;
    let again = "then run `va-upgrade boot --adopt-kernel` to have the installed kernel tried";
    if let Some(trial) = state.trial() {
        refuse!(
            "slot {} is on trial; wait until that is over, {again}",
            trial.slot
        );
    }
    if state.committed() != slot {
        refuse!("slot {slot} runs, which is not the committed one; keep or leave it, {again}");
    }
    if is_running(appliance, machine) {
        refuse!("the kernel that runs is on trial itself; wait until it is confirmed, {again}");
    }
    Ok(())
}

/// Tells whether a kernel of the running system is one for the slot to start. Of the
/// release it starts already, only a package that has just made it says so: one
/// in `/boot` may be the other slot's.
fn is_wanted(found: &KernelFiles, own: &SlotRecord, change: Change, is_gone: bool) -> bool {
    let order = version::compare(&found.release, &own.kernel);
    let is_made_anew = change.release == Some(found.release.as_str());
    is_gone || order.is_gt() || (order.is_eq() && is_made_anew)
}

/// Says that a kernel is not tried again, and what helps.
pub fn refusal(refused: &Refused, slot: Slot) -> String {
    format!(
        "kernel {} was tried and did not come up ({}), so slot {slot} goes on starting the one \
         before; it is tried again once it or its initramfs is another",
        refused.kernel, refused.reason
    )
}

/// Ends the trial of a kernel that waits, and removes it.
fn withdraw(appliance: &Appliance, state: &mut State, slot: Slot, lock: &Lock) -> Result<()> {
    if state.kernel_trial().is_some() {
        state.end_kernel_trial();
        appliance.save(state, lock)?;
    }
    next::withdraw(appliance.sys, slot, lock)
}

fn require_room(appliance: &Appliance, found: &KernelFiles) -> Result<()> {
    let root = appliance.at("/");
    let mut need = MARGIN_BYTES;
    for file in [&found.image, &found.initramfs] {
        let path = root.join(file);
        let meta = path.metadata();
        need += meta
            .with_context(|| format!("reading {}", path.display()))?
            .len();
    }
    let free = space::free(appliance.sys, &appliance.at(BOOT))?.bytes;
    if free < need {
        refuse!(
            "/boot has {} MiB free, kernel {} needs {} MiB there beside the one that starts; \
             remove old kernels, then run `va-upgrade boot --adopt-kernel`",
            free >> 20,
            found.release,
            need.div_ceil(1 << 20)
        );
    }
    Ok(())
}

/// Copies the kernel beside the one of `own`, with what the health of its trial is
/// compared with.
fn write(
    appliance: &Appliance,
    slot: Slot,
    own: &SlotRecord,
    found: &KernelFiles,
    lock: &Lock,
) -> Result<()> {
    if own.args.is_empty() || !next::is_possible(appliance.sys, slot) {
        refuse!(
            "the boot entry of slot {slot} is one of an older va-upgrade or was changed by hand, \
             so it starts no other kernel; the next upgrade writes another"
        );
    }
    let root = appliance.at("/");
    let links = cards::links(&root)?;
    let set = BootSet {
        version: &own.version,
        kernel_release: &found.release,
        kernel: &root.join(&found.image),
        initramfs: &root.join(&found.initramfs),
        args: &own.args,
        deadline_seconds: Some(appliance.config.deadline_seconds),
        links: &links,
    };
    let written = next::write(appliance.sys, slot, &set, lock)?;
    write_baseline(appliance, &next::dir(appliance.sys, slot, &written)?)?;
    appliance.flush_boot()
}

/// Has the kernel that was written started: on trial, or from now on.
fn start(
    appliance: &Appliance,
    state: &mut State,
    slot: Slot,
    at_once: bool,
    lock: &Lock,
) -> Result<()> {
    if !at_once {
        state.start_kernel_trial(appliance.config.tries)?;
        appliance.save(state, lock)?;
        // Whatever this boot was started for, it is not this trial.
        mark_over(appliance);
        return Ok(());
    }
    next::promote(appliance.sys, slot, lock)?;
    appliance.flush_boot()?;
    tidy(appliance, slot, lock);
    Ok(())
}

/// Removes what nothing starts any more; what stays takes room only.
fn tidy(appliance: &Appliance, slot: Slot, lock: &Lock) {
    if let Err(error) = next::tidy(appliance.sys, slot, lock) {
        appliance
            .progress
            .warn(&format!("an old kernel stays on /boot: {error:#}"));
    }
}

/// Tells whether the running system was started with the kernel that is on trial
/// in its slot.
pub fn is_running(appliance: &Appliance, machine: &Machine) -> bool {
    let state = machine.state.as_ref();
    let trial = state.and_then(State::kernel_trial);
    trial.is_some_and(|trial| trial.slot == machine.booted)
        && running_next(appliance, machine).is_some()
}

/// Returns the record of the kernel beside the slot's own, if it is what runs.
pub fn running_next(appliance: &Appliance, machine: &Machine) -> Option<SlotRecord> {
    let next = next::load(appliance.sys, machine.booted).ok().flatten()?;
    let id = next.source?.id();
    (machine.booted_by.kernel == Some(id)).then_some(next)
}

/// Makes the kernel on trial, which runs and is healthy, the slot's own. `state`
/// says so once it is saved.
///
/// # Errors
/// When a file cannot be written; the trial then goes on.
pub fn keep(appliance: &Appliance, machine: &Machine, state: &State, lock: &Lock) -> Result<()> {
    let slot = machine.booted;
    next::promote(appliance.sys, slot, lock)?;
    appliance.flush_boot()?;
    appliance.save(state, lock)?;
    tidy(appliance, slot, lock);
    if let Some(own) = boot_files::record(appliance.sys, slot)? {
        let outcome = format!("kernel {} came up and is the slot's own now", own.kernel);
        record(appliance, slot, &own.version, &outcome);
    }
    Ok(())
}

/// Does on an ordinary boot what a trial of a kernel left to do; changes `state`, in
/// memory only. Returns the kernel that did not come up.
///
/// # Errors
/// When a file cannot be read, written or removed.
pub fn settle(
    appliance: &Appliance,
    machine: &Machine,
    state: &mut State,
    lock: &Lock,
) -> Result<Option<Refused>> {
    let slot = machine.booted;
    if state.committed() != slot {
        return Ok(None);
    }
    let waiting = match next::load(appliance.sys, slot) {
        Ok(waiting) => waiting,
        Err(error) => {
            state.end_kernel_trial();
            next::tidy(appliance.sys, slot, lock)?;
            return Err(error);
        }
    };
    let failed = state.kernel_failed().filter(|_| waiting.is_some());
    let refused = match failed {
        Some(reason) => Some(next::refuse(appliance.sys, slot, reason, lock)?),
        None => None,
    };
    if let Some(refused) = &refused {
        let version = boot_files::record(appliance.sys, slot)?.map(|record| record.version);
        let outcome = refusal(refused, slot);
        record(appliance, slot, &version.unwrap_or_default(), &outcome);
        appliance.progress.warn(&outcome);
    }
    if state.kernel_failed().is_some() || waiting.is_none() {
        state.end_kernel_trial();
    }
    // An upgrade has taken its place meanwhile, or the machine stopped half-way.
    if waiting.is_some() && refused.is_none() && state.kernel_trial().is_none() {
        next::withdraw(appliance.sys, slot, lock)?;
    }
    Ok(refused)
}

fn record(appliance: &Appliance, slot: Slot, version: &str, outcome: &str) {
    let event = Event {
        operation: "kernel",
        slot,
        version,
        step: None,
        outcome,
    };
    history::record(appliance, &event);
}
