//! The watcher of a trial's deadline, the last net below a trial.
//!
//! 1. before anything can hang: sysrq is opened, the process stays in memory, a
//!    thread of its own counts the time;
//! 2. wait for the deadline, or what was granted instead ([`window`]);
//! 3. unless the trial is over, note why it ends and restart ([`trial`]);
//! 4. whatever hangs in step 3, the thread restarts the machine.
//!
//! A kernel that hangs counts no time: where the machine has a watchdog, that
//! restarts it as soon as step 2 no longer goes on.
//!
//! In the initramfs, [`boot::deadline`](crate::boot::deadline) stands in.

use std::fs;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use super::trial::{self, give_up, restart};
use super::trial_over::is_marked_over;
use super::{evidence, window};
use crate::appliance::Appliance;
use crate::boot::entry::booted_by;
use crate::boot::state::Reason;
use crate::system::{Restart, Sysrq, Watchdog};

/// How long the note why a trial ends may wait for the lock.
const NOTE_PATIENCE: Duration = Duration::from_secs(20);

/// How long after the deadline the machine restarts at the latest: the note and
/// an ordered restart get what they may take, and some time for slow storage.
const LAST_RESORT: Duration =
    Duration::from_secs(NOTE_PATIENCE.as_secs() + trial::RESTART_PATIENCE.as_secs() + 40);

/// Waits until this boot's deadline, then restarts the machine if it is still
/// an unconfirmed trial. Needs neither `/boot` nor a sound boot state to restart,
/// nor storage that answers.
///
/// # Errors
/// When the kernel's clock or command line cannot be read.
pub fn watch(appliance: &Appliance) -> Result<()> {
    let cmdline = fs::read_to_string(appliance.at("/proc/cmdline"))
        .context("reading the kernel command line")?;
    if booted_by(&cmdline).why != "trial" {
        return Ok(());
    }
    let sysrq = Sysrq::open(appliance.sys);
    window::left(appliance)?;
    thread::scope(|scope| {
        let (sender, word) = mpsc::channel();
        let last = || last_resort(appliance, &sysrq, word);
        let started = thread::Builder::new().spawn_scoped(scope, last);
        if let Err(error) = started.map(drop).context("starting a thread") {
            note_risk(appliance, &error);
        }
        if let Err(error) = appliance.sys.lock_memory() {
            note_risk(appliance, &error);
        }
        let watchdog = Watchdog::start(appliance.sys);
        let end = loop {
            wait_out(appliance, watchdog.as_ref());
            match end_trial(appliance, &sysrq) {
                End::Deferred => {}
                end => break end,
            }
        };
        if let Some(watchdog) = watchdog.filter(|_| end == End::Over) {
            release(appliance, watchdog);
        }
        // Nobody listens where the thread could not be started.
        let _ = sender.send(());
    });
    Ok(())
}

/// How a trial whose time is up ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// The machine restarts.
    Restarting,
    /// It was over already.
    Over,
    /// It got more time just then.
    Deferred,
}

/// Waits until the trial has no time left, also where it gets more meanwhile.
fn wait_out(appliance: &Appliance, watchdog: Option<&Watchdog>) {
    while let Some(left) = time_left(appliance) {
        let fault = watchdog.and_then(|watchdog| watchdog.feed().err());
        if let Some(error) = fault {
            let note = format!("the machine's watchdog is not fed: {error}");
            appliance.progress.note(&note);
        }
        let pause = watchdog.map_or(left, |watchdog| left.min(watchdog.interval()));
        appliance.sys.wait(pause);
    }
}

/// Stops the watchdog of a system that stays.
fn release(appliance: &Appliance, watchdog: Watchdog) {
    if let Err(error) = watchdog.stop() {
        appliance.progress.warn(&format!(
            "the machine's watchdog could not be stopped and may restart it: {error}"
        ));
    }
}

/// Returns how long the trial still has; where that cannot be told, it is over.
fn time_left(appliance: &Appliance) -> Option<Duration> {
    let left = window::left(appliance).unwrap_or_default();
    (!left.is_zero() && !is_marked_over(appliance)).then_some(left)
}

/// Restarts the machine, in the usual way, unless the trial is over or has more
/// time.
fn end_trial(appliance: &Appliance, sysrq: &Sysrq) -> End {
    let text = format!(
        "nothing confirmed this system in {} seconds",
        appliance.config.deadline_seconds
    );
    let text = match window::is_granted(appliance) {
        true => "nothing confirmed this system in the time it was given".to_owned(),
        false => text,
    };
    let given_up = give_up(appliance, Reason::Deadline, &text, NOTE_PATIENCE);
    if let Some(given_up) = given_up {
        evidence::keep_journal(appliance, &text);
        restart(appliance, &given_up, Restart::Forced, sysrq);
        return End::Restarting;
    }
    match time_left(appliance) {
        Some(_) => End::Deferred,
        None => End::Over,
    }
}

/// Restarts the machine some time after the deadline unless the watcher is done by
/// then: `word` comes, or the trial is known to be over. Touches no storage, and
/// says something only when nothing is left to do.
fn last_resort(appliance: &Appliance, sysrq: &Sysrq, word: Receiver<()>) {
    loop {
        let limit = time_left(appliance).unwrap_or_default() + LAST_RESORT;
        if appliance.sys.wait_for(&word, limit) || is_marked_over(appliance) {
            return;
        }
        if time_left(appliance).is_none() {
            break;
        }
    }
    if let Err(error) = sysrq.restart() {
        appliance
            .progress
            .note(&format!("restarting through sysrq: {error}"));
    }
}

fn note_risk(appliance: &Appliance, error: &anyhow::Error) {
    appliance.progress.note(&format!(
        "hung storage may keep this trial running: {error:#}"
    ));
}
