//! The tar stream of a tree, member by member, digested on the way.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use anyhow::{Context, Result};
use nix::fcntl::{AtFlags, readlinkat};
use nix::sys::stat::{FileStat, fstat, fstatat};

use super::chunks::ChunkWriter;
use super::group::Group;
use super::likeness::Likeness;
use super::spill::Spill;
use crate::archive::block::{BLOCK, END, padding};
use crate::archive::proof::check_readable;
use crate::archive::write::NewMember;
use crate::bundle::format::files::{FileLine, FilesWriter};
use crate::bundle::format::manifest::TreeSummary;
use crate::refuse;
use crate::sha::Sha;
use crate::tree::attributes::Tree;
use crate::tree::content::ContentHasher;
use crate::tree::digest::{InodeHasher, TreeSum};
use crate::tree::dirs::{Dirs, Missing};
use crate::tree::holes::{Extent, data_extents};
use crate::tree::meta::{Kind, Meta, Mtime};
use crate::tree::owners;
use crate::tree::path::{show, split};
use crate::tree::unsteady::{self, Unsteady, check_same};
use crate::tree::walk::{OPEN_DIRS, open_file};

/// What a file's data is rounded up to in a slot.
const SLOT_BLOCK: u64 = 4096;
const NO_FOLLOW: AtFlags = AtFlags::AT_SYMLINK_NOFOLLOW;

/// Writes the tar stream.
pub struct Emitter<'a, 'b> {
    tree: Tree<'a>,
    dirs: Dirs,
    /// The latest time that is written.
    clamp: Option<Mtime>,
    chunks: &'a mut ChunkWriter<'b>,
    header: Vec<u8>,
    sum: TreeSum,
    data_bytes: u64,
    /// Digests of inodes with several names.
    linked: HashMap<(u64, u64), Sha>,
    files: FilesWriter,
    /// The directories that come early and again; they are listed once.
    early: HashSet<Box<[u8]>>,
}

impl<'a, 'b> Emitter<'a, 'b> {
    /// Writes what it reads of `tree` to `chunks`, times after the second
    /// `clamp` as that.
    pub fn new(
        tree: Tree<'a>,
        clamp: Option<i64>,
        chunks: &'a mut ChunkWriter<'b>,
    ) -> Result<Emitter<'a, 'b>> {
        Ok(Emitter {
            tree,
            dirs: Dirs::new(tree.root, OPEN_DIRS, Missing::Fail)?,
            clamp: clamp.map(Mtime::of_second),
            chunks,
            header: Vec::new(),
            sum: TreeSum::default(),
            data_bytes: 0,
            linked: HashMap::new(),
            files: FilesWriter::new()?,
            early: HashSet::new(),
        })
    }

    /// Writes all members, group by group, and the end of the archive.
    ///
    /// # Errors
    /// When the tree cannot be read. Class `Refused` when it changes meanwhile.
    pub fn emit(&mut self, spills: Vec<Spill>, likeness: &mut Likeness) -> Result<()> {
        self.groups(spills, likeness).map_err(unsteady::refuse)?;
        self.chunks.write(&END)
    }

    fn groups(&mut self, spills: Vec<Spill>, likeness: &mut Likeness) -> Result<()> {
        for (group, spill) in Group::ALL.into_iter().zip(spills) {
            self.chunks.begin_group(group)?;
            let counted = self.sum;
            spill.drain(likeness, &mut |path, first_name| {
                if group == Group::EarlyDirs {
                    self.early.insert(path.into());
                }
                let is_listed = group != Group::Dirs || !self.early.contains(path);
                let line = self
                    .entry(path, first_name)
                    .map_err(unsteady::explain)
                    .with_context(|| format!("reading {}", show(path)))?;
                match is_listed {
                    true => self.files.add(&line),
                    false => Ok(()),
                }
            })?;
            if group == Group::EarlyDirs {
                // They come again and count then.
                self.sum = counted;
            }
        }
        Ok(())
    }

