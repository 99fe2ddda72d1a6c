//! Opens what `build SOURCE` is given and shows it as one read-only tree.
//!
//! 1. [`format`] tells what the source is, and refuses what would have other
//!    programs open files of its choice.
//! 2. [`qemu`] turns a disk image into plain bytes, in a file without a name.
//! 3. [`volume`] finds partitions ([`table`]) and linear logical volumes
//!    ([`lvm`]) and what they hold ([`content`]).
//! 4. [`image`] finds the root and mounts it and what its [`fstab`] adds;
//!    [`guest`] does so where the kernel or this code cannot.
//!
//! Never writes to the source, to a named file or to a named directory: mounts
//! live in the caller's private mount namespace, so nothing stays behind when
//! the process is killed.

mod content;
mod directory;
mod format;
mod fstab;
mod guest;
mod image;
mod lvm;
mod ova;
mod place;
mod qemu;
mod raw;
mod table;
mod vmdk;
mod volume;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::progress::Progress;
use crate::system::{Mounted, System};

use format::Kind;
use qemu::Image;
use raw::RawImage;

/// How to read a source.
#[derive(Clone, Debug)]
pub struct SourceOptions {
    /// Which file system is the root, as `VG/LV` or partition number; needed
    /// when several look like one.
    pub root: Option<String>,
    /// Names of logical volumes that belong to the customer, never packed.
    pub data_volumes: Vec<String>,
    /// Paths that must stay visible while the source is open.
    pub keep_visible: Vec<PathBuf>,
}

impl Default for SourceOptions {
    fn default() -> SourceOptions {
        SourceOptions {
            root: None,
            data_volumes: vec!["data".into(), "image".into()],
            keep_visible: Vec::new(),
        }
    }
}

/// A source that is open; dropping it closes it.
pub struct Opened<'a> {
    root: PathBuf,
    /// In the order they were made.
    mounts: Vec<Mounted<'a>>,
    /// Behind the mounts, so dropped after them.
    _disks: Vec<RawImage>,
}

impl Opened<'_> {
    /// Returns the directory that holds the tree.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Unmounts everything.
    ///
    /// # Errors
    /// When something in the tree is still in use.
    pub fn close(mut self) -> Result<()> {
        while let Some(mounted) = self.mounts.pop() {
            mounted.unmount()?;
        }
        Ok(())
    }
}

impl Drop for Opened<'_> {
    fn drop(&mut self) {
        drop_in_reverse(&mut self.mounts);
    }
}

/// Unmounts what is mounted on something before that.
fn drop_in_reverse(mounts: &mut Vec<Mounted<'_>>) {
    while mounts.pop().is_some() {}
}

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
