//! What runs in the migration environment: the initramfs that the old GRUB starts
//! once, with the new system's kernel and tools.
//!
//! | code | step | touches the disk |
//! |---|---|---|
//! | M01 | find the order; note that it was started; take the start out of GRUB | that only |
//! | M02 | find the disk it means | no |
//! | M03 | room in memory, as much as is needed and no more | no |
//! | M04 | copy the bundle and the settings there | read-only |
//! | M05 | compare their digests, in memory | no |
//! | M06 | whose bundle it is | no |
//! | M07 | run each tool once | no |
//! | M08 | let go of the disk, and prove that nobody holds it | no |
//! | M11 to M14 | what [`rebuild`] proves, plans and tries | no |
//! | M20 to M32 | the disk is made anew | yes |
//!
//! A rehearsal ends with M14. Whatever fails before M20, or is undone, the machine
//! restarts into the old system, which finds the reason beside its bundle
//! ([`outcome`](super::outcome)); what hangs before M20 is ended by a thread that
//! restarts the machine. Behind that nothing restarts it but success.

mod meter;
mod old_disk;
mod ready;
mod step;

use std::mem;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Error, Result};

use self::old_disk::{Access, with_file_system};
use self::ready::Journey;
use super::order::Mode;
use super::outcome::{Failure, Outcome};
use super::rebuild::{self, Reporter};
use crate::appliance::Appliance;
use crate::failure::{Class, class_of};
use crate::system::Sysrq;

/// How long everything up to the point of no return may take; then something hangs.
const PATIENCE: Duration = Duration::from_secs(45 * 60);

/// How long the last line stays on the console.
const READING_TIME: Duration = Duration::from_secs(10);

/// Does what the order on the old disk says, then restarts the machine.
///
/// # Errors
/// Class `Stuck` when the disk holds no system: the machine must not be restarted. Else
/// when it cannot be.
pub fn run(appliance: &Appliance) -> Result<()> {
    let sysrq = Sysrq::open(appliance.sys);
    let travel = Travel {
        appliance,
        sysrq: &sysrq,
        journey: Journey::new(appliance),
        reporter: Reporter::new(appliance.sys, appliance.progress),
    };
    match travel.go() {
        Ok(Mode::Migrate) => travel.say("the new system starts"),
        Ok(Mode::Rehearse) => travel.watched(|| travel.tell(None)),
        Err(error) if class_of(&error) == Class::Stuck => return Err(error),
        Err(error) => travel.watched(|| travel.tell(Some(error))),
    }
    appliance.progress.finish();
    // Everything is unmounted, or never was; what hangs in the kernel stays behind.
    let restarted = sysrq.sync().and_then(|()| sysrq.restart());
    restarted.context("restarting the machine")
}

/// One run.
struct Travel<'a> {
    appliance: &'a Appliance<'a>,
    sysrq: &'a Sysrq,
    journey: Journey<'a>,
    /// Of what is done with the disk.
    reporter: Reporter<'a>,
}

impl Travel<'_> {
    /// Does all that was asked for; returns what that was.
    fn go(&self) -> Result<Mode> {
        let (appliance, reporter) = (self.appliance, &self.reporter);
        let ready = self.watched(|| self.journey.go())?;
        let payload = &ready.payload;
        let prepared = self.watched(|| rebuild::prepare(appliance, payload, reporter))?;
        self.journey.look();
        let mode = self.journey.mode().context("the order was not read")?;
        if mode == Mode::Migrate {
            let made = rebuild::run(appliance, payload, &prepared, reporter);
            if made
                .as_ref()
                .is_err_and(|error| class_of(error) == Class::Stuck)
            {
                // The only copy of the new system stays where it is.
                mem::forget(ready);
            }
            made?;
        }
        Ok(mode)
    }

    /// Does `work`; what hangs in it ends in a restart.
    fn watched<T>(&self, work: impl FnOnce() -> T) -> T {
        thread::scope(|scope| {
            let (sender, word) = mpsc::channel();
            let (appliance, sysrq) = (self.appliance, self.sysrq);
            let last = || last_resort(appliance, sysrq, word);
            let started = thread::Builder::new().spawn_scoped(scope, last);
            if let Err(error) = started {
                let text = format!("nothing ends what hangs: starting a thread: {error}");
                appliance.progress.note(&text);
            }
            let outcome = work();
            // Nobody listens where the thread could not be started.
            let _ = sender.send(());
            outcome
        })
    }

    fn say(&self, text: &str) {
        match self.reporter.step() {
            Some(step) => self.reporter.say(step, text),
            None => self.journey.say(text),
        }
    }

    /// Tells the console and the old system what became of the order.
    fn tell(&self, error: Option<Error>) {
        let (code, step) = match self.reporter.step() {
            Some(step) => (step.code(), step.id()),
            None => (self.journey.step().code(), self.journey.step().name()),
        };
        let failure = error.map(|error| Failure {
            code: code.to_owned(),
            step: step.to_owned(),
            reason: format!("{error:#}"),
        });
        match &failure {
            Some(failure) => self.say(&format!("failed: {}", failure.reason)),
            None => self.say("all is ready; this was a rehearsal"),
        }
        self.say("the old system starts again; nothing of it was changed");
        if let Err(error) = self.report(failure) {
            self.say(&format!("the old system does not know: {error:#}"));
        }
        self.appliance.sys.wait(READING_TIME);
    }

    /// Writes what became of the order to the old disk.
    fn report(&self, failure: Option<Failure>) -> Result<()> {
        let journey = &self.journey;
        let order = journey.order().context("the order was not read")?;
        let outcome = Outcome {
            format: Outcome::FORMAT,
            mode: order.mode,
            failure,
            steps: [journey.times(), self.reporter.times()].concat(),
            memory: journey.memory(),
            lines: [journey.lines(), self.reporter.lines()].concat(),
        };
        let uuid = &order.bundle.file_system;
        with_file_system(self.appliance, uuid, Access::Write, |root| {
            let path = old_disk::inside(root, &order.log.path);
            // Of a second start the first one's reason is the one to know.
            match path.exists() {
                true => Ok(()),
                false => outcome.save(&path),
            }
        })
    }
}

/// Restarts the machine when no word comes in time: something hangs. Touches no
/// storage.
fn last_resort(appliance: &Appliance, sysrq: &Sysrq, word: Receiver<()>) {
    if appliance.sys.wait_for(&word, PATIENCE) {
        return;
    }
    if let Err(error) = sysrq.restart() {
        appliance
            .progress
            .note(&format!("restarting through sysrq: {error}"));
    }
}
