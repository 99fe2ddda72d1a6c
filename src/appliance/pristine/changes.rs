//! What was changed in a tree since it was delivered.
//!
//! Trees are compared, not lists: a directory that somebody made hides nothing of
//! what is in it.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::fcntl::readlinkat;
use serde::Serialize;

use super::record::{Delivered, Pristine};
use crate::tree::glob::Glob;
use crate::tree::meta::{Kind, Meta};
use crate::tree::walk::{Found, is_hollow, open_file, walk, walk_running};
use crate::tree::xattrs::{self, SELINUX, Xattr};

/// How a path differs from what was delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum What {
    /// It was not delivered.
    Added,
    /// Its content, kind, mode, owner or attributes are others.
    Changed,
    /// It is gone.
    Deleted,
}

/// A path that is not as it was delivered.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Change {
    /// The path, relative to the root.
    pub path: PathBuf,
    /// How it differs.
    pub what: What,
}

/// Lists what differs, by path; `ignored` and what is below it is not looked at.
///
/// Of a system that never came from a bundle, only what packages do not own, and
/// their configuration files, are looked at.
///
/// # Errors
/// When the tree cannot be read.
pub fn changes(pristine: &Pristine, root: &Path, ignored: &[Glob]) -> Result<Vec<Change>> {
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    walk_running(root, ignored, &mut |entry| {
        if entry.path.is_empty() {
            return Ok(());
        }
        seen.insert(entry.path.to_vec());
        let what = compare(pristine, root, entry)?;
        found.extend(what.map(|what| Change {
            path: path(entry.path),
            what,
        }));
        Ok(())
    })?;
    let is_ignored = |path: &[u8]| {
        let parts = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        let mut above = parts.map(|(at, _)| &path[..at]).chain([path]);
        above.any(|path| ignored.iter().any(|glob| glob.matches(path)))
    };
    for delivered in delivered(pristine)? {
        let is_there = seen.contains(&delivered);
        if !is_there && !is_hollow(&path(&delivered)) && !is_ignored(&delivered) {
            found.push(Change {
                path: path(&delivered),
                what: What::Deleted,
            });
        }
    }
    found.sort();
    Ok(found)
}

fn path(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(bytes))
}

/// Lists every path that was delivered.
fn delivered(pristine: &Pristine) -> Result<BTreeSet<Vec<u8>>> {
    let mut all: BTreeSet<Vec<u8>> = pristine
        .list
        .keys()
        .filter(|path| !path.is_empty())
        .cloned()
        .collect();
    let Some(etc) = &pristine.etc else {
        return Ok(all);
    };
    all.retain(|path| !path.starts_with(b"etc/"));
    walk(etc, &[], &mut |entry| {
        if !entry.path.is_empty() {
            all.insert([b"etc/", entry.path].concat());
        }
        Ok(())
    })?;
    Ok(all)
}

fn compare(pristine: &Pristine, root: &Path, entry: &Found) -> Result<Option<What>> {
    let path = path(entry.path);
    if let Some(copy) = pristine.in_etc(&path) {
        return match copy.symlink_metadata() {
            Err(_) => Ok(Some(What::Added)),
            Ok(_) if is_copy(entry, &root.join(&path), &copy)? => Ok(None),
            Ok(_) => Ok(Some(What::Changed)),
        };
    }
    let Some(delivered) = pristine.list.get(entry.path) else {
        return Ok(Some(What::Added));
    };
    let is_same = is_as_delivered(pristine, entry, &root.join(&path), delivered)?;
    Ok((!is_same).then_some(What::Changed))
}

/// Tells whether an entry of `/etc` is what its copy is.
fn is_copy(entry: &Found, path: &Path, copy: &Path) -> Result<bool> {
    let stat =
        nix::sys::stat::lstat(copy).with_context(|| format!("reading {}", copy.display()))?;
    let Some(of_copy) = Meta::from_stat(&stat) else {
        return Ok(false);
    };
    let same_meta = |a: &Meta, b: &Meta| {
        let all = |meta: &Meta| (meta.kind, meta.mode, meta.uid, meta.gid, meta.device);
        all(a) == all(b) && (a.kind != Kind::File || a.size_bytes == b.size_bytes)
    };
    if !same_meta(&entry.meta, &of_copy) {
        return Ok(false);
    }
    match entry.meta.kind {
        Kind::Symlink => return Ok(fs::read_link(path)? == fs::read_link(copy)?),
        Kind::File if !is_same_content(entry, copy)? => return Ok(false),
        _ => {}
    }
    let own = xattrs::read_at(entry.dir.as_fd(), entry.name.as_bytes())?;
    let parent = File::open(copy.parent().unwrap_or(copy))?;
    let name = copy.file_name().unwrap_or_default();
    let there = xattrs::read_at(parent.as_fd(), name.as_bytes())?;
    Ok(without_label(own) == without_label(there))
}

/// Leaves out the label, which is the target's own business.
fn without_label(mut attributes: Vec<Xattr>) -> Vec<Xattr> {
    attributes.retain(|attribute| attribute.name != SELINUX);
    attributes
}

fn is_same_content(entry: &Found, copy: &Path) -> Result<bool> {
    let mut a = BufReader::new(open_file(entry.dir, entry.name)?);
    let mut b = BufReader::new(File::open(copy)?);
    let (mut left, mut right) = (vec![0; 16 << 10], vec![0; 16 << 10]);
    loop {
        let n = a.read(&mut left)?;
        if n == 0 {
            return Ok(b.read(&mut right)? == 0);
        }
        if b.read_exact(&mut right[..n]).is_err() || left[..n] != right[..n] {
            return Ok(false);
        }
    }
}

/// Compares an entry with what the list tells of it.
fn is_as_delivered(
    pristine: &Pristine,
    entry: &Found,
    path: &Path,
    delivered: &Delivered,
) -> Result<bool> {
    // The kernel sets this time, and no program sets it back.
    let changed = (entry.stat.st_ctime, entry.stat.st_ctime_nsec);
    if pristine.written.is_some_and(|written| written.has(changed)) {
        return Ok(true);
    }
    let meta = &entry.meta;
    let is_other = |told: Option<bool>| told == Some(false);
    let kind = delivered.kind.as_ref().map(|kind| kind == meta.kind.name());
    let mode = delivered.mode.map(|mode| mode == meta.mode);
    let owner = delivered.owner.map(|owner| owner == (meta.uid, meta.gid));
    let size = delivered.size_bytes.map(|size| size == meta.size_bytes);
    if [
        kind,
        mode.filter(|_| meta.kind != Kind::Symlink),
        owner,
        size,
    ]
    .into_iter()
    .any(is_other)
    {
        return Ok(false);
    }
    match (&delivered.link_end, delivered.sum) {
        (Some(end), _) if meta.kind == Kind::Symlink => {
            Ok(readlinkat(entry.dir, entry.name)?.into_vec() == *end)
        }
        (_, Some(sum)) if meta.kind == Kind::File => sum.is_of(path),
        _ => Ok(true),
    }
}
