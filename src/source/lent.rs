//! Files that a program is lent: it gets the very file that was checked, by the number
//! of an open descriptor, and needs no right to the directories that lead to it.

use std::fs::{File, Permissions};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use anyhow::{Context, Result};
use nix::unistd::{dup, geteuid};

use crate::system::User;

/// The right of others to read a file.
const OTHERS_READ: u32 = 0o004;

/// A file that every program started meanwhile has open, too.
pub struct Lent(OwnedFd);

impl Lent {
    /// Lends `file`.
    ///
    /// # Errors
    /// When this process has too many files open.
    pub fn new(file: &File) -> Result<Lent> {
        // Unlike the original, the copy stays open where a program is started.
        dup(file).map(Lent).context("lending a file")
    }

    /// Returns the path under which the program that has it can open it.
    pub fn path(&self) -> String {
        format!("/proc/self/fd/{}", self.0.as_raw_fd())
    }
}

/// Returns who a program should be that reads `files` and nothing else: nobody where
/// everybody may read them, else their owner; `None` where this process is not root.
///
/// # Errors
/// When a file cannot be looked at.
pub fn reader_of<'f>(files: impl IntoIterator<Item = &'f File>) -> Result<Option<User>> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    for file in files {
        let meta = file.metadata().context("looking at a file")?;
        if meta.mode() & OTHERS_READ == 0 {
            let (uid, gid) = (meta.uid(), meta.gid());
            return Ok(Some(User { uid, gid }));
        }
    }
    Ok(Some(User::NOBODY))
}

/// Lets whoever is lent `file`, one of our own without a name, read it.
///
/// # Errors
/// When the file system of temporary files cannot do that.
pub fn let_read(file: &File) -> Result<()> {
    let shared = file.set_permissions(Permissions::from_mode(0o444));
    shared.context("opening a temporary file to its reader")
}

/// Lets whoever is lent `file`, one of our own without a name, write it, until
/// [`keep`].
///
/// # Errors
/// When the file system of temporary files cannot do that.
pub fn let_write(file: &File) -> Result<()> {
    let shared = file.set_permissions(Permissions::from_mode(0o666));
    shared.context("opening a temporary file to its writer")
}

/// Ends what [`let_write`] began.
///
/// # Errors
/// When the file system of temporary files cannot do that.
pub fn keep(file: &File) -> Result<()> {
    let kept = file.set_permissions(Permissions::from_mode(0o600));
    kept.context("closing a temporary file to its writer")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_private_file_is_read_by_its_owner_and_any_other_by_nobody() {
        let file = tempfile::tempfile().unwrap();
        let meta = file.metadata().unwrap();
        let owner = User {
            uid: meta.uid(),
            gid: meta.gid(),
        };
        for (mode, expected) in [(0o600, owner), (0o644, User::NOBODY)] {
            file.set_permissions(Permissions::from_mode(mode)).unwrap();
            let expected = geteuid().is_root().then_some(expected);
            assert_eq!(reader_of([&file]).unwrap(), expected);
        }
    }
}
