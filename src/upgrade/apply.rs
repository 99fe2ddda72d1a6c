//! Writing the inactive slot and arming its trial.
//!
//! 1. [`preflight`]: every check; the bundle is proved genuine as far as it can be, and
//!    its drivers and loader must fit ([`foresee`]), but of a stream only in step 5; the
//!    blocks of the inactive slot are read, for as long as that may take;
//! 2. an appliance that never saw us is adopted: the running slot gets its own
//!    boot files and a boot state;
//! 3. the inactive slot is marked `writing`; the last look whether it can be
//!    written; its old boot files go;
//! 4. it is formatted, unpacked into, and read back against the manifest
//!    ([`install::fill`](fill));
//! 5. it becomes this appliance's: fstab, settings, release record, program, units
//!    ([`install::settle`](settle));
//! 6. its kernel and initramfs go to `/boot/va/<slot>/`;
//! 7. GRUB comes from the target through chroot ([`boot::bios::switch`](Switch));
//! 8. it is marked `ready`, then put on trial: the last write. Where it is only
//!    staged, it stays `ready`, for [`stage`](super::stage) to arm.
//!
//! Until the boot sector is switched in step 7 the old GRUB boots the old slot;
//! after it the new GRUB does, until step 8. A failure in steps 2 to 8 is undone;
//! until its old boot files go the inactive slot is then what it was, after that
//! it is empty.

use std::cell::Cell;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Error, Result, anyhow};

use super::preflight::{self, Facts, Offer};
use super::{banner, foresee, kernel_update};
use crate::appliance::Appliance;
use crate::appliance::cards::Interfaces;
use crate::appliance::history::{self, Event};
use crate::appliance::machine::Machine;
use crate::appliance::pristine;
use crate::appliance::release::ReleaseRecord;
use crate::boot::bios::before::About;
use crate::boot::bios::installed::{self, Pruned};
use crate::boot::bios::switch::{Plan, Switch};
use crate::boot::next;
use crate::boot::state::State;
use crate::boot::{bootable, files as boot_files};
use crate::bundle::{Bundle, Keyring, Manifest, Sealed, Trust};
use crate::disk::lvm;
use crate::disk::surface::{self, Read as BlocksRead};
use crate::failure::{Class, Classify, class_of, with_class};
use crate::install::boot_files::BootPlan;
use crate::install::destination::{Access, Destination};
use crate::install::settle::{Carrying, Identity};
use crate::install::{self, fill, fit, label, program, settle};
use crate::paths::{BOOT_DIR, REVOKED_FILE, TARGET_MOUNT, TRUSTED_DIR};
use crate::progress::Step;
use crate::report::Report;
use crate::signals;
use crate::slot::Slot;
use crate::system::{Cmd, Lock, files};

/// How long the slot's blocks are read to find bad ones.
const READ_TEST_LIMIT: Duration = Duration::from_secs(60);

/// Where a bundle comes from.
pub enum Input {
    /// A file, a block device that begins with the bundle, or a named pipe.
    File(PathBuf),
    /// A stream that is read once.
    Stream(Box<dyn Read + Send>),
}

/// What `apply` is told.
pub struct Options {
    /// The bundle.
    pub input: Input,
    /// Whether a bundle without a signature is accepted.
    pub allow_unsigned: bool,
    /// Whether a version older than the running one is accepted.
    pub allow_downgrade: bool,
    /// Whether to stop after the checks.
    pub dry_run: bool,
    /// Whether the system is only written, and its trial not armed.
    pub stage: bool,
    /// How many chunks are unpacked at a time.
    pub threads: usize,
}

/// What `apply` did, or would do.
pub struct Applied {
    /// The slot that was written.
    pub slot: Slot,
    /// The version in it.
    pub version: String,
    /// The version that runs.
    pub from: String,
    /// The tries its trial has.
    pub tries: u8,
    /// The report of the checks.
    pub report: Report,
}

