//! Volumes and file systems of the appliance's disk.

pub mod blkid;
pub mod features;
pub mod group;
pub mod log_area;
pub mod lvm;
pub mod mkfs;
pub mod space;
pub mod table;
