//! Ctrl-C and termination as a flag that long work looks at.
//!
//! A signal ends the running tool (children get the default mask back) and our
//! own loops at their next [`check`], so that every guard is dropped.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{SigSet, Signal};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Blocks SIGINT, SIGTERM and SIGHUP for this process and notes their arrival.
///
/// Call it once, before any other thread starts.
///
/// # Errors
/// When the signal mask cannot be set.
pub fn watch() -> Result<()> {
    let mut set = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        set.add(signal);
    }
    set.thread_block().context("blocking signals")?;
    thread::spawn(move || {
        while set.wait().is_ok() {
            INTERRUPTED.store(true, Ordering::Relaxed);
        }
    });
    Ok(())
}

/// Fails once a signal has arrived; long loops call it between pieces of work.
///
/// # Errors
/// When interrupted.
pub fn check() -> Result<()> {
    if INTERRUPTED.load(Ordering::Relaxed) {
        bail!("interrupted by a signal");
    }
    Ok(())
}
