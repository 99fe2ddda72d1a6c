//! One thing of the old system, reached without following a link on the way.
//!
//! The old system runs, and its users may put a link where a directory was.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::{Context, Result};
use nix::fcntl::{AtFlags, readlinkat};
use nix::sys::stat::fstatat;

use super::like::Like;
use crate::accounts::IdMap;
use crate::tree::dirs::{Dirs, Missing};
use crate::tree::meta::{Kind, Meta};
use crate::tree::path::split;
use crate::tree::walk::open_file;

/// Something in its directory.
pub struct Source<'a> {
    dir: Rc<OwnedFd>,
    name: &'a OsStr,
    /// What it is.
    pub kind: Kind,
    /// A file's size in bytes.
    pub size_bytes: u64,
}

impl<'a> Source<'a> {
    /// Finds `path` below `root`; `None` where it has gone, or a directory on the
    /// way has.
    ///
    /// # Errors
    /// When the root cannot be opened.
    pub fn find(root: &Path, path: &'a Path) -> Result<Option<Source<'a>>> {
        let (parent, name) = split(path.as_os_str().as_bytes());
        let name = OsStr::from_bytes(name);
        let mut dirs = Dirs::new(root, 1, Missing::Fail)?;
        let Ok(dir) = dirs.get(parent) else {
            return Ok(None);
        };
        let Ok(stat) = fstatat(dir.as_fd(), name, AtFlags::AT_SYMLINK_NOFOLLOW) else {
            return Ok(None);
        };
        Ok(Meta::from_stat(&stat).map(|meta| Source {
            dir,
            name,
            kind: meta.kind,
            size_bytes: meta.size_bytes,
        }))
    }

    /// Opens the file.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(&self) -> Result<File> {
        open_file(&self.dir, self.name)
    }

    /// Returns where the link leads.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn link_end(&self) -> Result<PathBuf> {
        let end = readlinkat(&*self.dir, self.name).context("reading a link")?;
        Ok(PathBuf::from(std::ffi::OsString::from_vec(end.into_vec())))
    }

    /// Describes it; its ids become those of `ids`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn like(&self, ids: &IdMap) -> Result<Like> {
        Like::at(self.dir.as_fd(), self.name, ids)
    }
}
