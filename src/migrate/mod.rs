//! The move of a system with one root to the layout of two slots.
//!
//! [`in_ram`] works on the old system: it prepares the move, has the old GRUB start
//! the migration environment once, and takes all of it back. [`environment`] is what
//! runs there: everything the move needs is copied into memory and proved before the
//! disk is given up. Both speak through the [`order`].

pub mod disk;
pub mod environment;
pub mod in_ram;
pub mod located;
pub mod order;
pub mod outcome;