/// Writes the inactive slot from a bundle and, unless told otherwise, arms its trial.
///
/// # Errors
/// `Refused` and `BadBundle` before anything is changed; `Undone` when a later
/// step failed and everything is as before; `Stuck` when undoing failed.
pub fn apply(appliance: &Appliance, options: Options) -> Result<Applied> {
    let config = appliance.config;
    // Whoever sends a stream may take long to begin; nobody else waits for that.
    let again = match &options.input {
        Input::File(path) => Some(path.clone()),
        Input::Stream(_) => None,
    };
    let mut bundle = open(appliance, options.input, options.allow_unsigned)?;
    let lock = appliance.lock()?;
    let manifest = bundle.manifest().clone();
    let machine = Machine::look(appliance)?;
    let offer = Offer {
        manifest: &manifest,
        allow_downgrade: options.allow_downgrade,
    };
    let (report, facts) = preflight::check(appliance, &machine, Some(offer));
    report.require()?;
    let facts = facts.context("the checks passed without facts")?;
    if !bundle.is_stream() {
        bundle.verify(options.threads, appliance.progress)?;
    }
    let again = again.filter(|_| !bundle.is_stream());
    let again = again.map(|path| open(appliance, Input::File(path), options.allow_unsigned));
    foresee::look(appliance, again, &manifest, options.threads, &facts.disk)?;
    let from = ReleaseRecord::of_running(appliance)?.version;
    let outcome = Applied {
        slot: facts.target,
        version: manifest.version.clone(),
        from,
        tries: config.tries,
        report,
    };
    if options.dry_run {
        return Ok(outcome);
    }
    let to = destination(appliance, &facts);
    let format = prepare(appliance, &to, manifest.tree.inodes).class(Class::Refused)?;
    test_reading(appliance, &to).class(Class::Refused)?;
    let job = Job {
        appliance,
        machine: &machine,
        facts: &facts,
        manifest: &manifest,
        to,
        format,
        first_time: !appliance.at(BOOT_DIR).exists(),
        lock,
        is_overwritten: Cell::new(false),
        is_armed: !options.stage,
        step: Cell::new("prepare"),
    };
    let written = job.run(bundle, options.threads);
    job.record(written.as_ref().err());
    banner::renew(appliance);
    written.map(|()| outcome)
}

/// Opens the bundle and proves who signed it.
///
/// # Errors
/// Class `BadBundle` when nobody who is trusted did, or it is none.
pub fn open(appliance: &Appliance, input: Input, allow_unsigned: bool) -> Result<Bundle<'static>> {
    let keyring = Keyring::load(&appliance.at(TRUSTED_DIR), &appliance.at(REVOKED_FILE))?;
    let sealed = match input {
        Input::File(path) => Sealed::open(&path)?,
        Input::Stream(stream) => Sealed::from_stream("the stream", stream)?,
    };
    let trust = if allow_unsigned {
        Trust::SignedOrUnsigned(&keyring)
    } else {
        Trust::Signed(&keyring)
    };
    let (bundle, _) = sealed.authenticate(trust)?;
    Ok(bundle)
}

fn destination(appliance: &Appliance, facts: &Facts) -> Destination {
    Destination {
        slot: facts.target,
        device: appliance.config.device(facts.target),
        size_bytes: facts.volume.size_bytes,
        fs_type: facts.fs_type,
        mount_point: PathBuf::from(TARGET_MOUNT),
    }
}

/// Makes sure that the slot can be written; returns the command that formats it.
/// The last look before something is changed.
fn prepare(appliance: &Appliance, to: &Destination, inodes: u64) -> Result<Cmd> {
    let config = appliance.config;
    lvm::activate(appliance.sys, &config.vg, config.volume(to.slot))?;
    let format = fill::prepare(appliance, to, inodes)?;
    signals::check()?;
    Ok(format)
}

/// Looks for blocks of the slot that cannot be read, while nothing has been written.
fn test_reading(appliance: &Appliance, to: &Destination) -> Result<()> {
    let progress = appliance.progress;
    progress.start(Step::ReadTest(to.slot), Some(to.size_bytes));
    let advance = &mut |bytes| {
        progress.advance(bytes);
        signals::check()
    };
    let read = surface::read(
        appliance.sys,
        &to.device,
        to.size_bytes,
        READ_TEST_LIMIT,
        advance,
    )?;
    if let BlocksRead::Until(byte) = read {
        progress.note(&format!(
            "{} MiB of {} MiB of slot {} were read; there was no time for the rest",
            byte >> 20,
            to.size_bytes >> 20,
            to.slot
        ));
    }
    Ok(())
}

/// One run of the steps that change something.
struct Job<'a> {
    appliance: &'a Appliance<'a>,
    machine: &'a Machine,
    facts: &'a Facts,
    manifest: &'a Manifest,
    to: Destination,
    /// The command that formats the slot.
    format: Cmd,
    /// Whether `/boot/va` was not there before.
    first_time: bool,
    lock: Lock,
    /// Whether the old system in the slot is given up.
    is_overwritten: Cell<bool>,
    /// Whether the trial is armed at the end.
    is_armed: bool,
    /// The id of the step that runs, for the history.
    step: Cell<&'static str>,
}

