//! The boot state: which slot is committed, on trial, or failed, and its
//! record on disk.
//!
//! The record is two copies of a GRUB environment block on `/boot`, `env1` and
//! `env2`. GRUB counts a trial down in them; user space writes everything else.
//! A third file, `default.cfg`, names the committed slot for the menu to boot
//! when neither copy is readable.
//!
//! - [`rules`]: the transitions; they change memory only
//! - [`drill`]: those of a trial that is made to fail
//! - [`phase`]: what a slot is, why a trial ended
//! - `block`: the state as an environment block ([`grubenv`])
//! - `copies`: the files; whoever writes them shows the [`Lock`](crate::system::Lock)

mod block;
mod copies;
mod drill;
pub mod grubenv;
mod phase;
mod rules;

pub use copies::Saved;
pub use phase::{Drill, Phase, Reason};
pub use rules::{State, Trial};

#[cfg(test)]
mod tests;
