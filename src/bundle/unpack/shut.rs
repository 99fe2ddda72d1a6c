//! The target directory, into which nobody else can look until the tree is whole.
//!
//! Device nodes and setuid files are there before the directories around them
//! have their modes.

use std::fs::{File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::Path;

use anyhow::{Context, Result};

use crate::stderr;
use crate::tree::xattrs::{self, Xattr};

/// Holds the target shut. Dropped before [`Shut::keep`], the directory has the owner
/// and the attributes it had; it stays shut for who clears it away.
pub struct Shut<'t> {
    target: &'t Path,
    dir: File,
    owner: (u32, u32),
    mode: u32,
    xattrs: Vec<Xattr>,
    is_kept: bool,
}

impl<'t> Shut<'t> {
    /// Shuts the directory `target`, as far as the caller may.
    ///
    /// # Errors
    /// When it cannot be opened or looked at.
    pub fn new(target: &'t Path) -> Result<Shut<'t>> {
        let open = || -> Result<Shut<'t>> {
            let dir = File::open(target)?;
            let meta = dir.metadata()?;
            let mode = meta.mode() & 0o7777;
            let shut = Shut {
                target,
                owner: (meta.uid(), meta.gid()),
                mode,
                xattrs: xattrs::read_open(&dir)?,
                dir,
                is_kept: false,
            };
            match shut.dir.set_permissions(Permissions::from_mode(0o700)) {
                // An ordinary user may write to it and own it not.
                Err(error) if error.raw_os_error() != Some(nix::libc::EPERM) => Err(error.into()),
                _ => Ok(shut),
            }
        };
        open().with_context(|| format!("opening {}", target.display()))
    }

    /// Returns the open directory.
    pub fn dir(&self) -> &File {
        &self.dir
    }

    /// Gives the directory the mode it had.
    ///
    /// # Errors
    /// When it cannot be set.
    pub fn open_again(&self) -> Result<()> {
        match self.dir.set_permissions(Permissions::from_mode(self.mode)) {
            Err(error) if error.raw_os_error() != Some(nix::libc::EPERM) => {
                Err(error).with_context(|| format!("opening {} again", self.target.display()))
            }
            _ => Ok(()),
        }
    }

    /// Ends it: the directory stays as it is now.
    pub fn keep(mut self) {
        self.is_kept = true;
    }

    fn give_back(&self) -> Result<()> {
        let meta = self.dir.metadata()?;
        if (meta.uid(), meta.gid()) != self.owner {
            let (uid, gid) = self.owner;
            fchown(&self.dir, Some(uid), Some(gid))?;
        }
        if meta.mode() & 0o077 != 0 {
            self.dir.set_permissions(Permissions::from_mode(0o700))?;
        }
        let now = xattrs::read_open(&self.dir)?;
        for new in now
            .iter()
            .filter(|x| !self.xattrs.iter().any(|old| old.name == x.name))
        {
            xattrs::remove_open(&self.dir, &new.name)?;
        }
        for old in self.xattrs.iter().filter(|x| !now.contains(x)) {
            xattrs::set_open(&self.dir, &old.name, &old.value)?;
        }
        Ok(())
    }
}

impl Drop for Shut<'_> {
    fn drop(&mut self) {
        if self.is_kept {
            return;
        }
        if let Err(error) = self.give_back() {
            let target = self.target.display();
            stderr::say(&format!("warning: giving {target} back: {error:#}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_directory_that_is_not_kept_is_what_it_was_but_shut() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        let mode = || fs::metadata(dir.path()).unwrap().mode() & 0o7777;
        let shut = Shut::new(dir.path()).unwrap();
        assert_eq!(mode(), 0o700);
        shut.dir
            .set_permissions(Permissions::from_mode(0o777))
            .unwrap();
        drop(shut);
        assert_eq!(mode(), 0o700);
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        let shut = Shut::new(dir.path()).unwrap();
        shut.open_again().unwrap();
        shut.keep();
        assert_eq!(mode(), 0o755);
    }
}
