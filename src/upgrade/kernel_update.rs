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
//! Where the modules of the kernel that starts are gone, another whole kernel is
//! tried in the same way, be it older or of another flavour. What has started once
//! is still the best to fall back to.

use std::path::Path;

use anyhow::{Context, Error, Result};

use super::trial_over::mark_over;
use crate::appliance::Appliance;
use crate::appliance::history::{self, Event};
use crate::appliance::machine::Machine;
use crate::boot::bootable::{self, KernelFiles, Modules};
use crate::boot::files::{self as boot_files, BootSet};
use crate::boot::next::{self, Refused};
use crate::boot::record::{SlotRecord, Source};
use crate::boot::state::{Reason, State};
use crate::disk::space;
use crate::install::boot_files::write_baseline;
use crate::install::cards;
use crate::linux::initramfs;
use crate::paths::{BOOT, BOOT_DIR};
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
    /// Whether it is being removed, perhaps only to be installed again; its files may
    /// still be there.
    pub is_removal: bool,
}

/// What came of it.
#[derive(Debug, PartialEq, Eq)]
pub enum Adopted {
    /// The slot starts what it should, or va-upgrade starts nothing here.
    Nothing,
    /// This kernel is tried with the next start.
    OnTrial(String),
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
    let (found, source) = match choose(appliance, slot, &own, change)? {
        Choice::Taken(found, source) => (found, source),
        Choice::Nothing => {
            withdraw(appliance, &mut state, slot, lock)?;
            return Ok(Adopted::Nothing);
        }
        Choice::Refused(refused) => {
            withdraw(appliance, &mut state, slot, lock)?;
            refuse!("{}", refusal(&refused, slot));
        }
        Choice::Lost => {
            withdraw(appliance, &mut state, slot, lock)?;
            refuse!(
                "slot {slot} starts kernel {}, whose modules are gone, and no other kernel that \
                 was not tried in vain has modules, /boot/vmlinuz-<release> and an initramfs; \
                 install one before a restart",
                own.kernel
            );
        }
    };
    let waiting = next::load(appliance.sys, slot).ok().flatten();
    if state.kernel_trial().is_some() && waiting.is_some_and(|w| w.source == Some(source)) {
        return Ok(Adopted::OnTrial(found.release));
    }
    withdraw(appliance, &mut state, slot, lock)?;
    require_room(appliance, &found)?;
    let written = write(appliance, slot, &own, &found, lock);
    let armed = written.and_then(|()| start(appliance, &mut state, lock));
    if let Err(error) = armed {
        next::withdraw(appliance.sys, slot, lock)?;
        return Err(error);
    }
    let outcome = format!("kernel {} is tried with the next start", found.release);
    record(appliance, slot, &own.version, &outcome);
    Ok(Adopted::OnTrial(found.release))
}

/// Which kernel of the running system its slot is to start.
enum Choice {
    /// This one.
    Taken(KernelFiles, Source),
    /// The one that it starts.
    Nothing,
    /// The same, since this one, which is newer, did not come up.
    Refused(Refused),
    /// The modules of the one it starts are gone, and there is no other.
    Lost,
}

