//! Directories below one root, opened name by name without following links.
//!
//! Works for paths of any length, on kernels without openat2(2).

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::Rc;

use anyhow::{Context, Error, Result, anyhow};
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, mkdirat};

use super::path::show;
use super::unsteady::{self, Unsteady};
use crate::failure::{Class, with_class};
use crate::signals;

/// How directories are opened: to read, never through a link.
pub const OPEN_DIR: OFlag = OFlag::O_RDONLY
    .union(OFlag::O_DIRECTORY)
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_CLOEXEC);

/// Longer paths are not kept open by name: to look for the nearest one takes as
/// many digests of it as it has names (`PATH_MAX`).
const MAX_KEPT_BYTES: usize = 4096;

/// What to do about a directory that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// Make it, owned by root, for the archive to describe later or never. What
    /// is in its place came out of the archive, too, which is then a bad one.
    Make,
    /// Fail.
    Fail,
}

/// The directories below a root, the recently used ones kept open.
pub struct Dirs {
    root: Rc<OwnedFd>,
    open: HashMap<Box<[u8]>, Rc<OwnedFd>>,
    last: (Vec<u8>, Rc<OwnedFd>),
    capacity: usize,
    missing: Missing,
}

impl Dirs {
    /// Opens the directory `root`, which itself may be reached through links.
    pub fn new(root: &Path, capacity: usize, missing: Missing) -> Result<Dirs> {
        let file = File::open(root).with_context(|| format!("opening {}", root.display()))?;
        Dirs::of(file.into(), capacity, missing)
    }

    /// Takes an open directory as the root.
    pub fn of(root: OwnedFd, capacity: usize, missing: Missing) -> Result<Dirs> {
        let root = Rc::new(root);
        Ok(Dirs {
            last: (Vec::new(), Rc::clone(&root)),
            root,
            open: HashMap::new(),
            capacity,
            missing,
        })
    }

    /// Returns the directory `path`, relative to the root; empty is the root.
    pub fn get(&mut self, path: &[u8]) -> Result<Rc<OwnedFd>> {
        if path == self.last.0 {
            return Ok(Rc::clone(&self.last.1));
        }
        let dir = match self.open.get(path) {
            Some(dir) => Rc::clone(dir),
            None => self.descend(path)?,
        };
        self.last.0.clear();
        self.last.0.extend_from_slice(path);
        self.last.1 = Rc::clone(&dir);
        Ok(dir)
    }

    fn descend(&mut self, path: &[u8]) -> Result<Rc<OwnedFd>> {
        let (mut dir, mut start) = self.nearest(path);
        while start < path.len() {
            let end = path[start..]
                .iter()
                .position(|b| *b == b'/')
                .map_or(path.len(), |i| start + i);
            dir = Rc::new(self.step(&dir, &path[start..end], &path[..end])?);
            if end > MAX_KEPT_BYTES {
                signals::check()?;
            } else {
                if self.open.len() >= self.capacity {
                    self.open.clear();
                }
                self.open.insert(path[..end].into(), Rc::clone(&dir));
            }
            start = end + 1;
        }
        Ok(dir)
    }

    /// Finds the longest beginning of `path` that is open.
    fn nearest(&self, path: &[u8]) -> (Rc<OwnedFd>, usize) {
        let mut end = path.len().min(MAX_KEPT_BYTES + 1);
        while let Some(slash) = path[..end].iter().rposition(|b| *b == b'/') {
            if let Some(dir) = self.open.get(&path[..slash]) {
                return (Rc::clone(dir), slash + 1);
            }
            end = slash;
        }
        (Rc::clone(&self.root), 0)
    }

    fn step(&self, dir: &OwnedFd, name: &[u8], path: &[u8]) -> Result<OwnedFd> {
        let name = OsStr::from_bytes(name);
        let mut opened = openat(dir.as_fd(), name, OPEN_DIR, Mode::empty());
        if matches!(opened, Err(Errno::ENOENT)) && self.missing == Missing::Make {
            match mkdirat(dir.as_fd(), name, Mode::from_bits_truncate(0o755)) {
                // Another thread may have made it meanwhile.
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(errno) => return Err(errno).context(format!("making {}", show(path))),
            }
            opened = openat(dir.as_fd(), name, OPEN_DIR, Mode::empty());
        }
        match opened {
            Ok(fd) => Ok(fd),
            Err(Errno::ELOOP | Errno::ENOTDIR) => {
                let error = anyhow!("{} is not a directory", show(path));
                Err(match self.missing {
                    Missing::Make => with_class(Class::BadBundle, error),
                    Missing::Fail => Error::from(Unsteady::Changed).context(error),
                })
            }
            Err(errno) => Err(unsteady::explain(errno.into()))
                .with_context(|| format!("opening {}", show(path))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn directories_are_made_below_the_root_and_links_are_not_followed() {
        let base = tempfile::tempdir().unwrap();
        let (root, outside) = (base.path().join("root"), base.path().join("outside"));
        fs::create_dir(&root).unwrap();
        fs::create_dir(&outside).unwrap();
        symlink(&outside, root.join("link")).unwrap();
        fs::write(root.join("file"), "").unwrap();
        let mut dirs = Dirs::new(&root, 2, Missing::Make).unwrap();
        for path in ["a/b/c/d/e", "a/b", "a/b/c/x", "", "a/b/c/d/e"] {
            dirs.get(path.as_bytes()).unwrap();
            assert!(root.join(path).is_dir());
        }
        for path in ["link", "link/x", "file/x"] {
            let error = dirs.get(path.as_bytes()).unwrap_err().to_string();
            assert!(error.contains("is not a directory"), "{path}: {error}");
        }
        assert_eq!(fs::read_dir(outside).unwrap().count(), 0);
        let mut dirs = Dirs::new(&root, 2, Missing::Fail).unwrap();
        assert!(dirs.get(b"new").is_err());
    }

    #[test]
    fn a_tree_deeper_than_the_longest_path_is_reached() {
        let root = tempfile::tempdir().unwrap();
        let path = ["d"; 3000].join("/").into_bytes();
        let mut dirs = Dirs::new(root.path(), 16, Missing::Make).unwrap();
        dirs.get(&path).unwrap();
        assert!(dirs.open.len() <= 16);
        let mut again = Dirs::new(root.path(), 16, Missing::Fail).unwrap();
        again.get(&path).unwrap();
    }
}
