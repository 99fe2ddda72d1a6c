//! Ctrl-C and termination as a flag that long work looks at.
//!
//! A signal ends the running tool (children get the default mask back) and our
//! own loops at their next [`check`], so that every guard is dropped. Who waits
//! for a pipe waits with [`wait_for`]. A second signal ends the process where it
//! stands, as a power cut would.

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// How long who waits goes without looking at the flag, in milliseconds.
const PAUSE_MS: u8 = 200;

/// When a further signal is a second one: a terminal that closes, or a service
/// that is stopped, may send two at once.
const SECOND_AFTER: Duration = Duration::from_secs(1);

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
        let mut first: Option<Instant> = None;
        while set.wait().is_ok() {
            INTERRUPTED.store(true, Ordering::Relaxed);
            let first = *first.get_or_insert_with(Instant::now);
            if first.elapsed() >= SECOND_AFTER {
                end_at_once();
            }
        }
    });
    Ok(())
}

#[expect(
    clippy::disallowed_methods,
    reason = "guards that could run have had their time"
)]
fn end_at_once() {
    let words = "error: ended by a second signal; nothing was undone or cleared away\n";
    let mut stderr = io::stderr();
    // Whoever should read this may be what everything waits for.
    let mut fds = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
    if poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0) {
        let _ = stderr.write_all(words.as_bytes());
    }
    process::exit(1);
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

/// Waits until something can be read from `fd`, its end included.
///
/// # Errors
/// When interrupted meanwhile.
pub fn wait_for(fd: BorrowedFd) -> Result<()> {
    loop {
        check()?;
        let mut fds = [PollFd::new(fd, PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::from(PAUSE_MS)) {
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return Ok(()),
            Err(errno) => return Err(errno).context("waiting for input"),
        }
    }
}
