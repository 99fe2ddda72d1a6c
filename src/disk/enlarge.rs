//! Mounted file systems that take all of a device that has grown.

use std::path::Path;

use anyhow::Result;

use super::mkfs::FsType;
use crate::system::{Cmd, System};

/// Returns the program that does it.
pub fn program(fs_type: FsType) -> &'static str {
    match fs_type {
        FsType::Ext4 => "resize2fs",
        FsType::Xfs => "xfs_growfs",
    }
}

/// Has the file system on `device`, mounted at `mount_point`, take all of it; does
/// nothing where it has it already.
///
/// # Errors
/// When the tool of the file system fails.
pub fn file_system(
    sys: &dyn System,
    fs_type: FsType,
    device: &Path,
    mount_point: &Path,
) -> Result<()> {
    let cmd = Cmd::new(program(fs_type));
    // xfs_growfs before 4.18 knows mount points only.
    let cmd = match fs_type {
        FsType::Ext4 => cmd.arg(device),
        FsType::Xfs => cmd.arg(mount_point),
    };
    sys.run(&cmd).map(drop)
}
