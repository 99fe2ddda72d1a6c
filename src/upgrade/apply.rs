//! Writing the inactive slot and arming its trial.
//!
//! 1. [`preflight`]: every check; the bundle is proved genuine as far as it can be;
//! 2. an appliance that never saw us is adopted: the running slot gets its own
//!    boot files and a boot state;
//! 3. the inactive slot is marked `writing`, its old boot files go;
//! 4. it is formatted, unpacked into, and read back against the manifest;
//! 5. it becomes this appliance's: fstab, settings, release record, program, units;
//! 6. its kernel and initramfs go to `/boot/va/<slot>/`;
//! 7. GRUB comes from the target through chroot ([`super::grub`]);
//! 8. it is marked `ready`, then put on trial: the last write.
//!
//! Until the boot sector is switched in step 7 the old GRUB boots the old slot;
//! after it the new GRUB does, until step 8. A failure in steps 2 to 8 is undone.

use std::fs;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result, anyhow, ensure};
use nix::fcntl::OFlag;

use super::grub::{self, Plan, Switch};
use super::history::{self, Event};
use super::machine::{BOOT, BOOT_DIR, Machine};
use super::network::{self, Network};
use super::preflight::{self, Facts, Report};
use super::record::ReleaseRecord;
use super::slot_boot::{self, BootSet};
use super::slot_tree::{self, Identity};
use super::trial::LOCK_FILE;
use crate::boot::entry;
use crate::boot::target::{self, Target};
use crate::bundle::{self, Bundle, Keyring, Manifest, Sealed, Trust, UnpackOptions};
use crate::config::Config;
use crate::disk::{lvm, mkfs, space};
use crate::failure::{Class, Classify, class_of, with_class};
use crate::progress::Progress;
use crate::slot::Slot;
use crate::state::State;
use crate::system::{Cmd, Lock, Mount, Mounted, System, files, signals};

/// Where the slot is mounted while it is written.
const MOUNT_POINT: &str = "/run/va-upgrade/slot";

/// Where trusted keys are.
pub const TRUSTED_DIR: &str = "/etc/va-upgrade/trusted.d";

/// The list of key ids that are no longer trusted.
pub const REVOKED_FILE: &str = "/etc/va-upgrade/revoked";

/// Where a bundle comes from.
pub enum Input {
    /// A file.
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
    /// Whether to stop after the checks.
    pub dry_run: bool,
    /// How many chunks are unpacked at a time.
    pub threads: usize,
}