/// Chooses the newest kernel of the running system that is one for its slot and
/// was not tried in vain.
fn choose(appliance: &Appliance, slot: Slot, own: &SlotRecord, change: Change) -> Result<Choice> {
    let root = appliance.at("/");
    let is_gone = bootable::modules(&root, &own.kernel)? == Modules::Gone;
    let is_other = |found: &KernelFiles| !bootable::is_same_flavour(&found.release, &own.kernel);
    // One that is being removed may still be whole.
    let removed = change.release.filter(|_| change.is_removal);
    let mut kernels = bootable::whole_kernels(&root)?;
    kernels.extend(made_anew(&root, slot, own, change, &kernels)?);
    kernels.sort_by(|a, b| version::compare(&b.release, &a.release));
    kernels.retain(|found| removed != Some(found.release.as_str()));
    match is_gone {
        true => kernels.sort_by_key(is_other),
        false => kernels.retain(|found| !is_other(found) && is_wanted(found, own, change)),
    }
    let refused = next::refused(appliance.sys, slot).unwrap_or_default();
    let mut passed_over = None;
    for found in kernels {
        let source = Source::of(&root.join(&found.image), &root.join(&found.initramfs))?;
        if own.source == Some(source) {
            break;
        }
        match refused.iter().find(|it| it.source == source) {
            None => return Ok(Choice::Taken(found, source)),
            Some(refused) => passed_over = passed_over.or(Some(refused.clone())),
        }
    }
    Ok(match passed_over {
        _ if is_gone => Choice::Lost,
        Some(refused) => Choice::Refused(refused),
        None => Choice::Nothing,
    })
}

