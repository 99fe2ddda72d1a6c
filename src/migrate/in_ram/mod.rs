//! The old system's side of a move in memory.
//!
//! [`prepare()`] checks, then writes, in this order:
//!
//! 1. the settings that come over, beside the bundle; [`once_more`] has them collected
//!    again when the system goes down;
//! 2. kernel and initramfs of the migration environment, from the bundle, and the
//!    [`order`](super::order), to a directory of ours in GRUB's ([`place`]);
//! 3. the environment block that says `armed`, then the lines that have the old GRUB
//!    start the environment once ([`script`], [`one_shot`]).
//!
//! Whatever it ends with before the last of these, the old system starts as ever. A
//! failure undoes all of it, as [`cancel()`] does. GRUB notes the start before it, and
//! so does the environment, which takes the lines out again first of all.

pub mod cancel;
pub mod need;
pub mod once_more;
pub mod one_shot;
pub mod place;
pub mod prepare;
pub mod script;
pub mod words;

pub use cancel::cancel;
pub use once_more::collect_once_more;
pub use prepare::{Options, Prospect, check, prepare};

use std::fmt;

use anyhow::Result;

use super::order::{Mode, Order};
use super::outcome::Outcome;
use crate::appliance::Appliance;

/// How far the order is that was last given.
#[derive(Debug, PartialEq)]
pub enum Last {
    /// The next start is the environment's.
    Prepared(Mode),
    /// GRUB has started the environment, which has left no word.
    Silent(Mode),
    /// It has said what became of it.
    Told(Outcome),
}

impl fmt::Display for Last {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Last::Prepared(mode) => write!(f, "the next start is for {mode}"),
            Last::Silent(mode) => write!(
                f,
                "the migration environment was started for {mode} and has left no word, so it \
                 came to nothing; nothing of this system was changed"
            ),
            Last::Told(outcome) => outcome.fmt(f),
        }
    }
}

/// Tells how far the last order is; `None` where there is none.
///
/// # Errors
/// When its records cannot be read.
pub fn last(appliance: &Appliance) -> Result<Option<Last>> {
    for dir in place::ours(appliance) {
        let Some(here) = place::Here::load(&dir)? else {
            continue;
        };
        let log = appliance.at(&here.log);
        if log.exists() {
            return Outcome::load(&log).map(Last::Told).map(Some);
        }
        let mode = Order::load(&dir.join(place::ORDER))?.mode;
        return Ok(Some(match one_shot::is_armed(&dir) {
            true => Last::Prepared(mode),
            false => Last::Silent(mode),
        }));
    }
    Ok(None)
}
