//! The way through a tree: sorted by name, without following links, leaving
//! out what is never packed.

use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::Rc;

use anyhow::{Context, Result};
use nix::dir::Dir;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{FileStat, Mode, fstat, fstatat};

use super::attributes::Tree;
use super::dirs::{Dirs, Missing, OPEN_DIR};
use super::glob::Glob;
use super::meta::{Kind, Meta};
use super::path::{show, split};
use super::swap;
use super::unsteady::{self, Unsteady};
use crate::signals;

/// Directories of the root whose contents belong to the running system.
const HOLLOW: [&[u8]; 5] = [b"proc", b"sys", b"dev", b"run", b"tmp"];
/// LVM's notes about the disks of the machine it ran on.
const LVM: [&[u8]; 4] = [
    b"etc/lvm/devices",
    b"etc/lvm/archive",
    b"etc/lvm/backup",
    b"etc/lvm/cache",
];
const LOST_FOUND: &[u8] = b"lost+found";

/// Tells whether what is at `path`, relative to the root, is never packed because
/// it belongs to the running system.
pub fn is_hollow(path: &Path) -> bool {
    let first = path.components().next();
    first.is_some_and(|name| HOLLOW.contains(&name.as_os_str().as_bytes()))
}

/// How many directories a walk keeps open.
pub const OPEN_DIRS: usize = 64;

/// One entry of the tree.
pub struct Found<'a> {
    /// The path relative to the root, which itself is empty.
    pub path: &'a [u8],
    /// What is kept of its inode.
    pub meta: Meta,
    /// All that the kernel says of it.
    pub stat: FileStat,
    /// The directory that holds the entry.
    pub dir: &'a OwnedFd,
    /// The entry's name in it; `.` for the root.
    pub name: &'a OsStr,
}

impl Found<'_> {
    /// Returns what tells inodes apart.
    pub fn inode(&self) -> (u64, u64) {
        (self.stat.st_dev, self.stat.st_ino)
    }

    /// Returns how many names the inode has; directories count as having one.
    pub fn links(&self) -> u64 {
        match self.meta.kind {
            Kind::Dir => 1,
            _ => self.stat.st_nlink,
        }
    }
}

/// What a walk left out that somebody may miss.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// The paths of swap files.
    pub swap_files: Vec<Vec<u8>>,
    /// How many sockets.
    pub sockets: u64,
    /// The numbers of the patterns that left out nothing.
    pub idle_patterns: Vec<usize>,
}

/// Visits every entry of a tree that is packed, directories after
/// their content.
pub fn walk<'a>(
    tree: impl Into<Tree<'a>>,
    exclude: &[Glob],
    visit: &mut dyn FnMut(&Found) -> Result<()>,
) -> Result<LeftOut> {
    walk_as(Manner::Steady, tree.into(), exclude, visit)
}

/// Visits every entry on the file system of `root`, a system that runs: what goes
/// or changes while it is looked at is passed over, also by `visit` when it fails
/// with [`Unsteady`]. Of what is mounted in it only the mount points are seen.
///
/// # Errors
/// When an entry cannot be read for any other reason.
pub fn walk_running(
    root: &Path,
    exclude: &[Glob],
    visit: &mut dyn FnMut(&Found) -> Result<()>,
) -> Result<()> {
    walk_as(Manner::Running, root.into(), exclude, visit).map(drop)
}

/// What is made of a tree that changes, and of other file systems in it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// Nothing changes, and all that is mounted belongs to it.
    Steady,
    /// Things come and go, and what is mounted is somebody else's.
    Running,
}

fn walk_as<'a>(
    manner: Manner,
    tree: Tree<'a>,
    exclude: &[Glob],
    visit: &mut dyn FnMut(&Found) -> Result<()>,
) -> Result<LeftOut> {
    let mut walker = Walker {
        manner,
        tree,
        dirs: Dirs::new(tree.root, OPEN_DIRS, Missing::Fail)?,
        exclude,
        visit,
        path: Vec::new(),
        frames: Vec::new(),
        left_out: LeftOut {
            idle_patterns: (0..exclude.len()).collect(),
            ..LeftOut::default()
        },
    };
    walker.run()?;
    Ok(walker.left_out)
}

