//! What became of the order that was last given.

use std::fmt;

use anyhow::Result;

use super::{one_shot, place};
use crate::appliance::Appliance;
use crate::migrate::order::{Mode, Order};
use crate::migrate::outcome::Outcome;

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