/// What `apply` did, or would do.
pub struct Outcome {
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

/// Writes the inactive slot from a bundle and arms its trial.
///
/// # Errors
/// `Refused` and `BadBundle` before anything is changed; `Undone` when a later
/// step failed and everything is as before; `Stuck` when undoing failed.
pub fn apply(
    sys: &dyn System,
    config: &Config,
    options: Options,
    progress: &dyn Progress,
) -> Result<Outcome> {
    let _lock = Lock::take(&config.at(LOCK_FILE))?;
    let keyring = Keyring::load(&config.at(TRUSTED_DIR), &config.at(REVOKED_FILE))?;
    let streamed = matches!(options.input, Input::Stream(_));
    let sealed = match options.input {
        Input::File(path) => Sealed::open(&path)?,
        Input::Stream(stream) => Sealed::from_stream("the stream", stream)?,
    };
    let trust = if options.allow_unsigned {
        Trust::SignedOrUnsigned(&keyring)
    } else {
        Trust::Signed(&keyring)
    };
    let (mut bundle, _) = sealed.authenticate(trust)?;
    let manifest = bundle.manifest().clone();
    let machine = Machine::look(config)?;
    let (report, facts) = preflight::check(sys, config, &machine, Some(&manifest));
    report.require()?;
    let facts = facts.context("the checks passed without facts")?;
    if !streamed {
        bundle.verify(options.threads, progress)?;
    }
    let from = ReleaseRecord::of_running(config)?.version;
    let outcome = Outcome {
        slot: facts.target,
        version: manifest.version.clone(),
        from,
        tries: config.tries,
        report,
    };
    if options.dry_run {
        return Ok(outcome);
    }
    let format = prepare(sys, config, &facts, manifest.tree.inodes).class(Class::Refused)?;
    let job = Job {
        sys,
        config,
        machine: &machine,
        facts: &facts,
        manifest: &manifest,
        format,
        first_time: !config.at(BOOT_DIR).exists(),
        progress,
    };
    let written = job.run(bundle, options.threads);
    let (result, text) = match written {
        Ok(()) => (Ok(outcome), format!("on trial for {} tries", config.tries)),
        Err(error) => {
            let text = format!("{error:#}");
            (Err(error), text)
        }
    };
    let event = Event {
        operation: "apply",
        slot: facts.target,
        version: &manifest.version,
        outcome: &text,
    };
    history::record(config, &event, progress);
    result
}

/// Makes sure that the slot can be written; returns the command that formats it.
/// The last look before something is changed.
fn prepare(sys: &dyn System, config: &Config, facts: &Facts, inodes: u64) -> Result<Cmd> {
    let device = config.device(facts.target);
    lvm::activate(sys, &config.vg, config.volume(facts.target))?;
    let exclusive = fs::OpenOptions::new()
        .read(true)
        .custom_flags(OFlag::O_EXCL.bits())
        .open(config.at(&device));
    if let Err(error) = exclusive {
        crate::refuse!(
            "{} cannot be written: {error}; something uses it (see `lsof {0}` and `dmsetup ls --tree`)",
            device.display()
        );
    }
    signals::check()?;
    mkfs::command(sys, facts.fs_type, &device, facts.volume.size_bytes, inodes)
}

/// One run of the steps that change something.
struct Job<'a> {
    sys: &'a dyn System,
    config: &'a Config,
    machine: &'a Machine,
    facts: &'a Facts,
    manifest: &'a Manifest,
    /// The command that formats the slot.
    format: Cmd,
    /// Whether `/boot/va` was not there before.
    first_time: bool,
    progress: &'a dyn Progress,
}

