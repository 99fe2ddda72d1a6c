//! What starts a slot: boot state, menu, entries, GRUB's core.
//!
//! Parts for the flows in `upgrade`; nothing here decides when to act.

pub mod core;
pub mod deadline;
pub mod entry;
pub mod menu;
pub mod newc;
pub mod target;
