//! What is kept of inodes besides their data: as the disk has it, or as it was
//! noted by somebody who was not allowed to make the inodes so.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use nix::sys::stat::FileStat;

use super::meta::{Kind, Meta};
use super::owners::Overflow;
use super::xattrs::{self, Xattr};

/// A tree to be read.
#[derive(Clone, Copy)]
pub struct Tree<'a> {
    /// Where it lies.
    pub root: &'a Path,
    notes: Option<&'a Notes>,
}

/// A path alone stands for the tree as the disk has it.
impl<'a, P: AsRef<Path> + ?Sized> From<&'a P> for Tree<'a> {
    fn from(root: &'a P) -> Tree<'a> {
        Tree {
            root: root.as_ref(),
            notes: None,
        }
    }
}

impl<'a> Tree<'a> {
    /// Takes the data from the tree at `root`, and all else from `notes`.
    pub fn with_notes(root: &'a Path, notes: &'a Notes) -> Tree<'a> {
        Tree {
            root,
            notes: Some(notes),
        }
    }

    /// Returns what is kept of an inode; `None` stands for a kind that is not kept.
    pub fn meta(&self, stat: &FileStat) -> Option<Meta> {
        let on_disk = Meta::from_stat(stat)?;
        Some(self.notes.map_or(on_disk, |notes| notes.meta(stat)))
    }

    /// Returns the extended attributes of `name` in `dir`, sorted by name.
    pub fn xattrs(&self, stat: &FileStat, dir: BorrowedFd, name: &[u8]) -> io::Result<Vec<Xattr>> {
        match self.notes {
            Some(notes) => Ok(notes.xattrs(stat)),
            None => xattrs::read_at(dir, name),
        }
    }

    /// Returns the extended attributes of an open file, sorted by name.
    pub fn xattrs_of_open(&self, stat: &FileStat, file: &File) -> io::Result<Vec<Xattr>> {
        match self.notes {
            Some(notes) => Ok(notes.xattrs(stat)),
            None => xattrs::read_open(file),
        }
    }

    /// Returns the owners of this tree that may stand for any other.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn overflow(&self) -> Result<Overflow> {
        match self.notes {
            Some(_) => Ok(Overflow::default()),
            None => Overflow::of_this_process(),
        }
    }

    /// Tells whether everything is noted, so that the kernel hides nothing.
    pub fn is_noted(&self) -> bool {
        self.notes.is_some()
    }
}

/// What was noted of the inodes of one tree. Equal attributes are kept once.
#[derive(Default)]
pub struct Notes {
    inodes: HashMap<(u64, u64), Note>,
    sets: HashSet<Arc<[Xattr]>>,
    set_bytes: usize,
}

struct Note {
    meta: Meta,
    xattrs: Arc<[Xattr]>,
}

impl Notes {
    /// Notes what an inode should be; forgets what was noted before.
    pub fn note(&mut self, stat: &FileStat, meta: Meta, mut attributes: Vec<Xattr>) {
        attributes.sort_unstable();
        let xattrs = match self.sets.get(&attributes[..]) {
            Some(known) => Arc::clone(known),
            None => {
                let bytes = attributes.iter().map(|x| x.name.len() + x.value.len());
                self.set_bytes += bytes.sum::<usize>();
                let new: Arc<[Xattr]> = attributes.into();
                self.sets.insert(Arc::clone(&new));
                new
            }
        };
        let inode = (stat.st_dev, stat.st_ino);
        self.inodes.insert(inode, Note { meta, xattrs });
    }

    /// Forgets an inode that goes: another may get its number.
    pub fn forget(&mut self, stat: &FileStat) {
        self.inodes.remove(&(stat.st_dev, stat.st_ino));
    }

    /// Returns how many bytes all the attributes take.
    pub fn attribute_bytes(&self) -> usize {
        self.set_bytes
    }

    /// Returns what was noted of an inode. A directory of which nothing was
    /// said is as it is usually made, and has no time.
    fn meta(&self, stat: &FileStat) -> Meta {
        let usual = Meta {
            kind: Kind::Dir,
            mode: 0o755,
            ..Meta::default()
        };
        self.find(stat).map_or(usual, |note| note.meta)
    }

    fn xattrs(&self, stat: &FileStat) -> Vec<Xattr> {
        let note = self.find(stat);
        note.map_or_else(Vec::new, |note| note.xattrs.to_vec())
    }

    fn find(&self, stat: &FileStat) -> Option<&Note> {
        self.inodes.get(&(stat.st_dev, stat.st_ino))
    }
}
