//! The volume a system is written to.

use std::path::PathBuf;

use anyhow::Result;

use crate::disk::mkfs::FsType;
use crate::slot::Slot;
use crate::system::{Mount, Mounted, System};

/// A volume that becomes a root file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// The slot it is, or will be.
    pub slot: Slot,
    /// Its device, as a path of the machine.
    pub device: PathBuf,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// The file system it gets.
    pub fs_type: FsType,
    /// Where it is mounted while it is written, as a path of the machine.
    pub mount_point: PathBuf,
}

/// How a file system is mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// To be looked at.
    ReadOnly,
    /// To be written.
    ReadWrite,
}

impl Destination {
    /// Mounts its file system.
    ///
    /// # Errors
    /// When it cannot be mounted.
    pub fn mount<'a>(&self, sys: &'a dyn System, access: Access) -> Result<Mounted<'a>> {
        let options = match access {
            Access::ReadOnly => "ro",
            Access::ReadWrite => "rw",
        };
        let point = sys.at(&self.mount_point);
        let mount = Mount::device(&self.device, &point, self.fs_type.name(), options);
        Mounted::new(sys, &mount)
    }
}
