//! The list of a tree's files, each under its group.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, Result};
use nix::unistd::geteuid;

use super::group::Group;
use super::release::Release;
use super::spill::Spill;
use crate::archive::block::BLOCK;
use crate::progress::Progress;
use crate::tree::acl;
use crate::tree::attributes::Tree;
use crate::tree::meta::Kind;
use crate::tree::path::show;
use crate::tree::unsteady;
use crate::tree::walk::{Found, LeftOut, walk};

/// A tree that has been listed.
pub struct Listing {
    /// The paths, by group.
    pub spills: Vec<Spill>,
    left_out: LeftOut,
    /// The kernel shows `trusted.*` only to root outside of user namespaces.
    hides_trusted: bool,
    /// Patterns that match nothing.
    idle_patterns: Vec<String>,
    /// About how long the tar stream will be.
    pub tar_bytes: u64,
}

/// Lists `tree` without what `release` excludes; the lists wait on
/// the file system of `out`.
///
/// # Errors
/// When a directory cannot be read. Class `Refused` when an owner cannot be
/// known.
pub fn list(tree: Tree<'_>, release: &Release, out: &Path) -> Result<Listing> {
    let mut spills = Vec::new();
    for group in Group::ALL {
        spills.push(Spill::new(out, group)?);
    }
    let mut first_names: HashMap<(u64, u64), Box<[u8]>> = HashMap::new();
    let mut tar_bytes = 0;
    let overflow = tree.overflow()?;
    let left_out = walk(tree, &release.globs()?, &mut |found: &Found| {
        // Nearly every entry has a pax header of two blocks before its own.
        tar_bytes += 3 * BLOCK as u64;
        overflow.check(&found.stat)?;
        if found.meta.kind == Kind::Dir && has_default_acl(&tree, found)? {
            spills[Group::EarlyDirs as usize].push(found.path, b"")?;
        }
        if found.links() > 1 {
            if let Some(first) = first_names.get(&found.inode()) {
                return spills[Group::Links as usize].push(found.path, first);
            }
            first_names.insert(found.inode(), found.path.into());
        }
        let stored = u64::try_from(found.stat.st_blocks).unwrap_or(0) * 512;
        let stored = stored.min(found.meta.size_bytes);
        tar_bytes += stored.next_multiple_of(BLOCK as u64);
        spills[Group::of(found)? as usize].push(found.path, b"")
    })
    .map_err(unsteady::refuse)
    .with_context(|| format!("listing {}", tree.root.display()))?;
    let pattern = |number: &usize| release.exclude[*number].clone();
    Ok(Listing {
        spills,
        hides_trusted: !tree.is_noted() && (overflow.is_in_namespace() || !geteuid().is_root()),
        idle_patterns: left_out.idle_patterns.iter().map(pattern).collect(),
        left_out,
        tar_bytes,
    })
}

fn has_default_acl(tree: &Tree<'_>, found: &Found) -> Result<bool> {
    let xattrs = tree.xattrs(&found.stat, found.dir.as_fd(), found.name.as_bytes())?;
    Ok(xattrs.iter().any(|x| x.name == acl::DEFAULT))
}

impl Listing {
    /// Tells what is not packed, and which patterns did nothing about that.
    pub fn tell_left_out(&self, progress: &dyn Progress) {
        if self.hides_trusted {
            progress.leave_out(
                "trusted.* attributes, if there are any: they cannot be seen in a user namespace \
                 or without root rights",
            );
        }
        for pattern in &self.idle_patterns {
            progress.warn(&format!(
                "exclude pattern {pattern:?} of release.yaml leaves out nothing"
            ));
        }
        for path in &self.left_out.swap_files {
            progress.leave_out(&format!("/{}: a swap file", show(path)));
        }
        if self.left_out.sockets > 0 {
            progress.leave_out(&format!("{} sockets", self.left_out.sockets));
        }
    }
}
