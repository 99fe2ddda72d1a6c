//! What a package database tells of the files a system was made of.
//!
//! Which paths belong to packages, and the sums of their configuration files;
//! programs are not summed up, nobody would carry them over.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, Result};

use super::record::{Delivered, Pristine, Sum, of_hex};
use crate::packages::{dpkg, rpm};
use crate::system::System;
use crate::tree::resolve;

/// Reads the database of the running system, whose tree is at `root`; one that
/// has none was delivered with nothing.
pub fn read(sys: &dyn System, root: &Path) -> Result<Pristine> {
    let mut list: BTreeMap<Vec<u8>, Delivered> = BTreeMap::new();
    let merged = merged_dirs(root);
    let mut own = |path: &str, sum: Option<Sum>| {
        let path = path.trim_matches('/');
        let first = path.split('/').next().unwrap_or_default();
        let is_merged = merged.contains(&first) && path != first;
        let path = if is_merged {
            format!("usr/{path}")
        } else {
            path.to_owned()
        };
        let entry = list.entry(path.into_bytes()).or_default();
        entry.sum = sum.or(entry.sum);
    };
    if let Some(texts) = dpkg_texts(root)? {
        for path in texts.owned.lines() {
            own(path, None);
        }
        for (path, md5) in dpkg::conffiles(&texts.status) {
            own(&path, md5_of(&md5));
        }
    }
    for dir in rpm::DIRS {
        let dir = root.join(OsStr::from_bytes(dir));
        let is_database = |name: &&str| dir.join(name).exists();
        if !["rpmdb.sqlite", "Packages", "Packages.db"]
            .iter()
            .any(is_database)
        {
            continue;
        }
        for path in rpm::owned(sys, &dir)? {
            own(&path, None);
        }
        for (path, sum) in rpm::configuration(sys, &dir)? {
            own(
                &path,
                sum.parse().ok().map(Sum::Sha).or_else(|| md5_of(&sum)),
            );
        }
    }
    add_parents(&mut list);
    Ok(Pristine {
        list,
        etc: None,
        written: None,
    })
}

/// Lists the directories of the root that are links into `/usr`; packages may own
/// files by either name.
fn merged_dirs(root: &Path) -> Vec<&'static str> {
    let mut dirs = vec!["bin", "sbin", "lib", "lib32", "lib64", "libx32"];
    dirs.retain(|dir| root.join(dir).is_symlink());
    dirs
}

/// Packages need not own the directories their files are in.
fn add_parents(list: &mut BTreeMap<Vec<u8>, Delivered>) {
    let paths: Vec<Vec<u8>> = list.keys().cloned().collect();
    for path in paths {
        for (at, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
            list.entry(path[..at].to_vec()).or_default();
        }
    }
}

struct DpkgTexts {
    status: String,
    owned: String,
}

fn dpkg_texts(root: &Path) -> Result<Option<DpkgTexts>> {
    let dir = Path::new(OsStr::from_bytes(dpkg::DIR));
    let Some(dir) = resolve::resolve(root, dir)?.map(|dir| root.join(dir)) else {
        return Ok(None);
    };
    let text = |path: &Path| -> Result<String> {
        let bytes = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let status = dir.join("status");
    if !status.is_file() {
        return Ok(None);
    }
    let mut owned = String::new();
    let info = dir.join("info");
    for entry in fs::read_dir(&info).with_context(|| format!("listing {}", info.display()))? {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "list")
        {
            owned += &text(&path)?;
            owned.push('\n');
        }
    }
    Ok(Some(DpkgTexts {
        status: text(&status)?,
        owned,
    }))
}

fn md5_of(hex: &str) -> Option<Sum> {
    let bytes = of_hex(Some(hex).filter(|hex| hex.is_ascii()), None)?;
    Some(Sum::Md5(bytes.try_into().ok()?))
}
