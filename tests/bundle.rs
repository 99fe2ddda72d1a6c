//! Whole bundles: trees there and back, stock tools, damage, hostile archives.
//! Needs root, GNU tar, bsdtar, xz, openssl, setfacl, setcap and rsync.

#![allow(clippy::unwrap_used, reason = "helpers of tests panic like tests")]

#[path = "bundle/compare.rs"]
mod compare;
#[path = "bundle/damage.rs"]
mod damage;
#[path = "bundle/deep.rs"]
mod deep;
#[path = "bundle/forge.rs"]
mod forge;
#[path = "bundle/hostile.rs"]
mod hostile;
#[path = "bundle/kit.rs"]
mod kit;
#[path = "bundle/listing.rs"]
mod listing;
#[path = "bundle/lying.rs"]
mod lying;
#[path = "bundle/only.rs"]
mod only;
#[path = "bundle/property.rs"]
mod property;
#[path = "bundle/random.rs"]
mod random;
#[path = "bundle/round_trip.rs"]
mod round_trip;
#[path = "bundle/signatures.rs"]
mod signatures;
#[path = "bundle/stock.rs"]
mod stock;
