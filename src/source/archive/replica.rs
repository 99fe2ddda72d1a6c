//! The tree of an archive as any user can make it: data, names and links are
//! real, everything else is noted.
//!
//! Device nodes and pipes are empty files here. A name that comes twice is what
//! came last, as with tar; only a directory never becomes something else.
//! Nothing is made outside of the tree, or through a link in it.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::rc::Rc;

use anyhow::{Context, Error, Result};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat, futimens, mkdirat};
use nix::sys::time::TimeSpec;
use nix::unistd::{UnlinkatFlags, linkat, symlinkat, unlinkat};

use super::room::{Room, full};
use super::tidy;
use crate::archive::batch::{Batch, Member, Part};
use crate::failure::{Class, Classify, with_class};
use crate::refuse;
use crate::signals;
use crate::tree::attributes::Notes;
use crate::tree::dirs::{Dirs, Missing};
use crate::tree::meta::{Kind, Mtime};
use crate::tree::path::{show, split};
use crate::tree::walk::OPEN_DIRS;

/// What a small file or a directory takes.
const ENTRY_BYTES: u64 = 4096;
/// The most memory for attributes, and for links to what has not come yet.
const MAX_NOTED_BYTES: usize = 256 << 20;

/// The tree while it is made.
pub struct Replica {
    dirs: Dirs,
    notes: Notes,
    room: Room,
    current: Option<Current>,
    waiting: Waiting,
}

/// The file whose data come.
struct Current {
    file: File,
    path: Vec<u8>,
    mtime: Mtime,
}

/// Hard links to what has not come yet, and how long their names are.
#[derive(Default)]
struct Waiting {
    links: Vec<(Vec<u8>, Vec<u8>)>,
    bytes: usize,
}

