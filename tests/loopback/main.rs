//! Real images with real partition tables, file systems and LVM, opened as
//! `build` opens them. Runs as root; needs loop devices, no device-mapper.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod boot_area;
mod build;
mod cards;
mod device;
mod disk;
mod opener;
mod owners;
mod rebuild;
mod source_damage;
mod source_formats;
mod source_guest;
mod source_hostile;
mod source_layouts;
mod source_left_out;
mod source_leftovers;
mod source_ova;
mod source_roots;
mod whole_root;
