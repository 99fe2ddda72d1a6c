//! What comes from outside within a call of the fake machine: a signal, and a
//! terminal that goes.

use std::env;
use std::fmt;
use std::str::FromStr;
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, dup2_stderr, dup2_stdout, pipe};
use va_upgrade::progress::{Note, Progress, Silent, Step};
use va_upgrade::{signals, stderr};

use crate::lone::FLOW;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Incident {
    Signal(Signal),
    /// The terminal is closed: SIGHUP, and nobody reads the outputs any more.
    Hangup,
    /// Nobody reads the outputs any more, as after `| head`.
    Unread,
}

impl Incident {
    /// Lets it come; a signal has arrived then. No test may run beside it.
    pub fn come(self) {
        if self != Incident::Hangup && self != Incident::Unread {
            return self.signal();
        }
        let (reader, writer) = pipe().unwrap();
        drop(reader);
        dup2_stdout(&writer).unwrap();
        dup2_stderr(&writer).unwrap();
        self.signal();
    }

    fn signal(self) {
        let signal = match self {
            Incident::Signal(signal) => signal,
            Incident::Hangup => Signal::SIGHUP,
            Incident::Unread => return,
        };
        kill(Pid::this(), signal).unwrap();
        while signals::check().is_ok() {
            thread::yield_now();
        }
    }
}

impl fmt::Display for Incident {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Incident::Signal(signal) => write!(f, "{signal}"),
            Incident::Hangup => f.write_str("hangup"),
            Incident::Unread => f.write_str("unread"),
        }
    }
}

impl FromStr for Incident {
    type Err = nix::errno::Errno;

    fn from_str(name: &str) -> Result<Incident, Self::Err> {
        match name {
            "hangup" => Ok(Incident::Hangup),
            "unread" => Ok(Incident::Unread),
            signal => signal.parse().map(Incident::Signal),
        }
    }
}

/// Says everything, in a process of its own; elsewhere nothing.
pub fn progress() -> &'static dyn Progress {
    match env::var_os(FLOW) {
        Some(_) => &Loud,
        None => &Silent,
    }
}

struct Loud;

impl Progress for Loud {
    fn start(&self, step: Step, _total_bytes: Option<u64>) {
        stderr::say(step.id());
    }

    fn advance(&self, _bytes: u64) {}

    fn finish(&self) {}

    fn tell(&self, note: Note) {
        stderr::say(&note.to_string());
    }
}
