//! The words of the boot state: what a slot is, why a trial ended, what a drill is.

use std::fmt;
use std::str::FromStr;

use anyhow::{Result, anyhow};
use serde::Serialize;

use crate::slot::Slot;

/// What a slot is, as `status` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Holds no system.
    Empty,
    /// Is being written, or was when the machine stopped.
    Writing,
    /// Holds a whole system that has never been on trial.
    Ready,
    /// Boots next, a counted number of times, until confirmed.
    Trial,
    /// The default.
    Committed,
    /// Was committed once and can be again.
    Good,
    /// Did not come up, or not healthy.
    Failed,
}

impl Phase {
    /// Returns the word in records and messages.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Empty => "empty",
            Phase::Writing => "writing",
            Phase::Ready => "ready",
            Phase::Trial => "trial",
            Phase::Committed => "committed",
            Phase::Good => "good",
            Phase::Failed => "failed",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Why a trial ended on the old slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Reason {
    /// It used up its tries without saying why.
    Exhausted,
    /// A health check failed.
    Health,
    /// Nothing confirmed it in time.
    Deadline,
    /// GRUB could not store the count, so the trial was never started.
    Nowrite,
    /// Both copies of the boot state were unreadable.
    Noenv,
    /// It was a drill: it came up and was given up on purpose.
    Drill,
}

impl Reason {
    /// Returns the word in records and messages.
    pub fn name(self) -> &'static str {
        match self {
            Reason::Exhausted => "exhausted",
            Reason::Health => "health",
            Reason::Deadline => "deadline",
            Reason::Nowrite => "nowrite",
            Reason::Noenv => "noenv",
            Reason::Drill => "drill",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Reason {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Reason> {
        let all = [
            Reason::Exhausted,
            Reason::Health,
            Reason::Deadline,
            Reason::Nowrite,
            Reason::Noenv,
            Reason::Drill,
        ];
        all.into_iter()
            .find(|r| r.name() == text)
            .ok_or_else(|| anyhow!("unknown reason {text:?}"))
    }
}

/// A drill that is armed, or the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Drill {
    /// The slot that is started and left again.
    pub slot: Slot,
    /// How it ended, [`Reason::Drill`] being well; `None` while it is armed.
    pub outcome: Option<Reason>,
}
