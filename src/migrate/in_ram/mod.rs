//! The old system's side of a move in memory.
//!
//! [`prepare()`] checks, then writes, in this order:
//!
//! 1. the settings that come over, beside the bundle;
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
pub mod one_shot;
pub mod place;
pub mod prepare;
pub mod script;
pub mod words;

pub use cancel::cancel;
pub use prepare::{Options, Prepared, prepare};

use anyhow::Result;

use super::outcome::Outcome;
use crate::appliance::Appliance;

/// Returns what became of the order that was last given, where the environment has
/// left it.
///
/// # Errors
/// When it cannot be read.
pub fn last(appliance: &Appliance) -> Result<Option<Outcome>> {
    for dir in place::ours(appliance) {
        let Some(here) = place::Here::load(&dir)? else {
            continue;
        };
        let log = appliance.at(&here.log);
        if log.exists() {
            return Outcome::load(&log).map(Some);
        }
    }
    Ok(None)
}
