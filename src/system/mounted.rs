//! Mounts as guards.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::calls::System;
use super::mount::Mount;
use crate::stderr;

/// A mount that ends with this value.
pub struct Mounted<'a> {
    system: &'a dyn System,
    point: PathBuf,
    made_dir: bool,
    mounted: bool,
}

impl<'a> Mounted<'a> {
    /// Mounts, making the mount point when it is not there.
    ///
    /// # Errors
    /// When the mount point cannot be made or the mount fails.
    pub fn new(system: &'a dyn System, mount: &Mount) -> Result<Mounted<'a>> {
        let made_dir = !mount.point.exists();
        if made_dir {
            fs::create_dir_all(&mount.point)
                .with_context(|| format!("making mount point {}", mount.point.display()))?;
        }
        let mut mounted = Mounted {
            system,
            point: mount.point.clone(),
            made_dir,
            mounted: false,
        };
        system.mount(mount)?;
        mounted.mounted = true;
        Ok(mounted)
    }

    /// Takes over a mount that a program has made at `point`.
    pub fn adopt(system: &'a dyn System, point: &Path) -> Mounted<'a> {
        Mounted {
            system,
            point: point.to_owned(),
            made_dir: false,
            mounted: true,
        }
    }

    /// Returns the mount point.
    pub fn path(&self) -> &Path {
        &self.point
    }

    /// Unmounts; a write-back error is the caller's error.
    ///
    /// # Errors
    /// When the file system is in use or its last writes failed.
    pub fn unmount(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        if std::mem::take(&mut self.mounted) {
            self.system.unmount(&self.point)?;
        }
        if std::mem::take(&mut self.made_dir) {
            fs::remove_dir(&self.point)
                .with_context(|| format!("removing mount point {}", self.point.display()))?;
        }
        Ok(())
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            stderr::say(&format!("warning: {error:#}"));
        }
    }
}
