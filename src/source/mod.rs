//! Opens what `build SOURCE` is given and shows it as one read-only tree.
//!
//! 1. [`format`] tells what the source is, and refuses what would have other
//!    programs open files of its choice.
//! 2. [`qemu`] turns a disk image into plain bytes, in a file without a name.
//! 3. [`volume`] finds partitions ([`table`]) and linear logical volumes
//!    ([`lvm`]) and what they hold ([`content`]).
//! 4. [`image`] finds the [`root`] among the [`disks`] and mounts it and what its
//!    fstab adds; [`guest`] does so where the kernel or this code cannot.
//!
//! Never writes to the source, to a named file or to a named directory: mounts
//! live in the caller's private mount namespace, so nothing stays behind when
//! the process is killed.

mod content;
mod directory;
mod disks;
mod format;
mod guest;
mod image;
mod lvm;
mod magic;
mod opened;
mod ova;
mod place;
mod qemu;
mod raw;
mod root;
mod table;
mod vmdk;
mod volume;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::progress::Progress;
use crate::system::System;

pub use opened::{Opened, SourceOptions};

use format::Kind;
use qemu::Image;
use raw::RawImage;

/// Opens `source` for reading. The caller has entered a private mount namespace.
///
/// # Errors
/// Class `Refused` when it is not a source, cannot be read safely or holds no
/// root file system, with the way out.
pub fn open<'a>(
    sys: &'a dyn System,
    source: &Path,
    options: &SourceOptions,
    progress: &dyn Progress,
) -> Result<Opened<'a>> {
    let kind = format::detect(source)?;
    let path =
        fs::canonicalize(source).with_context(|| format!("looking up {}", source.display()))?;
    let whole = |driver| Image {
        driver,
        path: path.clone(),
        member: None,
    };
    let images = match kind {
        Kind::Directory => return directory::open(sys, &path, options, progress),
        Kind::Raw => {
            let disks = vec![RawImage::open(&path)?];
            return image::open(sys, &path, disks, options, progress);
        }
        Kind::Vmdk => vec![whole("vmdk")],
        Kind::Qcow2 => vec![whole("qcow2")],
        Kind::Ova(members) => members
            .into_iter()
            .map(|member| Image {
                member: Some(member),
                ..whole("vmdk")
            })
            .collect(),
    };
    let disks = images
        .iter()
        .map(|image| qemu::convert(sys, image, progress))
        .collect::<Result<Vec<_>>>()?;
    image::open(sys, &path, disks, options, progress)
}
