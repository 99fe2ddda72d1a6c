//! Whole bundles: trees there and back, stock tools, damage, hostile archives.
//! Needs root, GNU tar, bsdtar, xz, openssl, setfacl, setcap and rsync.

#![allow(clippy::unwrap_used, reason = "helpers of tests panic like tests")]

#[path = "bundle/damage.rs"]
mod damage;
#[path = "bundle/deep.rs"]
mod deep;
#[path = "bundle/hostile.rs"]
mod hostile;
#[path = "bundle/kit.rs"]
mod kit;
#[path = "bundle/listing.rs"]
mod listing;
#[path = "bundle/only.rs"]
mod only;
#[path = "bundle/property.rs"]
mod property;
#[path = "bundle/round_trip.rs"]
mod round_trip;
#[path = "bundle/signatures.rs"]
mod signatures;
