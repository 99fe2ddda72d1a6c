//! Opens what `build SOURCE` is given and shows it as one read-only tree.
//!
//! 1. [`format`] tells what the source is, and refuses what would have other
//!    programs open files of its choice.
//! 2. [`archive`] unpacks a tar of a root, without root rights; nothing of what
//!    follows is needed then. [`directory`] takes one as it is.
//! 3. [`ova`] checks an archive of a machine and finds its disks; [`qemu`] turns
//!    a disk image into plain bytes, in a file without a name.
//! 4. [`volume`] finds partitions ([`table`]) and linear logical volumes
//!    ([`lvm`]) and what they hold ([`content`]).
//! 5. [`image`] finds the [`root`] among the [`disks`], makes sure that it has no
//!    [`rivals`], and mounts it and the [`lines`] of its fstab; what that leaves
//!    out is named ([`left_out`]). [`guest`] mounts where this code cannot.
//!
//! Never writes to the source. Images are mounted in the caller's private mount
//! namespace, and plain bytes are in files without names, so nothing stays behind
//! when the process is killed; an archive's directory is removed at the end.

mod archive;
mod content;
mod directory;
mod discoverable;
mod disks;
mod foreign;
mod format;
#[cfg(fuzzing)]
pub mod fuzzing;
mod guest;
mod image;
mod left_out;
mod lent;
mod lines;
mod lvm;
mod magic;
mod naming;
mod opened;
mod ova;
mod place;
mod qemu;
mod raw;
mod rivals;
mod root;
mod table;
mod vmdk;
mod volume;
mod words;

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::progress::Progress;
use crate::refuse;
use crate::system::System;

pub use opened::{Opened, Reader, SourceOptions};

use format::Kind;
use ova::Place;
use qemu::{Bytes, Image};
use raw::RawImage;
use vmdk::Vmdk;

/// Tells whether opening `source` takes mounts, and so root rights.
///
/// # Errors
/// Class `Refused` when it is not a source.
pub fn needs_mounts(source: &Path) -> Result<bool> {
    if source == Path::new(archive::STANDARD_INPUT) {
        return Ok(false);
    }
    Ok(match format::detect(source)? {
        Kind::Directory => directory::has_mounts(&canonical(source)?)?,
        Kind::Archive => false,
        Kind::Raw | Kind::Vmdk | Kind::Qcow2 | Kind::Ova => true,
    })
}

fn canonical(source: &Path) -> Result<PathBuf> {
    fs::canonicalize(source).with_context(|| format!("looking up {}", source.display()))
}

/// Opens `source` for reading; `-` is standard input. Where it
/// [needs mounts](needs_mounts), the caller has entered a private mount namespace.
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
    if source == Path::new(archive::STANDARD_INPUT) {
        return archive::open(source, progress);
    }
    let kind = format::detect(source)?;
    let path = canonical(source)?;
    let disks = match kind {
        Kind::Directory => return directory::open(sys, &path, options, progress),
        Kind::Archive => return archive::open(source, progress),
        Kind::Raw => vec![RawImage::open(&path)?],
        Kind::Vmdk | Kind::Qcow2 => vec![qemu::convert(sys, &whole(&path, kind)?, progress)?],
        Kind::Ova => ova::open(&path, progress)?
            .into_iter()
            .map(|disk| plain_disk(sys, &path, disk, progress))
            .collect::<Result<_>>()?,
    };
    image::open(sys, &path, disks, options, progress)
}

/// Opens the image at `path` with what files it needs.
fn whole(path: &Path, kind: Kind) -> Result<Image> {
    let shown = path.display().to_string();
    let (driver, bytes) = if kind == Kind::Vmdk {
        let bytes = match vmdk::open(path)? {
            Vmdk::Single(file) => Bytes::File(file, None),
            Vmdk::Split(split) => Bytes::Split(split),
        };
        (qemu::VMDK, bytes)
    } else {
        let file = File::open(path).with_context(|| format!("opening {shown}"))?;
        let driver = format::driver(path, &file, 0, file.metadata()?.len())?;
        (driver, Bytes::File(file, None))
    };
    let name = path.file_name().unwrap_or_default();
    Ok(Image {
        driver,
        name: name.to_string_lossy().into_owned(),
        shown,
        bytes,
    })
}

/// Turns a disk of the OVA at `path` into plain bytes.
fn plain_disk(
    sys: &dyn System,
    path: &Path,
    disk: ova::Disk,
    progress: &dyn Progress,
) -> Result<RawImage> {
    let shown = format!("{} in {}", disk.name, path.display());
    let (file, part) = match &disk.place {
        Place::Nowhere => return RawImage::temporary(1 << 20, 0),
        Place::InArchive(offset, size) => (File::open(path)?, Some((*offset, *size))),
        Place::Unpacked(image) => {
            lent::let_read(image.file())?;
            (image.file().try_clone()?, None)
        }
    };
    let (offset, size) = part.unwrap_or((0, file.metadata()?.len()));
    let driver = format::driver(Path::new(&shown), &file, offset, size)?;
    if driver == qemu::RAW && disk.name.to_ascii_lowercase().contains(".vmdk") {
        refuse!("{shown} is not a VMDK: it has not a VMDK's header; export the VM again");
    }
    let image = Image {
        driver,
        name: disk.name.clone(),
        shown,
        bytes: Bytes::File(file, part),
    };
    match disk.place {
        Place::Unpacked(plain) if driver == qemu::RAW => Ok(plain),
        _ => qemu::convert(sys, &image, progress),
    }
}
