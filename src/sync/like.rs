//! Whose a file is and what else stands beside its content.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use nix::fcntl::AtFlags;
use nix::sys::stat::{FileStat, fstat, fstatat};

use crate::accounts::{IdMap, rewrite_acl, rewrite_owner};
use crate::tree::acl;
use crate::tree::xattrs::{self, SELINUX, Xattr};

/// Whose file it is, and who may do what with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Like {
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// The permission bits.
    pub mode: u32,
    /// The attributes but the label.
    pub attributes: Vec<Xattr>,
    modified: Option<SystemTime>,
}

impl Like {
    /// Describes what is at `path`, a link itself; its ids become those of `ids`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn of(path: &Path, ids: &IdMap) -> Result<Like> {
        let read = || -> Result<Like> {
            let parent = File::open(path.parent().unwrap_or(path))?;
            Like::at(parent.as_fd(), path.file_name().unwrap_or_default(), ids)
        };
        read().with_context(|| format!("reading {}", path.display()))
    }

    /// Describes `name` in an open directory, a link itself.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn at(dir: BorrowedFd, name: &OsStr, ids: &IdMap) -> Result<Like> {
        let stat = fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        Like::new(&stat, xattrs::read_at(dir, name.as_bytes())?, ids)
    }

    /// Describes an open file.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn of_open(file: &File, ids: &IdMap) -> Result<Like> {
        Like::new(&fstat(file)?, xattrs::read_open(file)?, ids)
    }

    fn new(stat: &FileStat, mut attributes: Vec<Xattr>, ids: &IdMap) -> Result<Like> {
        attributes.retain(|attribute| attribute.name != SELINUX);
        for attribute in &mut attributes {
            if [acl::ACCESS, acl::DEFAULT].contains(&&attribute.name[..]) {
                attribute.value = rewrite_acl(&attribute.value, ids)?;
            }
        }
        let (uid, gid) = rewrite_owner(stat.st_uid, stat.st_gid, ids);
        let since_1970 = u64::try_from(stat.st_mtime).ok();
        let nanoseconds = u32::try_from(stat.st_mtime_nsec).unwrap_or(0);
        Ok(Like {
            uid,
            gid,
            mode: stat.st_mode & 0o7777,
            attributes,
            modified: since_1970.map(|it| UNIX_EPOCH + Duration::new(it, nanoseconds)),
        })
    }

    /// Describes a file of root's with these permission bits.
    pub fn of_root(mode: u32) -> Like {
        Like {
            uid: 0,
            gid: 0,
            mode,
            attributes: Vec::new(),
            modified: None,
        }
    }

    /// Describes a file of root's that nobody else may read.
    pub fn private() -> Like {
        Like::of_root(0o600)
    }

    /// Gives the open file, which is at `path`, all of this.
    ///
    /// # Errors
    /// When the file system does not take some of it.
    pub fn give_to(&self, file: &File, path: &Path) -> Result<()> {
        std::os::unix::fs::fchown(file, Some(self.uid), Some(self.gid))?;
        file.set_permissions(fs::Permissions::from_mode(self.mode))?;
        for attribute in &self.attributes {
            xattrs::set_open(file, &attribute.name, &attribute.value)
                .with_context(|| format!("setting an attribute of {}", path.display()))?;
        }
        if let Some(modified) = self.modified {
            file.set_modified(modified)?;
        }
        Ok(())
    }
}
