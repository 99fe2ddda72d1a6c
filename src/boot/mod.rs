//! What starts a slot: boot state, menu, entries, boot files, the boot loader.
//!
//! Parts for the flows; nothing here decides when to act. [`bios`] is the only
//! boot loader so far; another one is a room beside it.

pub mod appended;
pub mod bios;
pub mod bootable;
pub mod configured;
pub mod crashkernel;
pub mod deadline;
pub mod drivers;
pub mod entry;
pub mod files;
pub mod image_arguments;
pub mod journal;
pub mod late_labels;
pub mod menu;
pub mod newc;
pub mod next;
pub mod once;
pub mod record;
pub mod seen;
pub mod state;
