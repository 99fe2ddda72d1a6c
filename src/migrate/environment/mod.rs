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
//! | M06 | whose bundle it is, and every part of it | no |
//! | M07 | run each tool once | no |
//! | M08 | let go of the disk, and prove that nobody holds it | no |
//!
//! A rehearsal ends there. Whatever fails before, the machine restarts into the old
//! system, which finds the reason beside its bundle ([`outcome`](super::outcome)); what
//! hangs is ended by a thread that restarts the machine.

mod meter;
mod old_disk;
mod ready;
mod step;

use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Error, Result, bail};

use self::old_disk::{Access, with_file_system};
use self::ready::Journey;
use super::order::Mode;
use super::outcome::{Failure, Outcome};
use crate::appliance::Appliance;
use crate::system::Sysrq;

pub use self::ready::Ready;

/// How long all of it may take; then something hangs.
const PATIENCE: Duration = Duration::from_secs(45 * 60);

/// How long the last line stays on the console.
const READING_TIME: Duration = Duration::from_secs(10);

/// Does what the order on the old disk says, then restarts the machine.
///
/// # Errors
/// When the machine cannot be restarted.
pub fn run(appliance: &Appliance) -> Result<()> {
    let sysrq = Sysrq::open(appliance.sys);
    let journey = Journey::new(appliance);
    let ready = watched(appliance, &sysrq, || journey.go());
    // Nothing restarts the machine from here on, unless it says so.
    let end = ready.and_then(|ready| finish(&journey, &ready));
    watched(appliance, &sysrq, || tell(appliance, &journey, end.err()));
    appliance.progress.finish();
    // Everything is unmounted, or never was; what hangs in the kernel stays behind.
    let restarted = sysrq.sync().and_then(|()| sysrq.restart());
    restarted.context("restarting the machine")
}

/// Does `work`; what hangs in it ends in a restart.
fn watched<T>(appliance: &Appliance, sysrq: &Sysrq, work: impl FnOnce() -> T) -> T {
    thread::scope(|scope| {
        let (sender, word) = mpsc::channel();
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

/// Tells the console and the old system what became of the order.
fn tell(appliance: &Appliance, journey: &Journey, error: Option<Error>) {
    let failure = error.map(|error| Failure {
        code: journey.step().code().to_owned(),
        step: journey.step().name().to_owned(),
        reason: format!("{error:#}"),
    });
    match &failure {
        Some(failure) => journey.say(&format!("failed: {}", failure.reason)),
        None => journey.say("all is ready; this was a rehearsal"),
    }
    journey.say("the old system starts again; nothing of it was changed");
    if let Err(error) = report(appliance, journey, failure) {
        journey.say(&format!("the old system does not know: {error:#}"));
    }
    appliance.sys.wait(READING_TIME);
}

/// Does what is left to do once all is ready.
fn finish(journey: &Journey, ready: &Ready) -> Result<()> {
    match journey.mode() {
        Some(Mode::Rehearse) => Ok(()),
        _ => bail!(
            "this program only rehearses the move; {} is not changed",
            ready.disk.display()
        ),
    }
}

/// Writes what became of the order to the old disk.
fn report(appliance: &Appliance, journey: &Journey, failure: Option<Failure>) -> Result<()> {
    let order = journey.order().context("the order was not read")?;
    let outcome = Outcome {
        format: Outcome::FORMAT,
        mode: order.mode,
        failure,
        steps: journey.times(),
        memory: journey.memory(),
        lines: journey.lines(),
    };
    let uuid = &order.bundle.file_system;
    with_file_system(appliance, uuid, Access::Write, |root| {
        let path = old_disk::inside(root, &order.log.path);
        // Of a second start the first one's reason is the one to know.
        match path.exists() {
            true => Ok(()),
            false => outcome.save(&path),
        }
    })
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
