//! The disk made anew from what lies in RAM: a bundle and the settings of the old system.
//!
//! 1. before: bundle and settings are proved, the disk is divided on paper, the layout
//!    tried on a sparse file ([`twin`]), the edges of the disk copied to RAM ([`edges`]).
//!    A failure here has changed nothing;
//! 2. [`Step::Table`], the point of no return: the new table is written, and the kernel
//!    reads it. A failure that does not go away puts the edges back, and the disk is the
//!    old system's again, byte for byte;
//! 3. from [`Step::Wipe`] on there is no way back, and each step is taken again, up to
//!    [`ATTEMPTS`] times ([`system`] has those that make the new system). What cannot
//!    succeed stops there, with everything in RAM kept;
//! 4. everything is read back from the disk, and the last write is the sector that
//!    makes it start.
//!
//! How it ended is the class of the error: `Refused` and `BadBundle` changed nothing,
//! `Undone` restored the disk; after each of them the old system starts. After `Stuck`
//! nothing starts: whoever called keeps the machine running and gives a shell.

mod edges;
mod inherit;
mod no_return;
mod payload;
pub mod plan;
mod prepare;
mod reporter;
mod step;
mod system;
mod target;
pub mod twin;

use std::time::Duration;

use anyhow::{Error, Result, anyhow};

use self::edges::Edges;
use self::system::Build;
use self::target::Target;
use crate::appliance::Appliance;
use crate::failure::{Class, with_class};
use crate::install::settle::Carrying;

pub use self::payload::Payload;
pub use self::prepare::{Prepared, divide, measure, prepare};
pub use self::reporter::Reporter;
pub use self::step::Step;

/// How often a step is tried.
pub const ATTEMPTS: u32 = 3;

/// Between two attempts: a device that is still held, or storage that stalls.
const PAUSE: Duration = Duration::from_secs(5);

/// What is called of the system that it runs in, with what has each only tell its
/// version; and `mkfs.xfs` for volumes of XFS.
pub const TOOLS: [(&str, &str); 10] = [
    ("blkid", "-V"),
    ("blockdev", "--version"),
    ("chroot", "--version"),
    ("cp", "--version"),
    ("fsfreeze", "--version"),
    ("losetup", "--version"),
    ("lvm", "version"),
    ("mkfs.ext4", "-V"),
    ("sync", "--version"),
    ("udevadm", "--version"),
];

/// Makes the disk anew that [`prepare()`] found everything ready for. On success the
/// machine is to be restarted.
///
/// # Errors
/// Class `Undone` or `Stuck`, see the module; the latter says what a person must do.
pub fn run(
    appliance: &Appliance,
    payload: &Payload,
    prepared: &Prepared,
    reporter: &Reporter,
) -> Result<()> {
    let job = Job {
        run: reporter::now(appliance.sys),
        reporter,
        target: &prepared.target,
        build: Build::new(appliance, payload, prepared),
        edges: &prepared.edges,
    };
    no_return::declare(appliance)?;
    job.undoable()?;
    job.through()?;
    no_return::withdraw(appliance);
    Ok(())
}

/// The steps that change the disk.
struct Job<'a> {
    /// Tells this run from others in the log area.
    run: u64,
    reporter: &'a Reporter<'a>,
    target: &'a Target<'a>,
    build: Build<'a>,
    edges: &'a Edges,
}

impl Job<'_> {
    /// Takes the steps that can be undone, and undoes them when one fails for good.
    fn undoable(&self) -> Result<()> {
        let Err((step, error)) = self.take(&Step::UNDOABLE) else {
            return Ok(());
        };
        self.reporter.close_log();
        match self.edges.restore() {
            Ok(()) => {
                no_return::withdraw(&self.target.appliance);
                // The machine restarts anyway; until then, what the kernel knows of
                // the disk is as old as it may be.
                let _ = self.target.reread();
                let text = format!("failed; the disk is as it was before: {error:#}");
                self.reporter.say(step, &text);
                Err(with_class(Class::Undone, error.context(step.to_string())))
            }
            Err(undo_error) => {
                let error = error.context(format!(
                    "putting the old partition table back failed too: {undo_error:#}"
                ));
                Err(self.stop(step, &error))
            }
        }
    }

    /// Takes the rest.
    fn through(&self) -> Result<()> {
        match self.take(&Step::FINAL) {
            Ok(()) => Ok(()),
            Err((step, error)) => Err(self.stop(step, &error)),
        }
    }

    /// Takes `steps`, each up to [`ATTEMPTS`] times.
    fn take(&self, steps: &[Step]) -> Result<(), (Step, Error)> {
        let mut failures = vec![0; steps.len()];
        let mut at = 0;
        while let Some(step) = steps.get(at).copied() {
            self.reporter.begin(step);
            let outcome = self.step(step, failures[at]);
            self.reporter.end();
            let Err(error) = outcome else {
                self.reporter.say(step, "done");
                at += 1;
                continue;
            };
            failures[at] += 1;
            let text = format!("attempt {} of {ATTEMPTS} failed: {error:#}", failures[at]);
            self.reporter.say(step, &text);
            if failures[at] == ATTEMPTS {
                return Err((step, error));
            }
            self.target.appliance.sys.wait(PAUSE);
            let again = step.again_from();
            at = steps.iter().position(|step| *step == again).unwrap_or(at);
        }
        Ok(())
    }

    /// Takes one step, which has failed `failures` times before.
    fn step(&self, step: Step, failures: u32) -> Result<()> {
        let target = self.target;
        let build = &self.build;
        match step {
            Step::Table => {
                self.reporter
                    .say(step, "the point of no return: the disk gets a new table");
                self.edges.clear()?;
                target.write_table()?;
                self.reporter.open_log(&target.disk_file(), self.run);
                Ok(())
            }
            Step::Nodes => target.await_partitions(),
            Step::Wipe => target.wipe_partitions(),
            Step::Group => target.make_group(),
            Step::Format => build.format(),
            Step::Unpack => build.unpack(),
            Step::ReadBack => build.read_back(),
            // A system without what is the customer's can be mended; none cannot.
            Step::Settle if failures + 1 == ATTEMPTS => {
                self.reporter.say(
                    step,
                    "going on without what is the customer's; it is kept apart",
                );
                build.settle(self.run, Carrying::Nothing)
            }
            Step::Settle => build.settle(self.run, Carrying::ByRules),
            Step::BootFiles => build.write_boot_files(),
            Step::Grub => build.install_grub(),
            Step::Commit => build.commit(),
            Step::Verify => build.verify(),
            Step::Start => build.start(),
            Step::Prove | Step::Plan | Step::Twin | Step::Hold => Ok(()),
        }
    }

    /// Says what a person reads on the console, and returns it as the error.
    fn stop(&self, step: Step, error: &Error) -> Error {
        let text = format!(
            "STOPPED. This disk starts no system. Do not restart this machine: the new system is \
             in its memory only. Ask support for help and give the code {}",
            step.code()
        );
        self.reporter.say(step, &text);
        with_class(Class::Stuck, anyhow!("{step}: {error:#}. {text}"))
    }
}