struct Walker<'a> {
    manner: Manner,
    tree: Tree<'a>,
    dirs: Dirs,
    exclude: &'a [Glob],
    visit: &'a mut dyn FnMut(&Found) -> Result<()>,
    path: Vec<u8>,
    frames: Vec<Frame>,
    left_out: LeftOut,
}

/// A directory being visited.
struct Frame {
    /// Names still to visit, the next one last.
    names: Vec<CString>,
    path_length: usize,
    stat: FileStat,
    is_mount_root: bool,
}

impl Walker<'_> {
    fn run(&mut self) -> Result<()> {
        let root = self.dirs.get(b"")?;
        let stat = fstat(root.as_fd()).context("examining the root of the tree")?;
        self.enter(&root, stat, true)?;
        while let Some(frame) = self.frames.last_mut() {
            self.path.truncate(frame.path_length);
            let Some(name) = frame.names.pop() else {
                let left = self.leave();
                self.judge(left)?;
                continue;
            };
            let dir = match self.dirs.get(&self.path) {
                Ok(dir) => dir,
                Err(error) => {
                    self.judge(Err(error))?;
                    continue;
                }
            };
            if !self.path.is_empty() {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(name.as_bytes());
            let seen = self.entry(&dir, OsStr::from_bytes(name.as_bytes()));
            self.judge(seen)?;
        }
        Ok(())
    }

    /// Passes over what went or changed meanwhile, where that is to be expected.
    fn judge(&self, outcome: Result<()>) -> Result<()> {
        let Err(error) = outcome.map_err(unsteady::explain) else {
            return Ok(());
        };
        if self.manner == Manner::Running && error.downcast_ref::<Unsteady>().is_some() {
            return Ok(());
        }
        Err(error).with_context(|| format!("reading {}", show(&self.path)))
    }

    fn entry(&mut self, dir: &Rc<OwnedFd>, name: &OsStr) -> Result<()> {
        signals::check()?;
        let stat = fstatat(dir.as_fd(), name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        let Some(meta) = self.tree.meta(&stat) else {
            self.left_out.sockets += 1;
            return Ok(());
        };
        if self.is_left_out(&meta) {
            return Ok(());
        }
        let may_be_swap = meta.kind == Kind::File && meta.size_bytes >= swap::MIN_BYTES;
        if may_be_swap && swap::is_swap(&open_file(dir, name)?)? {
            self.left_out.swap_files.push(self.path.clone());
            return Ok(());
        }
        if meta.kind == Kind::Dir {
            let own_device = self.frames.first().map(|frame| frame.stat.st_dev);
            if self.manner == Manner::Running && own_device != Some(stat.st_dev) {
                return (self.visit)(&Found {
                    path: &self.path,
                    meta,
                    stat,
                    dir,
                    name,
                });
            }
            let fd = self.dirs.get(&self.path)?;
            let above = self.frames.last().map(|frame| frame.stat.st_dev);
            return self.enter(&fd, stat, above != Some(stat.st_dev));
        }
        (self.visit)(&Found {
            path: &self.path,
            meta,
            stat,
            dir,
            name,
        })
    }

    /// Visits the directory all of whose content has been visited.
    fn leave(&mut self) -> Result<()> {
        let Some(frame) = self.frames.pop() else {
            return Ok(());
        };
        let (parent, name) = split(&self.path);
        let name = if name.is_empty() { b"." } else { name };
        (self.visit)(&Found {
            path: &self.path,
            meta: self.tree.meta(&frame.stat).context("it is no directory")?,
            stat: frame.stat,
            dir: &*self.dirs.get(parent)?,
            name: OsStr::from_bytes(name),
        })
    }

    fn is_left_out(&mut self, meta: &Meta) -> bool {
        let at_mount_root = self.frames.last().is_some_and(|f| f.is_mount_root);
        let name = self.path.rsplit(|b| *b == b'/').next();
        (meta.kind == Kind::Dir && at_mount_root && name == Some(LOST_FOUND))
            || LVM.contains(&self.path.as_slice())
            || self.is_excluded()
    }

    /// Tells whether a pattern matches; those that never did are tried on every
    /// match, so that none is called idle that has only come second.
    fn is_excluded(&mut self) -> bool {
        let (exclude, path) = (self.exclude, &self.path);
        let is_excluded = exclude.iter().any(|glob| glob.matches(path));
        if is_excluded {
            let idle = &mut self.left_out.idle_patterns;
            idle.retain(|number| !exclude[*number].matches(path));
        }
        is_excluded
    }

    fn enter(&mut self, fd: &OwnedFd, stat: FileStat, is_mount_root: bool) -> Result<()> {
        let mut names = Vec::new();
        if !HOLLOW.contains(&self.path.as_slice()) {
            let mut dir = Dir::openat(fd.as_fd(), ".", OPEN_DIR, Mode::empty())?;
            for entry in dir.iter() {
                let name = entry?.file_name().to_owned();
                if name.as_bytes() != b"." && name.as_bytes() != b".." {
                    names.push(name);
                }
            }
        }
        names.sort_unstable_by(|a, b| b.cmp(a));
        self.frames.push(Frame {
            names,
            path_length: self.path.len(),
            stat,
            is_mount_root,
        });
        Ok(())
    }
}

/// Opens a regular file for reading; the flags keep a file that has been
/// swapped for a link or a fifo from being followed or waited for.
pub fn open_file(dir: &OwnedFd, name: &OsStr) -> Result<std::fs::File> {
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let opened = openat(dir.as_fd(), name, flags, Mode::empty());
    Ok(opened
        .map_err(|errno| unsteady::explain(errno.into()))?
        .into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::net::UnixListener;
    use std::path::Path;

    fn paths(root: &Path, exclude: &[&str]) -> (Vec<String>, LeftOut) {
        let globs: Vec<Glob> = exclude.iter().map(|p| Glob::new(p).unwrap()).collect();
        let mut seen = Vec::new();
        let left_out = walk(root, &globs, &mut |found| {
            seen.push(String::from_utf8(found.path.to_vec()).unwrap());
            Ok(())
        })
        .unwrap();
        (seen, left_out)
    }

    #[test]
    fn what_belongs_to_the_running_system_is_left_out() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        for dir in [
            "proc/1",
            "dev/shm",
            "tmp/x",
            "etc/lvm/backup",
            "etc/lvm/devices",
            "etc/lvm/profile",
            "lost+found/x",
            "srv/lost+found",
            "srv/proc/1",
            "var/cache/apt",
        ] {
            fs::create_dir_all(at(dir)).unwrap();
        }
        let mut swap = vec![0; 50_000];
        swap[4086..4096].copy_from_slice(b"SWAPSPACE2");
        fs::write(at("swapfile"), &swap).unwrap();
        fs::write(at("notswap"), &swap[..40_000]).unwrap();
        let _socket = UnixListener::bind(at("srv/socket")).unwrap();
        let exclude = ["/var/cache/*", "apt", "/var/log/*"];
        let (seen, left_out) = paths(root.path(), &exclude);
        let expected = [
            "dev",
            "etc/lvm/profile",
            "etc/lvm",
            "etc",
            "notswap",
            "proc",
            "srv/lost+found",
            "srv/proc/1",
            "srv/proc",
            "srv",
            "tmp",
            "var/cache",
            "var",
            "",
        ];
        assert_eq!(seen, expected);
        assert_eq!(left_out.swap_files, [b"swapfile"]);
        assert_eq!(left_out.sockets, 1);
        assert_eq!(left_out.idle_patterns, [2]);
    }

    #[test]
    fn what_goes_while_a_running_system_is_looked_at_is_passed_over() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        for name in ["a", "b", "d"] {
            fs::write(at(name), "").unwrap();
        }
        fs::create_dir_all(at("c/e")).unwrap();
        let mut seen = Vec::new();
        walk_running(root.path(), &[], &mut |found| {
            if found.path == b"a" {
                fs::remove_file(at("b"))?;
                fs::remove_dir(at("c/e"))?;
                fs::remove_dir(at("c"))?;
            }
            seen.push(String::from_utf8_lossy(found.path).into_owned());
            Ok(())
        })
        .unwrap();
        assert_eq!(seen, ["a", "d", ""]);
    }
}
