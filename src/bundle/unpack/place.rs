//! Where a tree is unpacked to, and how.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result};
use nix::unistd::syncfs;

use super::dir_ends::DirEnds;
use super::extract::{Devices, Extractor, Limits, Lost, Rights};
use super::shut::Shut;
use crate::progress::Progress;

/// Directories all threads together keep open; the usual limit is 1024 files.
const OPEN_DIRS: usize = 512;
const MIN_OPEN_DIRS: usize = 8;

/// How to unpack.
#[derive(Clone, Copy, Debug)]
pub struct UnpackOptions {
    /// How many threads decode and write; each takes up to 24 MiB for a bundle
    /// of the default mode.
    pub threads: usize,
    /// What to do with device nodes.
    pub devices: Devices,
    /// What is given back of the tree.
    pub rights: Rights,
}

impl UnpackOptions {
    /// Unpacks everything on `threads` threads.
    pub fn new(threads: usize) -> UnpackOptions {
        UnpackOptions {
            threads,
            devices: Devices::Make,
            rights: Rights::All,
        }
    }
}

/// The directory a tree is unpacked to.
pub struct Place<'a> {
    /// The directory.
    pub target: &'a Path,
    /// How many threads work in it, at least one.
    pub threads: usize,
    /// Who is told.
    pub progress: &'a dyn Progress,
    devices: Devices,
    rights: Rights,
    /// What is said of the payload's size.
    payload_bytes: u64,
    lost: Lost,
}

impl<'a> Place<'a> {
    /// Unpacks to `target` a payload of this size.
    pub fn new(
        target: &'a Path,
        options: &UnpackOptions,
        payload_bytes: u64,
        progress: &'a dyn Progress,
    ) -> Place<'a> {
        Place {
            target,
            threads: options.threads.max(1),
            progress,
            devices: options.devices,
            rights: options.rights,
            payload_bytes,
            lost: Lost::default(),
        }
    }

    /// Makes an extractor for one thread.
    ///
    /// # Errors
    /// When the directory cannot be opened.
    pub fn extractor(&self) -> Result<Extractor<'_>> {
        let open_dirs = (OPEN_DIRS / self.threads).max(MIN_OPEN_DIRS);
        Extractor::new(
            self.target,
            open_dirs,
            Limits {
                devices: self.devices,
                rights: self.rights,
                payload_bytes: self.payload_bytes,
            },
            &self.lost,
        )
    }

    /// Finishes directories, makes everything durable, and only then gives the
    /// target itself, which was `shut`, what the archive says of it.
    ///
    /// # Errors
    /// When something cannot be written.
    pub fn settle(self, ends: &[DirEnds], shut: Shut) -> Result<()> {
        let mut extractor = self.extractor()?;
        for ends in ends {
            extractor.end_dirs(ends)?;
        }
        sync(shut.dir(), self.target)?;
        match ends.iter().find_map(DirEnds::root) {
            Some(root) => extractor.end_root(shut.dir(), root)?,
            None => shut.open_again()?,
        }
        shut.dir()
            .sync_all()
            .with_context(|| format!("syncing {}", self.target.display()))?;
        shut.keep();
        drop(extractor);
        let Lost { labels, rights } = self.lost;
        let (unlabelled, denied) = (labels.into_inner(), rights.into_inner());
        if denied > 0 {
            self.progress.note(&format!(
                "{denied} owners and attributes were left out, which only root may set; \
                 the files are yours"
            ));
        }
        if unlabelled > 0 {
            self.progress.note(&format!(
                "{unlabelled} SELinux labels are unknown to the running kernel's policy; \
                 they are missing until the tree is labelled with its own policy"
            ));
        }
        Ok(())
    }
}

/// Makes everything on the file system of `target` durable.
///
/// # Errors
/// When its last writes failed.
pub fn sync(dir: &File, target: &Path) -> Result<()> {
    syncfs(dir).with_context(|| format!("syncing {}", target.display()))
}
