//! Filling a destination from a bundle: format, unpack, read back.

use std::fs;
use std::os::unix::fs::OpenOptionsExt;

use anyhow::{Result, ensure};
use nix::fcntl::OFlag;

use super::destination::{Access, Destination};
use crate::appliance::Appliance;
use crate::bundle::{self, Bundle, TreeSummary, UnpackOptions};
use crate::disk::mkfs;
use crate::progress::Step;
use crate::refuse;
use crate::system::Cmd;
use crate::tree::digest::digest_tree;

/// Makes sure that the destination can be written; returns the command that
/// formats it for `inodes` files. Changes nothing.
///
/// # Errors
/// Class `Refused` when something uses the device.
pub fn prepare(appliance: &Appliance, to: &Destination, inodes: u64) -> Result<Cmd> {
    require_unused(appliance, to)?;
    mkfs::command(appliance.sys, to.fs_type, &to.device, to.size_bytes, inodes)
}

/// Makes sure that nothing uses the destination. Changes nothing.
///
/// # Errors
/// Class `Refused` when something does.
pub fn require_unused(appliance: &Appliance, to: &Destination) -> Result<()> {
    let exclusive = fs::OpenOptions::new()
        .read(true)
        .custom_flags(OFlag::O_EXCL.bits())
        .open(appliance.at(&to.device));
    if let Err(error) = exclusive {
        refuse!(
            "{} cannot be written: {error}; something uses it (see `lsof {0}` and `dmsetup ls --tree`)",
            to.device.display()
        );
    }
    Ok(())
}

/// Unpacks `bundle`.
///
/// # Errors
/// When something cannot be written.
pub fn unpack(
    appliance: &Appliance,
    to: &Destination,
    bundle: Bundle,
    threads: usize,
) -> Result<()> {
    let mounted = to.mount(appliance.sys, Access::ReadWrite)?;
    let options = UnpackOptions::new(threads);
    bundle::unpack(bundle, mounted.path(), &options, appliance.progress)?;
    mounted.unmount()
}

/// Compares what the device holds with what the manifest says of the tree.
///
/// # Errors
/// When it cannot be read, or is not what was written.
pub fn read_back(
    appliance: &Appliance,
    to: &Destination,
    tree: &TreeSummary,
    threads: usize,
) -> Result<()> {
    let Appliance { sys, progress, .. } = *appliance;
    let drop_caches = Cmd::new("blockdev").arg("--flushbufs");
    sys.run(&drop_caches.arg(&to.device))?;
    let mounted = to.mount(sys, Access::ReadOnly)?;
    progress.start(Step::ReadBack, Some(tree.data_bytes));
    let found = digest_tree(mounted.path(), threads, progress)?;
    ensure!(
        found == tree.digest,
        "{} does not hold what was written to it; check the machine's storage",
        to.device.display()
    );
    mounted.unmount()
}
