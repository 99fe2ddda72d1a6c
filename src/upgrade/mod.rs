//! The flows of a two-slot appliance, from preflight to confirmed or rolled back.
//!
//! - [`preflight`]: every check, changes nothing
//! - [`apply`]: writes the inactive slot and arms a trial
//! - [`trial`]: what the boot service does in a started system
//! - [`rollback`]: makes the other slot the default
//! - [`status`]: tells what boots and why

pub mod apply;
mod grub;
pub mod health;
pub mod history;
pub mod machine;
pub mod network;
pub mod preflight;
pub mod record;
pub mod rollback;
mod slot_boot;
pub mod slot_tree;
pub mod status;
pub mod trial;