impl Replica {
    /// Starts in the empty directory `root`.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn new(root: &Path) -> Result<Replica> {
        Ok(Replica {
            dirs: Dirs::new(root, OPEN_DIRS, Missing::Make)?,
            notes: Notes::default(),
            room: Room::new(root),
            current: None,
            waiting: Waiting::default(),
        })
    }

    /// Makes what `batch` has read in `piece`.
    ///
    /// # Errors
    /// Class `Refused` when something cannot be made.
    pub fn take(&mut self, batch: &Batch, piece: &[u8]) -> Result<()> {
        self.write(batch.carried(), piece)?;
        for member in &batch.members {
            signals::check()?;
            self.end_file()?;
            let path = batch.path(member);
            self.make(batch, member)
                .map_err(explain)
                .with_context(|| format!("member {}", show(path)))
                .class(Class::Refused)?;
            self.write(batch.parts(member), piece)?;
        }
        match batch.is_unfinished {
            true => Ok(()),
            false => self.end_file(),
        }
    }

    /// Makes the links that waited, and returns what was noted.
    ///
    /// # Errors
    /// Class `Refused` when a link leads nowhere.
    pub fn finish(mut self) -> Result<Notes> {
        loop {
            let waiting = std::mem::take(&mut self.waiting);
            let count = waiting.links.len();
            for (path, end) in waiting.links {
                signals::check()?;
                self.link(&path, &end)
                    .map_err(explain)
                    .with_context(|| format!("member {}", show(&path)))
                    .class(Class::Refused)?;
            }
            match self.waiting.links.first() {
                None => return Ok(self.notes),
                Some((path, end)) if self.waiting.links.len() == count => refuse!(
                    "{} is a hard link to {}, which is not in the archive",
                    show(path),
                    show(end)
                ),
                Some(_) => {}
            }
        }
    }

    /// Makes a member, but for the data of a file.
    fn make(&mut self, batch: &Batch, member: &Member) -> Result<()> {
        let path = batch.path(member);
        // Every directory above it may have to be made.
        let depth = 1 + path.iter().filter(|byte| **byte == b'/').count() as u64;
        self.room.take(depth * ENTRY_BYTES)?;
        let stat = if member.is_hard_link {
            let (dir, name) = self.place(path)?;
            return match self.find(&dir, name)? {
                // It is a name for itself, or comes late.
                Some(_) if path == batch.link_end(member) => Ok(()),
                _ => self.link_anew(path, batch.link_end(member)),
            };
        } else if member.meta.kind == Kind::Dir {
            self.make_dir(path)?
        } else {
            self.make_node(batch, member)?
        };
        let (meta, xattrs) = tidy::attributes(member)?;
        self.notes.note(&stat, meta, xattrs);
        if self.notes.attribute_bytes() > MAX_NOTED_BYTES {
            refuse!("all attributes together have more than {MAX_NOTED_BYTES} bytes");
        }
        Ok(())
    }

    fn make_dir(&mut self, path: &[u8]) -> Result<FileStat> {
        if !path.is_empty() {
            let (parent, name) = self.place(path)?;
            match self.find(&parent, name)? {
                Some(stat) if is_dir(&stat) => {}
                _ => {
                    self.clear(&parent, name)?;
                    mkdirat(parent.as_fd(), name, Mode::S_IRWXU)?;
                }
            }
        }
        let dir = self.dirs.get(path)?;
        Ok(fstat(dir.as_fd())?)
    }

    fn make_node(&mut self, batch: &Batch, member: &Member) -> Result<FileStat> {
        const CREATE: OFlag = OFlag::O_WRONLY
            .union(OFlag::O_CREAT)
            .union(OFlag::O_EXCL)
            .union(OFlag::O_NOFOLLOW)
            .union(OFlag::O_CLOEXEC);
        let path = batch.path(member);
        let (dir, name) = self.place(path)?;
        self.clear(&dir, name)?;
        if member.meta.kind == Kind::Symlink {
            symlinkat(OsStr::from_bytes(batch.link_end(member)), dir.as_fd(), name)?;
            return Ok(fstatat(dir.as_fd(), name, AtFlags::AT_SYMLINK_NOFOLLOW)?);
        }
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        let file = File::from(openat(dir.as_fd(), name, CREATE, mode)?);
        let stat = fstat(&file)?;
        if member.meta.kind == Kind::File {
            if member.is_sparse() {
                // A hole at the end is not made by writing.
                file.set_len(member.meta.size_bytes)?;
            }
            self.current = Some(Current {
                file,
                path: path.to_vec(),
                mtime: member.meta.mtime,
            });
        }
        Ok(stat)
    }

    /// Makes a hard link in the place of what was there.
    fn link_anew(&mut self, path: &[u8], end: &[u8]) -> Result<()> {
        let (dir, name) = self.place(path)?;
        let (end_dir, end_name) = self.place(end)?;
        let old = self.find(&dir, name)?;
        let target = self.find(&end_dir, end_name)?;
        let inode = |stat: &FileStat| (stat.st_dev, stat.st_ino);
        if old.is_some() && old.as_ref().map(inode) == target.as_ref().map(inode) {
            return Ok(());
        }
        self.clear(&dir, name)?;
        self.link(path, end)
    }

    /// Makes a hard link unless something is there, which then came later. It
    /// waits for a file that has not come yet.
    fn link(&mut self, path: &[u8], end: &[u8]) -> Result<()> {
        let (dir, name) = self.place(path)?;
        let (end_dir, end_name) = self.place(end)?;
        if self.find(&dir, name)?.is_some() {
            return Ok(());
        }
        match self.find(&end_dir, end_name)? {
            Some(stat) if is_dir(&stat) => {
                refuse!("it is a hard link to {}, a directory", show(end))
            }
            Some(_) => {
                let (from, to) = (end_dir.as_fd(), dir.as_fd());
                linkat(from, end_name, to, name, AtFlags::empty())?;
            }
            None => {
                self.waiting.bytes += path.len() + end.len();
                if self.waiting.bytes > MAX_NOTED_BYTES {
                    refuse!("too many hard links lead to what is not in the archive");
                }
                self.waiting.links.push((path.to_vec(), end.to_vec()));
            }
        }
        Ok(())
    }

    /// Writes data of the current file.
    fn write(&mut self, parts: &[Part], piece: &[u8]) -> Result<()> {
        let Some(current) = &self.current else {
            return Ok(());
        };
        let mut write = || -> Result<()> {
            for part in parts {
                self.room.take(part.length as u64)?;
                current.file.write_all_at(part.of(piece), part.offset)?;
            }
            Ok(())
        };
        write()
            .map_err(explain)
            .with_context(|| format!("member {}", show(&current.path)))
            .class(Class::Refused)
    }

    /// Ends the current file. Its time is real, for those who read the tree
    /// without the notes.
    fn end_file(&mut self) -> Result<()> {
        let Some(current) = self.current.take() else {
            return Ok(());
        };
        let Mtime {
            seconds,
            nanoseconds,
        } = current.mtime;
        let time = TimeSpec::new(seconds, nanoseconds.into());
        futimens(&current.file, &TimeSpec::UTIME_OMIT, &time)
            .with_context(|| format!("setting the time of {}", show(&current.path)))
    }

    /// Removes what is not a directory.
    fn clear(&mut self, dir: &OwnedFd, name: &OsStr) -> Result<()> {
        let Some(stat) = self.find(dir, name)? else {
            return Ok(());
        };
        if is_dir(&stat) {
            refuse!("it comes as a directory and again as something else");
        }
        unlinkat(dir.as_fd(), name, UnlinkatFlags::NoRemoveDir)?;
        if stat.st_nlink == 1 {
            self.notes.forget(&stat);
        }
        Ok(())
    }

    fn find(&self, dir: &OwnedFd, name: &OsStr) -> Result<Option<FileStat>> {
        match fstatat(dir.as_fd(), name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Err(Errno::ENOENT) => Ok(None),
            other => Ok(Some(other?)),
        }
    }

    fn place<'p>(&mut self, path: &'p [u8]) -> Result<(Rc<OwnedFd>, &'p OsStr)> {
        let (dir, name) = split(path);
        Ok((self.dirs.get(dir)?, OsStr::from_bytes(name)))
    }
}

fn is_dir(stat: &FileStat) -> bool {
    stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFDIR.bits()
}

/// Says of a full disk which one it is.
fn explain(error: Error) -> Error {
    let of_call = error.downcast_ref().copied();
    let of_write = || {
        let error = error.downcast_ref::<std::io::Error>()?;
        Some(Errno::from_raw(error.raw_os_error()?))
    };
    match of_call.or_else(of_write) {
        Some(Errno::ENOSPC | Errno::EDQUOT) => with_class(Class::Refused, Error::msg(full())),
        _ => error,
    }
}
