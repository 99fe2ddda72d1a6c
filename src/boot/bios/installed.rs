//! The GRUBs that are on `/boot`, and which of them the boot sector starts.
//!
//! Never remembered but looked up: each directory of ours holds a word for its
//! core ([`BootArea::current_core`]), and the one that sector 0 leads to is in use.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::area::BootArea;
use crate::paths::{BOOT, BOOT_DIR};
use crate::system::{System, files};

/// GRUB's directories of the installations before ours.
const FOREIGN_DIRS: [&str; 2] = ["grub", "grub2"];

/// The file in a GRUB directory of ours that says which core belongs to it.
pub const CORE_FILE: &str = "core";

/// Removes the directories of our GRUBs that LBA 0 does not start, and any
/// other half-made one.
///
/// # Errors
/// When one cannot be removed.
pub fn prune(sys: &dyn System, disk: &Path) -> Result<()> {
    let current = BootArea::look(&sys.at(disk))?.current_core()?;
    for dir in our_dirs(sys)? {
        if recorded_core(&dir).as_ref() != Some(&current) {
            files::remove_tree(&dir)?;
        }
    }
    Ok(())
}

/// Returns whether LBA 0 starts a GRUB of ours whose files are there.
///
/// # Errors
/// When the disk or `/boot` cannot be read.
pub fn is_ours(sys: &dyn System, disk: &Path) -> Result<bool> {
    let current = BootArea::look(&sys.at(disk))?.current_core()?;
    Ok(our_dirs(sys)?
        .iter()
        .any(|dir| recorded_core(dir).as_ref() == Some(&current)))
}

fn our_dirs(sys: &dyn System) -> Result<Vec<PathBuf>> {
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

/// Returns a directory name that the GRUB in use does not have.
pub fn new_dir(sys: &dyn System, current: &str) -> Result<PathBuf> {
    let used: Vec<PathBuf> = our_dirs(sys)?;
    let in_use = used
        .iter()
        .find(|dir| recorded_core(dir).as_deref() == Some(current));
    let name = |n: u32| sys.at(BOOT_DIR).join(format!("grub-{n}"));
    Ok(if in_use == Some(&name(1)) {
        name(2)
    } else {
        name(1)
    })
}

/// Returns the directories the GRUB started by LBA 0 may read.
pub fn dirs_in_use(sys: &dyn System, current: &str) -> Result<Vec<PathBuf>> {
    let ours = our_dirs(sys)?
        .into_iter()
        .find(|dir| recorded_core(dir).as_deref() == Some(current));
    if ours.is_some() {
        return Ok(ours.into_iter().collect());
    }
    let foreign = FOREIGN_DIRS.iter().map(|name| sys.at(BOOT).join(name));
    Ok(foreign.filter(|dir| dir.is_dir()).collect())
}
