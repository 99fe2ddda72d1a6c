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
mod last;
pub mod need;
pub mod once_more;
pub mod one_shot;
pub mod place;
pub mod prepare;
pub mod script;
mod unit;
pub mod words;

pub use cancel::cancel;
pub use last::{Last, last};
pub use once_more::collect_once_more;
pub use prepare::{Options, Prospect, check, prepare};
