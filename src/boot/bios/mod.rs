//! GRUB on a BIOS machine: the boot sector, the cores beside each other, the switch.
//!
//! - [`sector`]: the formats of boot sector and core
//! - [`area`]: the disk: cores are written beside each other, one sector decides
//! - [`installed`]: which GRUB is in use, which of ours is left over
//! - [`backup`]: the directories of the GRUB in use
//! - [`saved`]: what lay in the boot area
//! - [`before`]: both, kept on `/boot` until the new system is confirmed
//! - [`kept`]: a boot area kept in a file, and whether it may be put back
//! - [`reinstall`]: has a GRUB of ours that is there already started again
//! - [`switch`]: installs a slot's GRUB and switches to it, or goes back

pub mod area;
pub mod backup;
pub mod before;
pub mod installed;
pub mod kept;
pub mod reinstall;
pub mod saved;
pub mod sector;
pub mod switch;
