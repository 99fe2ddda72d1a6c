//! The flows of a two-slot appliance, from preflight to confirmed or rolled back.
//!
//! - [`preflight`]: every check, changes nothing
//! - [`apply`]: writes the inactive slot and arms a trial
//! - [`stage`]: arms what was only written, or drops it before its first start
//! - [`trial`]: what the boot service does in a started system, with [`health`] and,
//!   once it is confirmed, [`settings`]
//! - [`deadline`]: restarts a trial that nothing ends in time
//! - [`window`]: how long that is, where more was granted
//! - [`kernel_drift`]: whether the slot starts a kernel that its system has
//! - [`rollback`]: makes the other slot the default
//! - [`boot_sector`]: whether our GRUB is still the one that is started
//! - [`repair`]: puts our GRUB and the boot state back
//! - [`status`]: tells what boots and why

pub mod apply;
pub mod boot_sector;
pub mod deadline;
pub mod health;
pub mod kernel_drift;
pub mod preflight;
pub mod repair;
pub mod rollback;
pub mod settings;
pub mod stage;
pub mod status;
pub mod trial;
pub mod window;