impl<'a> Job<'a> {
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
            self.manifest.version, self.facts.target
        ));
        self.progress.start("undoing", None);
        // The boot state first, and both whatever becomes of the other.
        let undone = [
            self.undo_boot_files(),
            switch.as_ref().map_or(Ok(()), Switch::undo),
        ];
        match undone.into_iter().find_map(Result::err) {
            None => Err(with_class(Class::Undone, error)),
            Some(undo_error) => Err(stuck(&error, &undo_error)),
        }
    }

    fn write(&self, bundle: Bundle, threads: usize, switch: &mut Option<Switch<'a>>) -> Result<()> {
        let (config, slot) = (self.config, self.facts.target);
        let boot_dir = config.at(BOOT_DIR);
        let mut state = self.adopt()?;
        if state.trial().is_some() {
            state.cancel_trial()?;
        }
        state.start_writing(slot)?;
        state.save(&boot_dir)?;
        files::remove_tree(&slot_boot::dir(config, slot))?;
        grub::prune(config, &self.facts.disk)?;
        space::flush_journal(self.sys, &config.at(BOOT))?;

        self.progress
            .start(&format!("formatting slot {slot}"), None);
        self.sys.run(&self.format)?;
        self.unpack(bundle, threads)?;
        let mounted = self.mount("rw")?;
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

        state.finish_writing(slot)?;
        state.start_trial(slot, config.tries)?;
        self.progress.start("arming the trial", None);
        state.save(&boot_dir)?;
        space::flush_journal(self.sys, &config.at(BOOT))
    }

    /// Returns the boot state. Makes it, and boot files for the running slot,
    /// where they are not there or not whole.
    fn adopt(&self) -> Result<State> {
        let version = ReleaseRecord::of_running(self.config)?.version;
        slot_boot::adopt(self.config, self.machine, &version)?;
        if let Some(state) = &self.machine.state {
            return Ok(state.clone());
        }
        self.progress
            .start(&format!("adopting slot {}", self.machine.booted), None);
        let state = State::adopt(self.machine.booted);
        state.save(&self.config.at(BOOT_DIR))?;
        Ok(state)
    }

    fn mount(&self, access: &str) -> Result<Mounted<'a>> {
        let device = self.config.device(self.facts.target);
        let mount = Mount::device(
            &device,
            &self.config.at(MOUNT_POINT),
            self.facts.fs_type.name(),
            access,
        );
        Mounted::new(self.sys, &mount)
    }

    /// Unpacks, then reads everything back from the device.
    fn unpack(&self, bundle: Bundle, threads: usize) -> Result<()> {
        let device = self.config.device(self.facts.target);
        let mounted = self.mount("rw")?;
        bundle.unpack(mounted.path(), &UnpackOptions::new(threads), self.progress)?;
        mounted.unmount()?;

        self.sys
            .run(&Cmd::new("blockdev").arg("--flushbufs").arg(&device))?;
        let mounted = self.mount("ro")?;
        self.progress
            .start("reading back", Some(self.manifest.tree.data_bytes));
        let found = bundle::digest_tree(mounted.path(), threads, self.progress)?;
        ensure!(
            found == self.manifest.tree.digest,
            "{} does not hold what was written to it; check the machine's storage",
            device.display()
        );
        mounted.unmount()
    }

    /// Steps 5 to 7, in the mounted slot.
    fn install(&self, root: &Path, switch: &mut Option<Switch<'a>>) -> Result<()> {
        let (config, slot) = (self.config, self.facts.target);
        self.progress.start("preparing the new system", None);
        let target = target::inspect(root)?;
        let release = ReleaseRecord {
            product: Some(self.manifest.product.clone()),
            version: self.manifest.version.clone(),
        };
        let identity = Identity {
            slot,
            fs_type: self.facts.fs_type.name(),
            boot_uuid: &self.facts.boot_uuid,
            boot_fs_type: &self.machine.boot.fs_type,
            release: &release,
        };
        slot_tree::settle(self.sys, config, root, &identity, self.progress)?;
        slot_tree::label(self.sys, root)?;
        self.write_boot_files(root, &target)?;

        signals::check()?;
        self.progress.start("installing GRUB", None);
        let plan = Plan {
            slot_root: root,
            target: &target,
            disk: &self.facts.disk,
            boot_uuid: &self.facts.boot_uuid,
            baked: self.machine.booted,
            cmdline: &self.machine.cmdline,
        };
        let prepared = switch.insert(Switch::prepare(self.sys, config, &plan)?);
        prepared.run(&plan)?;
        prepared.finish(&plan)
    }

    fn write_boot_files(&self, root: &Path, target: &Target) -> Result<()> {
        let (config, slot) = (self.config, self.facts.target);
        self.progress.start("writing boot files", None);
        let mapper = format!(
            "/dev/mapper/{}",
            lvm::mapper_name(&config.vg, config.volume(slot))
        );
        let volume = |slot| format!("{}/{}", config.vg, config.volume(slot));
        let set = BootSet {
            version: &self.manifest.version,
            kernel_release: &target.kernel.release,
            kernel: &root.join(&target.kernel.image),
            initramfs: &root.join(&target.kernel.initramfs),
            args: &entry::arguments(
                &mapper,
                &volume(slot),
                &volume(self.machine.booted),
                &self.machine.cmdline,
            ),
            guarded: true,
        };
        slot_boot::write(config, slot, &set)?;
        let network = Network::look(self.sys, config)?;
        let text = serde_yaml::to_string(&network).context("rendering the network record")?;
        let path = slot_boot::dir(config, slot).join(network::FILE);
        files::write_atomic(&path, text.as_bytes(), 0o644)
    }

    /// Puts `/boot/va` back: away where there was none, else to the state of
    /// before, without the slot whose content is gone.
    fn undo_boot_files(&self) -> Result<()> {
        let boot_dir = self.config.at(BOOT_DIR);
        if self.first_time {
            files::remove_tree(&boot_dir)?;
        } else {
            let mut state = self.machine.state();
            if state.trial().is_some() {
                state.cancel_trial()?;
            }
            state.clear(self.facts.target)?;
            state.save(&boot_dir)?;
            files::remove_tree(&slot_boot::dir(self.config, self.facts.target))?;
        }
        space::flush_journal(self.sys, &self.config.at(BOOT))
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
