//! A tree that changes while it is read: found out, and told by name.
//!
//! What was read of it belongs to no moment, so it is never taken for the tree.

use std::fmt;
use std::io;

use anyhow::{Error, Result, anyhow};
use nix::errno::Errno;
use nix::sys::stat::FileStat;

use crate::failure::{Class, with_class};

/// What became of an entry while the tree was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsteady {
    /// It was listed, and is no longer there.
    Vanished,
    /// It is no longer what it was when reading it began.
    Changed,
}

impl fmt::Display for Unsteady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Unsteady::Vanished => "it has vanished meanwhile",
            Unsteady::Changed => "it has changed meanwhile",
        })
    }
}

impl std::error::Error for Unsteady {}

/// Says of an error about something that was listed what it means: that it is
/// gone, or shorter. Other errors stay as they are.
pub fn explain(error: Error) -> Error {
    if let Some(Errno::ENOENT) = error.downcast_ref() {
        return Unsteady::Vanished.into();
    }
    match error.downcast_ref::<io::Error>().map(io::Error::kind) {
        Some(io::ErrorKind::NotFound) => Unsteady::Vanished.into(),
        Some(io::ErrorKind::UnexpectedEof) => Unsteady::Changed.into(),
        _ => error,
    }
}

/// Checks that an entry is the same after it was read as before. A write that
/// sets the time back is told by the inode's own time, which nobody can set.
///
/// # Errors
/// [`Unsteady::Changed`] when it is not.
pub fn check_same(before: &FileStat, after: &FileStat) -> Result<()> {
    let marks = |stat: &FileStat| {
        let inode = (stat.st_dev, stat.st_ino, stat.st_size);
        let mtime = (stat.st_mtime, stat.st_mtime_nsec);
        (inode, mtime, (stat.st_ctime, stat.st_ctime_nsec))
    };
    match marks(before) == marks(after) {
        true => Ok(()),
        false => Err(Unsteady::Changed.into()),
    }
}

/// Makes a refusal with the way out of the error of whoever needs the tree
/// steady; other errors stay as they are.
pub fn refuse(error: Error) -> Error {
    if error.downcast_ref::<Unsteady>().is_none() {
        return error;
    }
    let way_out = "stop what writes to the tree, or give a snapshot or a copy of it";
    with_class(Class::Refused, anyhow!("{error:#}; {way_out}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::class_of;
    use crate::tree::walk::walk;
    use anyhow::Context;
    use std::fs;

    #[test]
    fn what_vanishes_while_a_tree_is_walked_is_named() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        fs::write(at("a"), "").unwrap();
        fs::write(at("b"), "").unwrap();
        let walked = walk(root.path(), &[], &mut |found| {
            if found.path == b"a" {
                fs::remove_file(at("b"))?;
            }
            Ok(())
        });
        let error = walked.unwrap_err();
        assert_eq!(format!("{error:#}"), "reading b: it has vanished meanwhile");
    }

    #[test]
    fn only_what_changed_is_refused() {
        let gone: Result<()> = Err(explain(Errno::ENOENT.into()));
        let error = refuse(gone.context("reading etc/x").unwrap_err());
        assert_eq!(class_of(&error), Class::Refused);
        let text = format!("{error:#}");
        assert!(text.starts_with("reading etc/x: it has vanished"), "{text}");
        assert!(text.contains("snapshot"), "{text}");
        let broken = refuse(explain(Errno::EIO.into()));
        assert_eq!(class_of(&broken), Class::Unexpected);
    }
}
