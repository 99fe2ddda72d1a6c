//! Volumes and file systems of the appliance's disk.

pub mod lvm;
pub mod mkfs;
pub mod mounts;
pub mod space;
