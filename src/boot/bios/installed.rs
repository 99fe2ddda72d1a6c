//! The GRUBs that are on `/boot`, and which of them the boot sector starts.
//!
//! Never remembered but looked up: each directory of ours holds a word for its
//! core ([`BootArea::current_core`]) and the core itself; the one that sector 0
//! leads to by either is in use.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;

use super::area::BootArea;
use crate::paths::{BOOT, BOOT_DIR};
use crate::system::{System, files};

/// What GRUB calls its directory, by family; on `/boot` itself those of the
/// installations before ours.
pub(super) const GRUB_DIRS: [&str; 2] = ["grub", "grub2"];

/// The file in a GRUB directory of ours that says which core belongs to it.
pub const CORE_FILE: &str = "core";

/// Two are in use at most; more are left over where nobody knows which one is.
const MAX_DIRS: u32 = 5;

/// What became of the directories of GRUBs that are not in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pruned {
    /// They are gone.
    Done,
    /// None was removed, since none is known to be the one in use.
    Unsure,
}

/// Whose GRUB the boot sector starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Owner {
    /// Ours, whose files are there.
    Ours,
    /// Another one, which does not read our boot state.
    Other,
    /// It could be ours, with damaged files.
    Unknown,
}

/// The GRUB that LBA 0 starts.
enum InUse {
    /// Ours, in this directory.
    Ours(PathBuf),
    /// None of ours.
    Foreign,
    /// It could be ours, with damaged files.
    Unknown,
}

impl InUse {
    fn look(sys: &dyn System, area: &BootArea) -> Result<InUse> {
        let current = area.current_core()?;
        let dirs = our_dirs(sys)?;
        let is_noted = |dir: &&PathBuf| recorded_core(dir).as_ref() == Some(&current);
        if let Some(dir) = dirs.iter().find(is_noted) {
            return Ok(InUse::Ours(dir.clone()));
        }
        for dir in &dirs {
            if starts_core_of(area, dir)? {
                return Ok(InUse::Ours(dir.clone()));
            }
        }
        if dirs.is_empty() || !area.has_core()? {
            return Ok(InUse::Foreign);
        }
        // A directory of the installations before ours is its own GRUB's.
        let is_foreign = starts_core_of(area, &sys.at(BOOT))?;
        Ok(match is_foreign {
            true => InUse::Foreign,
            false => InUse::Unknown,
        })
    }
}

/// Tells whether LBA 0 starts the core that a GRUB below `dir` was installed with.
fn starts_core_of(area: &BootArea, dir: &Path) -> Result<bool> {
    for name in GRUB_DIRS {
        if let Ok(core) = fs::read(dir.join(name).join("i386-pc/core.img"))
            && area.starts(&core)?
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Removes the directories of our GRUBs that LBA 0 does not start, and any
/// other half-made one; where it may be any of them, none is removed.
///
/// # Errors
/// When one cannot be removed.
pub fn prune(sys: &dyn System, disk: &Path) -> Result<Pruned> {
    let area = BootArea::look(&sys.at(disk))?;
    let kept = match InUse::look(sys, &area)? {
        InUse::Ours(dir) => Some(dir),
        InUse::Foreign => None,
        InUse::Unknown => return Ok(Pruned::Unsure),
    };
    for dir in our_dirs(sys)? {
        if kept.as_ref() != Some(&dir) {
            files::remove_tree(&dir)?;
        }
    }
    Ok(Pruned::Done)
}

/// Returns whose GRUB LBA 0 starts.
///
/// # Errors
/// When the disk or `/boot` cannot be read.
pub fn owner(sys: &dyn System, disk: &Path) -> Result<Owner> {
    let area = BootArea::look(&sys.at(disk))?;
    Ok(match InUse::look(sys, &area)? {
        InUse::Ours(_) => Owner::Ours,
        InUse::Foreign => Owner::Other,
        InUse::Unknown => Owner::Unknown,
    })
}

/// Lists the directories of our GRUBs, half-made ones too.
pub(super) fn our_dirs(sys: &dyn System) -> Result<Vec<PathBuf>> {
    let boot_dir = sys.at(BOOT_DIR);
    if !boot_dir.exists() {
        return Ok(Vec::new());
    }
    let listed =
        fs::read_dir(&boot_dir).with_context(|| format!("listing {}", boot_dir.display()))?;
    let mut dirs = Vec::new();
    for entry in listed {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("grub-") {
            dirs.push(entry.path());
        }
    }
    dirs.sort();
    Ok(dirs)
}

/// Returns the core that belongs to the GRUB in `dir`, as it was written down.
fn recorded_core(dir: &Path) -> Option<String> {
    let text = fs::read_to_string(dir.join(CORE_FILE)).ok()?;
    Some(text.trim().to_owned())
}

/// Returns a directory name that no GRUB has.
///
/// # Errors
/// When there are more of them than ever come together.
pub fn new_dir(sys: &dyn System) -> Result<PathBuf> {
    let boot_dir = sys.at(BOOT_DIR);
    (1..=MAX_DIRS)
        .map(|n| boot_dir.join(format!("grub-{n}")))
        .find(|dir| dir.symlink_metadata().is_err())
        .with_context(|| {
            format!(
                "{} holds {MAX_DIRS} GRUBs, none of which belongs to the boot sector; run \
                 `va-upgrade status`, and ask support for help",
                boot_dir.display()
            )
        })
}

/// Returns the directories the GRUB started by LBA 0 may read.
///
/// # Errors
/// When the disk or `/boot` cannot be read.
pub fn dirs_in_use(sys: &dyn System, area: &BootArea) -> Result<Vec<PathBuf>> {
    let foreign = || {
        let dirs = GRUB_DIRS.iter().map(|name| sys.at(BOOT).join(name));
        dirs.filter(|dir| dir.is_dir()).collect()
    };
    Ok(match InUse::look(sys, area)? {
        InUse::Ours(dir) => vec![dir],
        InUse::Foreign => foreign(),
        InUse::Unknown => {
            let mut dirs: Vec<PathBuf> = foreign();
            dirs.extend(our_dirs(sys)?.into_iter().filter(|dir| dir.is_dir()));
            dirs
        }
    })
}
