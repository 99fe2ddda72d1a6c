//! What every installation of a system does, whichever flow asks for it.
//!
//! A [`Destination`] is a volume that becomes a root; it need not be a slot of a
//! running appliance. In order:
//!
//! 1. [`fill`]: format it, unpack into it, read it back
//! 2. [`settle`]: [`fstab`], settings, release record, program and units, names of
//!    network [`cards`], and [`debconf`]'s disks for GRUB; then [`label`]
//! 3. [`boot_files`]: what GRUB loads for it

pub mod boot_files;
pub mod cards;
pub mod debconf;
pub mod destination;
pub mod fill;
pub mod fstab;
pub mod label;
pub mod program;
pub mod settle;

pub use destination::Destination;
