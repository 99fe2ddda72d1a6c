//! What every installation of a system does, whichever flow asks for it.
//!
//! A [`Destination`] is a volume that becomes a root; it need not be a slot of a
//! running appliance. In order:
//!
//! 1. [`fill`]: format it, unpack into it, read it back
//! 2. [`fit`]: does it start on this machine?
//! 3. [`settle`]: [`kernel_args`], [`fstab`], the [`customer`]'s own, settings, release record, program and
//!    units, names of network [`cards`], and [`debconf`]'s disks for GRUB; then
//!    [`label`]
//! 4. [`boot_files`]: what GRUB loads for it

pub mod boot_files;
pub mod cards;
pub mod customer;
pub mod debconf;
pub mod destination;
pub mod fill;
pub mod fit;
pub mod fstab;
pub mod kernel_args;
pub mod label;
pub mod login;
pub mod program;
pub mod settle;

pub use destination::Destination;
