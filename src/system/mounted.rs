//! Mounts as guards.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::System;

/// What to mount where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// A device, an image file (with `loop` in the options), or a directory to bind.
    pub source: PathBuf,
    /// The mount point.
    pub target: PathBuf,
    /// The file system type; `None` binds `source`.
    pub fs_type: Option<String>,
    /// Options for mount(8), separated by commas; empty when binding.
    pub options: String,
}

impl Mount {
    /// Describes a file system mount.
    pub fn device(source: &Path, target: &Path, fs_type: &str, options: &str) -> Mount {
        Mount {
            source: source.to_owned(),
            target: target.to_owned(),
            fs_type: Some(fs_type.to_owned()),
            options: options.to_owned(),
        }
    }

    /// Describes a bind mount of one directory, without what is mounted below it.
    pub fn bind(source: &Path, target: &Path) -> Mount {
        Mount {
            source: source.to_owned(),
            target: target.to_owned(),
            fs_type: None,
            options: String::new(),
        }
    }
}

/// A mount that ends with this value.
pub struct Mounted<'a> {
    system: &'a dyn System,
    target: PathBuf,
    made_dir: bool,
    mounted: bool,
}

impl<'a> Mounted<'a> {
    /// Mounts, making the mount point when it is not there.
    ///
    /// # Errors
    /// When the mount point cannot be made or the mount fails.
    pub fn new(system: &'a dyn System, mount: &Mount) -> Result<Mounted<'a>> {
        let made_dir = !mount.target.exists();
        if made_dir {
            fs::create_dir_all(&mount.target)
                .with_context(|| format!("making mount point {}", mount.target.display()))?;
        }
        let mut mounted = Mounted {
            system,
            target: mount.target.clone(),
            made_dir,
            mounted: false,
        };
        system.mount(mount)?;
        mounted.mounted = true;
        Ok(mounted)
    }

    /// Takes over a mount that a program has made at `target`.
    pub fn adopt(system: &'a dyn System, target: &Path) -> Mounted<'a> {
        Mounted {
            system,
            target: target.to_owned(),
            made_dir: false,
            mounted: true,
        }
    }

    /// Returns the mount point.
    pub fn path(&self) -> &Path {
        &self.target
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
            self.system.unmount(&self.target)?;
        }
        if std::mem::take(&mut self.made_dir) {
            fs::remove_dir(&self.target)
                .with_context(|| format!("removing mount point {}", self.target.display()))?;
        }
        Ok(())
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("warning: {error:#}");
        }
    }
}
