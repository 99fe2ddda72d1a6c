//! The flows of a two-slot appliance, from preflight to confirmed or rolled back.
//!
//! - [`preflight`]: every check, changes nothing
//! - [`apply`]: writes the inactive slot and arms a trial
//! - [`foresee`]: whether a bundle fits this machine, before anything is written
//! - [`stage`]: arms what was only written, or drops it before its first start
//! - [`drill`]: a trial made to fail, which proves the way back
//! - [`trial`]: what the boot service does in a started system, with [`health`],
//!   [`network_health`] and, once it is confirmed, [`settings`]
//! - [`changes`]: what is another than before the upgrade
//! - [`evidence`]: keeps that, and a failed trial's journal, on the data volume
//! - [`banner`]: what whoever logs in is told of a trial
//! - [`trial_over`]: leaves word that this boot is no trial any more
//! - [`first_start`]: the first start of a disk made anew, which has no other system
//! - [`last_word`]: carries over what was changed after `apply`, early in a trial
//! - [`owners`]: whose ids the files on the data volume have, and how they get others
//! - [`name_cards`]: gives network cards their names, early in a start
//! - [`deadline`]: restarts a trial that nothing ends in time
//! - [`window`]: how long that is, where more was granted
//! - [`kernel_drift`]: whether the slot starts a kernel that its system has
//! - [`kernel_update`]: has a kernel that a package brought tried, beside the old one
//! - [`rollback`]: makes the other slot the default
//! - [`boot_sector`]: whether our GRUB is still the one that is started
//! - [`repair`]: puts our GRUB and the boot state back
//! - [`status`]: tells what boots and why

pub mod apply;
pub mod banner;
pub mod boot_sector;
pub mod changes;
pub mod deadline;
pub mod drill;
pub mod evidence;
pub mod first_start;
pub mod foresee;
pub mod health;
pub mod kernel_drift;
pub mod kernel_update;
pub mod last_word;
pub mod name_cards;
pub mod network_health;
pub mod owners;
pub mod preflight;
pub mod repair;
pub mod rollback;
pub mod settings;
pub mod stage;
pub mod status;
pub mod trial;
pub mod trial_over;
pub mod window;
