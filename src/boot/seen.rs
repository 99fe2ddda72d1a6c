//! Which slot last saw which initramfs in `/boot`.
//!
//! A person who runs `dracut -f` or `update-initramfs -u` calls no script of ours on
//! every system, and both systems share `/boot`: what is another than it was belongs
//! to the slot that ran only when no other one ran in between. The boot service of
//! each start leaves its slot's name here.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::linux::initramfs;
use crate::paths::{BOOT, BOOT_DIR};
use crate::sha::Sha;
use crate::slot::Slot;
use crate::system::System;
use crate::system::files::{self, read_yaml};

/// The record's name in our directory on `/boot`.
const RECORD: &str = "initramfs.yaml";

/// The initramfs of a kernel, as a slot saw it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// The slot that ran.
    pub slot: Slot,
    /// The release of the kernel.
    pub kernel: String,
    /// Its initramfs; `None` where there was none.
    pub initramfs: Option<Content>,
}

/// What a file held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// What tells without reading it that it was not written since.
    stamp: Stamp,
    /// Its SHA-256.
    pub sha256: Sha,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    size: u64,
    inode: u64,
    changed: i64,
    changed_ns: i64,
}

impl Seen {
    /// Looks at the initramfs of the kernel `release` in `/boot`, for `slot`, which
    /// runs; reads it only where it is not what `last` saw.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub fn look(sys: &dyn System, slot: Slot, release: &str, last: Option<&Seen>) -> Result<Seen> {
        let boot = sys.at(BOOT);
        let mut names = initramfs::names(release)
            .into_iter()
            .map(|name| boot.join(name));
        let path = names.find(|path| path.is_file());
        let known = last
            .filter(|last| last.kernel == release)
            .and_then(|last| last.initramfs.as_ref());
        Ok(Seen {
            slot,
            kernel: release.to_owned(),
            initramfs: path.map(|path| Content::of(&path, known)).transpose()?,
        })
    }

    /// Loads what was seen last; `None` before the first look.
    ///
    /// # Errors
    /// When the record is there and cannot be read.
    pub fn load(sys: &dyn System) -> Result<Option<Seen>> {
        let path = sys.at(BOOT_DIR).join(RECORD);
        match path.symlink_metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            _ => read_yaml(&path).map(Some),
        }
    }

    /// Writes it down.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, sys: &dyn System) -> Result<()> {
        let text = serde_yaml::to_string(self).context("rendering what was seen of /boot")?;
        files::write_atomic(&sys.at(BOOT_DIR).join(RECORD), text.as_bytes(), 0o644)
    }
}

impl Content {
    fn of(path: &Path, known: Option<&Content>) -> Result<Content> {
        let meta = fs::metadata(path).with_context(|| format!("reading {}", path.display()))?;
        let stamp = Stamp {
            size: meta.len(),
            inode: meta.ino(),
            changed: meta.ctime(),
            changed_ns: meta.ctime_nsec(),
        };
        match known.filter(|known| known.stamp == stamp) {
            Some(known) => Ok(known.clone()),
            None => Ok(Content {
                stamp,
                sha256: Sha::of_file(path)?,
            }),
        }
    }
}