    /// Writes a member; returns what is listed of it.
    fn entry(&mut self, path: &[u8], first_name: &[u8]) -> Result<FileLine> {
        let (dir, name) = split(path);
        let dir = self.dirs.get(dir)?;
        let name = OsStr::from_bytes(if name.is_empty() { b"." } else { name });
        let stat = fstatat(dir.as_fd(), name, NO_FOLLOW)?;
        let mut meta = self.tree.meta(&stat).ok_or(Unsteady::Changed)?;
        if let Some(clamp) = self.clamp {
            meta.mtime = meta.mtime.min(clamp);
        }
        let member = NewMember {
            path,
            meta: &meta,
            link_end: first_name,
            is_hard_link: !first_name.is_empty(),
            xattrs: &[],
            extents: &[],
        };
        if member.is_hard_link {
            self.write_header(&member)?;
            let inode = (stat.st_dev, stat.st_ino);
            let digest = self.linked.get(&inode).ok_or(Unsteady::Changed)?;
            self.sum.add(path, digest);
            return Ok(FileLine::new(path, &meta, true, first_name, None));
        }
        let (hasher, line) = match meta.kind {
            Kind::File => {
                let file = open_file(&dir, name)?;
                check_same(&stat, &fstat(&file)?)?;
                let (hasher, content) = self.file(path, &file, &stat, &meta)?;
                let line = FileLine::new(path, &meta, false, b"", content);
                (hasher, line)
            }
            kind => {
                let link_end = match kind {
                    Kind::Symlink => readlinkat(dir.as_fd(), name)?.into_vec(),
                    _ => Vec::new(),
                };
                let xattrs = self.tree.xattrs(&stat, dir.as_fd(), name.as_bytes())?;
                check_same(&stat, &fstatat(dir.as_fd(), name, NO_FOLLOW)?)?;
                self.write_header(&NewMember {
                    link_end: &link_end,
                    xattrs: &xattrs,
                    ..member
                })?;
                let line = FileLine::new(path, &meta, false, &link_end, None);
                (InodeHasher::new(&meta, &xattrs, &link_end), line)
            }
        };
        let digest = hasher.finish();
        self.sum.add(path, &digest);
        self.sum.inodes += 1;
        if stat.st_nlink > 1 && meta.kind != Kind::Dir {
            self.linked.insert((stat.st_dev, stat.st_ino), digest);
        }
        Ok(line)
    }

    fn file(
        &mut self,
        path: &[u8],
        file: &File,
        stat: &FileStat,
        meta: &Meta,
    ) -> Result<(InodeHasher, Option<Sha>)> {
        let xattrs = self.tree.xattrs_of_open(stat, file)?;
        let extents = data_extents(file, stat)?;
        self.write_header(&NewMember {
            path,
            meta,
            link_end: b"",
            is_hard_link: false,
            xattrs: &xattrs,
            extents: &extents,
        })?;
        let mut hasher = InodeHasher::new(meta, &xattrs, b"");
        let mut content = ContentHasher::new(meta.size_bytes);
        let mut at = 0;
        for extent in &extents {
            hasher.hole(extent.offset - at);
            at = extent.offset;
            let mut look = |data: &[u8]| {
                hasher.data(data);
                content.data(at, data);
                at += data.len() as u64;
            };
            self.chunks
                .write_file(file, extent.offset, extent.length, &mut look)?;
        }
        check_same(stat, &fstat(file)?)?;
        hasher.hole(meta.size_bytes - at);
        let stored: u64 = extents.iter().map(|e: &Extent| e.length).sum();
        self.chunks.write(&END[..padding(stored)])?;
        self.data_bytes += stored.next_multiple_of(SLOT_BLOCK);
        Ok((hasher, content.finish()))
    }

    fn write_header(&mut self, member: &NewMember) -> Result<()> {
        self.header.clear();
        owners::check_acls(member.xattrs)?;
        member.write(&mut self.header);
        if let Err(error) = check_readable(member, &self.header) {
            refuse!("it could not be unpacked again: {error:#}; change or exclude it");
        }
        let data: u64 = member.extents.iter().map(|e| e.length).sum();
        let bytes = self.header.len() as u64 + data.next_multiple_of(BLOCK as u64);
        self.chunks.begin_member(member.path, bytes)?;
        self.chunks.write(&self.header)
    }

    /// Returns what the tree amounts to, and the member that lists its files.
    ///
    /// # Errors
    /// When the list cannot be packed.
    pub fn finish(self) -> Result<(TreeSummary, Vec<u8>)> {
        let summary = TreeSummary {
            entries: self.sum.entries,
            inodes: self.sum.inodes,
            data_bytes: self.data_bytes,
            digest: self.sum.finish(),
        };
        Ok((summary, self.files.finish()?))
    }
}
