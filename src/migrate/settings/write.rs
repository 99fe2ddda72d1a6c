//! The archive as it is written: a pax tar of files of a system that runs.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use nix::fcntl::{AtFlags, readlinkat};
use nix::sys::stat::{FileStat, fstat, fstatat};

use super::select::MAX_CONTENT_BYTES;
use crate::archive::block::{END, padding};
use crate::archive::proof::check_readable;
use crate::archive::write::NewMember;
use crate::signals;
use crate::tree::dirs::{Dirs, Missing};
use crate::tree::holes::Extent;
use crate::tree::meta::{Kind, Meta};
use crate::tree::path::{show, split};
use crate::tree::unsteady::{self, Unsteady, check_same};
use crate::tree::walk::{OPEN_DIRS, open_file};
use crate::tree::xattrs::{self, Xattr};

/// How often a file that changes while it is read is read again. What never holds
/// still is taken as the last reading found it.
const READINGS: u32 = 5;

/// A tar on the way.
pub struct Archive<'a> {
    out: BufWriter<&'a mut File>,
    room: u64,
}

impl<'a> Archive<'a> {
    /// Writes to `out`.
    pub fn new(out: &'a mut File) -> Archive<'a> {
        Archive {
            out: BufWriter::new(out),
            room: MAX_CONTENT_BYTES,
        }
    }

    /// Adds `paths` of the tree at `root`. What has gone meanwhile is passed over.
    ///
    /// # Errors
    /// When something cannot be read or written, or is more than an archive holds.
    pub fn add(&mut self, root: &Path, paths: &BTreeSet<Vec<u8>>) -> Result<()> {
        let mut dirs = Dirs::new(root, OPEN_DIRS, Missing::Fail)?;
        for path in paths {
            signals::check()?;
            let added = self.add_one(&mut dirs, path).map_err(unsteady::explain);
            match added {
                Err(error) if error.downcast_ref() == Some(&Unsteady::Vanished) => {}
                other => other.with_context(|| format!("reading {}", show(path)))?,
            }
        }
        Ok(())
    }

    /// Ends the archive.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(mut self) -> Result<()> {
        let ended = self.out.write_all(&END);
        ended
            .and_then(|()| self.out.flush())
            .context("writing the archive")
    }

    fn add_one(&mut self, dirs: &mut Dirs, path: &[u8]) -> Result<()> {
        let (parent, name) = split(path);
        let dir = dirs.get(parent)?;
        let name = OsStr::from_bytes(name);
        let stat = fstatat(dir.as_fd(), name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        let Some(mut meta) = Meta::from_stat(&stat) else {
            return Ok(());
        };
        let attributes = xattrs::read_at(dir.as_fd(), name.as_bytes())?;
        match meta.kind {
            Kind::Dir => self.member(path, &meta, b"", &attributes, &[]),
            Kind::Symlink => {
                let end = readlinkat(dir.as_fd(), name)?.into_vec();
                self.member(path, &meta, &end, &attributes, &[])
            }
            Kind::File => {
                let content = self.content(&dir, name, &stat)?;
                meta.size_bytes = content.len() as u64;
                self.room -= meta.size_bytes;
                self.member(path, &meta, b"", &attributes, &content)
            }
            // Only what runs makes sense of these.
            Kind::Char | Kind::Block | Kind::Fifo => Ok(()),
        }
    }

    fn content(&self, dir: &OwnedFd, name: &OsStr, stat: &FileStat) -> Result<Vec<u8>> {
        let mut before = *stat;
        let mut readings = 0;
        loop {
            let file = open_file(dir, name)?;
            let mut content = Vec::new();
            (&file).take(self.room + 1).read_to_end(&mut content)?;
            ensure!(
                content.len() as u64 <= self.room,
                "it grew meanwhile, and is more than can be carried over"
            );
            let after = fstat(&file)?;
            readings += 1;
            if check_same(&before, &after).is_ok() || readings == READINGS {
                return Ok(content);
            }
            before = after;
        }
    }

    fn member(
        &mut self,
        path: &[u8],
        meta: &Meta,
        link_end: &[u8],
        attributes: &[Xattr],
        content: &[u8],
    ) -> Result<()> {
        let whole = [Extent {
            offset: 0,
            length: content.len() as u64,
        }];
        let member = NewMember {
            path,
            meta,
            link_end,
            is_hard_link: false,
            xattrs: attributes,
            extents: if content.is_empty() { &[] } else { &whole },
        };
        let mut header = Vec::new();
        member.write(&mut header);
        check_readable(&member, &header)?;
        let padding = &END[..padding(content.len() as u64)];
        for bytes in [&header, content, padding] {
            self.out.write_all(bytes).context("writing the archive")?;
        }
        Ok(())
    }
}