/// Returns the kernel that the slot starts with the initramfs that was just made
/// anew, where the kernel itself came with the release and is not in `/boot`.
fn made_anew(
    root: &Path,
    slot: Slot,
    own: &SlotRecord,
    change: Change,
    whole: &[KernelFiles],
) -> Result<Option<KernelFiles>> {
    let release = own.kernel.as_str();
    let is_there = whole.iter().any(|found| found.release == release);
    if is_there || change.is_removal || change.release != Some(release) {
        return Ok(None);
    }
    let names = initramfs::names(release).map(|name| Path::new("boot").join(name));
    let made = names.into_iter().find(|name| root.join(name).is_file());
    let image = own.files.first().map(|file| {
        let dir = Path::new(BOOT_DIR).join(slot.name()).join(&file.name);
        dir.strip_prefix("/").map(Path::to_owned).unwrap_or(dir)
    });
    let is_whole = bootable::modules(root, release)? == Modules::There;
    Ok(made
        .zip(image)
        .filter(|_| is_whole)
        .map(|(initramfs, image)| KernelFiles {
            release: release.to_owned(),
            image,
            initramfs,
        }))
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
fn is_wanted(found: &KernelFiles, own: &SlotRecord, change: Change) -> bool {
    let order = version::compare(&found.release, &own.kernel);
    let is_made_anew = change.release == Some(found.release.as_str());
    order.is_gt() || (order.is_eq() && is_made_anew)
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

/// Has the kernel that was written started on trial.
fn start(appliance: &Appliance, state: &mut State, lock: &Lock) -> Result<()> {
    state.start_kernel_trial(appliance.config.tries)?;
    appliance.save(state, lock)?;
    // Whatever this boot was started for, it is not this trial.
    mark_over(appliance);
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
/// When a file cannot be written. The trial is then over all the same: a restart
/// would mend nothing.
pub fn keep(appliance: &Appliance, machine: &Machine, state: &State, lock: &Lock) -> Result<()> {
    let slot = machine.booted;
    let made_own = next::promote(appliance.sys, slot, lock)
        .and_then(|()| appliance.flush_boot())
        .and_then(|()| appliance.save(state, lock));
    if let Err(error) = made_own {
        leave(appliance, machine, &error, lock);
        return Err(error.context(
            "the kernel on trial is healthy, but could not be kept, so that the one before starts \
             with the next restart; `va-upgrade boot --adopt-kernel` has it tried again",
        ));
    }
    tidy(appliance, slot, lock);
    if let Some(own) = boot_files::record(appliance.sys, slot)? {
        let outcome = format!("kernel {} came up and is the slot's own now", own.kernel);
        record(appliance, slot, &own.version, &outcome);
    }
    Ok(())
}

/// Ends the trial of a kernel that is healthy and could not be kept; the next boot
/// removes it.
fn leave(appliance: &Appliance, machine: &Machine, why: &Error, lock: &Lock) {
    mark_over(appliance);
    let mut state = machine.state();
    state.end_kernel_trial();
    if let Err(error) = appliance.save(&state, lock) {
        let note = format!("the next restart tries the kernel once more: {error:#}");
        appliance.progress.warn(&note);
    }
    let own = boot_files::record(appliance.sys, machine.booted);
    let version = own.ok().flatten().map(|own| own.version);
    let outcome = format!("the kernel on trial is healthy, but could not be kept: {why:#}");
    record(
        appliance,
        machine.booted,
        &version.unwrap_or_default(),
        &outcome,
    );
}

/// How the trial of a kernel ended before this boot.
pub enum Ended {
    /// It did not come up.
    Refused(Refused),
    /// This release was never started: the menu could not count it.
    NotStarted(String),
}

impl Ended {
    fn told(&self, slot: Slot) -> String {
        match self {
            Ended::Refused(refused) => refusal(refused, slot),
            Ended::NotStarted(kernel) => format!(
                "kernel {kernel} was not started, since GRUB could not store the count of its \
                 tries on /boot; slot {slot} goes on starting the one before, and `va-upgrade \
                 boot --adopt-kernel` has it tried again"
            ),
        }
    }
}

/// Does on an ordinary boot what a trial of a kernel left to do; changes `state`, in
/// memory only. Returns how one that was not kept ended.
///
/// # Errors
/// When a file cannot be read, written or removed.
pub fn settle(
    appliance: &Appliance,
    machine: &Machine,
    state: &mut State,
    lock: &Lock,
) -> Result<Option<Ended>> {
    let (sys, slot) = (appliance.sys, machine.booted);
    if state.committed() != slot {
        return Ok(None);
    }
    let waiting = match next::load(sys, slot) {
        Ok(waiting) => waiting,
        Err(error) => {
            state.end_kernel_trial();
            next::tidy(sys, slot, lock)?;
            return Err(error);
        }
    };
    let is_waiting = waiting.is_some();
    let ended = match (state.kernel_failed(), waiting) {
        (None, _) | (_, None) => None,
        (Some(Reason::Nowrite), Some(next)) => {
            next::withdraw(sys, slot, lock)?;
            Some(Ended::NotStarted(next.kernel))
        }
        (Some(reason), Some(_)) => {
            Some(Ended::Refused(refuse_next(appliance, slot, reason, lock)?))
        }
    };
    if let Some(ended) = &ended {
        let version = boot_files::record(sys, slot)?.map(|record| record.version);
        let outcome = ended.told(slot);
        record(appliance, slot, &version.unwrap_or_default(), &outcome);
        appliance.progress.warn(&outcome);
    }
    if state.kernel_failed().is_some() || !is_waiting {
        state.end_kernel_trial();
    }
    // An upgrade has taken its place meanwhile, or the machine stopped half-way.
    if is_waiting && ended.is_none() && state.kernel_trial().is_none() {
        next::withdraw(sys, slot, lock)?;
    }
    Ok(ended)
}

/// Ends the trial of a kernel, in `state` only: an upgrade goes first. Its files may
/// go once that is saved.
pub fn give_way(appliance: &Appliance, machine: &Machine, state: &mut State, lock: &Lock) {
    // The boot service may not have come to one that failed.
    if let Err(error) = settle(appliance, machine, state, lock) {
        appliance.progress.warn(&format!("{error:#}"));
    }
    if state.kernel_trial().is_some() {
        state.end_kernel_trial();
    }
}

/// Removes the kernel that did not come up, and remembers it.
fn refuse_next(appliance: &Appliance, slot: Slot, reason: Reason, lock: &Lock) -> Result<Refused> {
    let refused = next::refuse(appliance.sys, slot, reason, lock)?;
    if let Err(error) = next::remember(appliance.sys, slot, &refused, lock) {
        appliance.progress.warn(&format!(
            "kernel {} is tried again with the next package of a kernel, since it could not be \
             written down: {error:#}",
            refused.kernel
        ));
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
