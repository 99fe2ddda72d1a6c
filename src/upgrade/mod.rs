//! The flows of a two-slot appliance, from preflight to confirmed or rolled back.
//!
//! - [`preflight`]: every check, changes nothing
//! - [`apply`]: writes the inactive slot and arms a trial
//! - [`trial`]: what the boot service does in a started system, with [`health`]
//! - [`rollback`]: makes the other slot the default
//! - [`boot_sector`]: whether our GRUB is still the one that is started
//! - [`status`]: tells what boots and why

pub mod apply;
pub mod boot_sector;
pub mod health;
pub mod preflight;
pub mod rollback;
pub mod status;
pub mod trial;
