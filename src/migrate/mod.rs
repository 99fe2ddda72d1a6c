//! A system with one root becomes an appliance with two slots.
//!
//! - [`settings`]: what of the old system comes over, in one archive
//! - [`rebuild`]: the disk is made anew from what lies in RAM

pub mod rebuild;
pub mod settings;
