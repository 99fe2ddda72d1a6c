//! Volumes and file systems of the appliance's disk.

pub mod blkid;
pub mod enlarge;
pub mod features;
pub mod gpt;
pub mod group;
pub mod log_area;
pub mod lvm;
pub mod mkfs;
pub mod space;
pub mod surface;
pub mod swap;
pub mod table;
pub mod volumes;
