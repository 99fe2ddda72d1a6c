//! Whole bundles: trees there and back, stock tools, damage, hostile archives.
//! Needs root, GNU tar, bsdtar, xz, openssl, setfacl, getfattr,
//! setcap, rsync, mkfs.ext4, mkfs.xfs and loop devices.

#![allow(clippy::unwrap_used, reason = "helpers of tests panic like tests")]

mod clamp;
mod compare;
mod costs;
mod damage;
mod deep;
mod file_systems;
mod foreign;
mod forge;
mod hostile;
mod kit;
mod listing;
mod lying;
mod only;
mod property;
mod random;
mod round_trip;
mod shut;
mod signatures;
mod stock;
mod unsteady;