impl<'a> Job<'a> {
    fn start(&self, step: Step) {
        self.step.set(step.id());
        self.appliance.progress.start(step, None);
    }

    fn run(&self, bundle: Bundle, threads: usize) -> Result<()> {
        let mut switch = None;
        let Err(error) = self.write(bundle, threads, &mut switch) else {
            return Ok(());
        };
        if class_of(&error) == Class::Stuck {
            return Err(error);
        }
        let error = error.context(format!(
            "installing {} to slot {}",
            self.manifest.version, self.to.slot
        ));
        self.appliance.progress.start(Step::Undo, None);
        match self.undo(switch.as_ref()) {
            Ok(()) => Err(with_class(Class::Undone, error)),
            Err(undo_error) => Err(stuck(&error, &undo_error)),
        }
    }

    /// Puts everything back. In this order, so that the machine boots at any moment:
    /// the boot state, by which either GRUB starts the old slot; the old GRUB; and
    /// what nothing starts any more.
    fn undo(&self, switch: Option<&Switch>) -> Result<()> {
        // Before the first switch, no GRUB on this machine reads the boot state.
        let disarmed = match (self.first_time, switch) {
            (true, None) => Ok(()),
            _ => self.disarm(),
        };
        switch.map_or(Ok(()), Switch::undo)?;
        disarmed?;
        self.remove_boot_files()
    }

    fn write(&self, bundle: Bundle, threads: usize, switch: &mut Option<Switch<'a>>) -> Result<()> {
        let appliance = self.appliance;
        let mut state = self.adopt()?;
        self.invalidate(&mut state)?;
        self.give_up_old_system()?;
        self.start(Step::Format(self.to.slot));
        appliance.sys.run(&self.format)?;
        let tree = bundle.manifest().tree.clone();
        let list = bundle.files()?;
        self.step.set(Step::Unpack.id());
        fill::unpack(appliance, &self.to, bundle, threads)?;
        self.step.set(Step::ReadBack.id());
        fill::read_back(appliance, &self.to, &tree, threads)?;
        let mounted = self.to.mount(appliance.sys, Access::ReadWrite)?;
        pristine::keep(appliance.sys, mounted.path(), list.as_deref())?;
        if let Err(error) = self.install(mounted.path(), switch) {
            // The switch keeps copies inside the slot, so it is undone before
            // the slot is unmounted.
            let undone = switch.take().map_or(Ok(()), |switch| switch.undo());
            return Err(match undone {
                Ok(()) => error,
                Err(undo_error) => stuck(&error, &undo_error),
            });
        }
        mounted.unmount()?;

        self.equip();
        self.start(Step::Arm);
        state.finish_writing(self.to.slot)?;
        if self.is_armed {
            state.start_trial(self.to.slot, appliance.config.tries)?;
        }
        appliance.save(&state, &self.lock).map(drop)
    }

    /// Returns the boot state. Makes it, and boot files for the running slot,
    /// where they are not there or not whole.
    fn adopt(&self) -> Result<State> {
        let appliance = self.appliance;
        let booted = self.machine.booted;
        let version = ReleaseRecord::of_running(appliance)?.version;
        let cmdline = &self.machine.cmdline;
        self.step.set(Step::Adopt(booted).id());
        boot_files::adopt(appliance.sys, booted, cmdline, &version, &self.lock)?;
        if let Some(state) = &self.machine.state {
            return Ok(state.clone());
        }
        self.start(Step::Adopt(booted));
        let state = State::adopt(booted);
        appliance.save(&state, &self.lock)?;
        Ok(state)
    }

    /// Gives the running system what a new one has: the boot service that mends the
    /// boot state and writes down what became of the trial. Without it the system
    /// starts all the same.
    fn equip(&self) {
        let root = self.appliance.at("/");
        let installed =
            program::install(self.appliance, &root).and_then(|()| program::install_units(&root));
        if let Err(error) = installed {
            self.appliance.progress.warn(&format!(
                "the running system gets no boot service, so the history will not tell why a \
                 trial failed: {error:#}"
            ));
        }
    }

    /// Declares the slot invalid before anything of it is changed.
    fn invalidate(&self, state: &mut State) -> Result<()> {
        let appliance = self.appliance;
        self.start(Step::Invalidate(self.to.slot));
        if state.trial().is_some() {
            state.cancel_trial()?;
        }
        kernel_update::give_way(appliance, self.machine, state, &self.lock);
        state.start_writing(self.to.slot)?;
        appliance.save(state, &self.lock)?;
        next::withdraw(appliance.sys, self.machine.booted, &self.lock)?;
        if installed::prune(appliance.sys, &self.facts.disk)? == Pruned::Unsure {
            appliance.progress.note(
                "no GRUB in /boot/va is known to be the one that the boot sector starts, \
                 so the old ones stay",
            );
        }
        appliance.flush_boot()
    }

    /// Removes the old boot files of the slot, once nothing is known to stand in
    /// the way of formatting it.
    fn give_up_old_system(&self) -> Result<()> {
        let appliance = self.appliance;
        fill::require_unused(appliance, &self.to)?;
        signals::check()?;
        self.is_overwritten.set(true);
        boot_files::remove(appliance.sys, self.to.slot, &self.lock)?;
        appliance.flush_boot()
    }

    /// Steps 5 to 7, in the mounted slot.
    fn install(&self, root: &Path, switch: &mut Option<Switch<'a>>) -> Result<()> {
        let appliance = self.appliance;
        self.start(Step::Settle);
        let found = bootable::inspect(root)?;
        let level = self.manifest.cpu_level;
        fit::check(appliance, root, &found, level, &self.facts.disk)?;
        let release = ReleaseRecord {
            product: Some(self.manifest.product.clone()),
            version: self.manifest.version.clone(),
        };
        let from = ReleaseRecord::of_running(appliance)?.version;
        let identity = Identity {
            slot: self.to.slot,
            fs_type: self.to.fs_type.name(),
            boot_uuid: &self.facts.boot_uuid,
            boot_fs_type: &self.machine.boot.fs_type,
            release: &release,
            from: &from,
            cards: &Interfaces::look(appliance)?,
            carrying: Carrying::ByRules,
        };
        settle::settle(appliance, &appliance.at("/"), root, &identity)?;
        label::label(appliance, root)?;

        self.start(Step::WriteBootFiles);
        let boot_plan = BootPlan {
            slot: self.to.slot,
            version: &self.manifest.version,
            bootable: &found,
            cmdline: &self.machine.cmdline,
        };
        install::boot_files::write(appliance, root, &boot_plan, &self.lock)?;

        signals::check()?;
        self.start(Step::InstallGrub);
        let plan = Plan {
            about: About {
                slot: self.to.slot,
                is_first: self.first_time,
            },
            slot_root: root,
            bootable: &found,
            disk: &self.facts.disk,
            boot_uuid: &self.facts.boot_uuid,
            baked: self.machine.booted,
            cmdline: &self.machine.cmdline,
        };
        let prepared = switch.insert(Switch::prepare(appliance.sys, &plan)?);
        prepared.run(&plan)?;
        prepared.finish(&plan)
    }

    /// Writes the boot state of before, without the slot if its content is gone.
    fn disarm(&self) -> Result<()> {
        let mut state = self.machine.state();
        if self.is_overwritten.get() {
            if state.trial().is_some() {
                state.cancel_trial()?;
            }
            state.clear(self.to.slot)?;
        }
        self.appliance.save(&state, &self.lock)?;
        self.appliance.flush_boot()
    }

    /// Removes what was made on `/boot`; the boot sector starts none of it.
    fn remove_boot_files(&self) -> Result<()> {
        if self.first_time {
            files::remove_tree(&self.appliance.at(BOOT_DIR))?;
        } else if self.is_overwritten.get() {
            boot_files::remove(self.appliance.sys, self.to.slot, &self.lock)?;
        }
        self.appliance.flush_boot()
    }

    /// Writes down how it ended.
    fn record(&self, error: Option<&Error>) {
        let outcome = match error {
            None if self.is_armed => {
                format!("on trial for {} tries", self.appliance.config.tries)
            }
            None => "staged, not on trial".to_owned(),
            Some(error) => format!("{error:#}"),
        };
        let event = Event {
            operation: "apply",
            slot: self.to.slot,
            version: &self.manifest.version,
            step: error.map(|_| self.step.get()),
            outcome: &outcome,
        };
        history::record(self.appliance, &event);
    }
}

fn stuck(error: &Error, undo_error: &Error) -> Error {
    with_class(
        Class::Stuck,
        anyhow!(
            "{error:#}; and undoing failed: {undo_error:#}. Do not restart this machine before \
             `va-upgrade status` shows the running slot as committed and bootable; ask support for help"
        ),
    )
}
