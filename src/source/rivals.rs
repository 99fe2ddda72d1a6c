//! Whether the root that was found is the one the machine runs: what its own
//! fstab says of it, and what else may be a root.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::disks::Disks;
use super::naming;
use super::root::Found;
use super::volume::Volume;
use crate::linux::fstab::Line;
use crate::refuse;
use crate::tree::resolve;

/// A longer table of encrypted volumes than a system has.
const MAX_CRYPTTAB_BYTES: u64 = 64 << 10;

impl Disks<'_, '_> {
    /// Compares what was found with what the root's own fstab says of it.
    ///
    /// # Errors
    /// Class `Refused` when that is another volume.
    pub fn check_root(&self, root: &Volume, lines: &[Line]) -> Result<()> {
        let own = lines
            .iter()
            .filter(|line| line.mount_point == Path::new("/") && line.is_on_disk())
            .find(|line| !self.is_named(root, &line.source));
        let Some(line) = own else {
            return Ok(());
        };
        let (shown, named) = (self.source.display(), self.volume_of(line));
        let is_elsewhere = named.is_some() || naming::is_on_another_disk(&line.source, root);
        let what = match named {
            Some(other) => format!("{} ({})", line.source, other.name),
            None => format!("{}, which is not in the image", line.source),
        };
        if is_elsewhere && self.options.root.is_none() {
            refuse!(
                "the root file system found in {shown} is {}, but its fstab mounts {what} on /; \
                 give all disks of the VM in their order, or choose a root with --root",
                root.name
            );
        }
        self.progress
            .note(&format!("the root's own fstab mounts {what} on /"));
        Ok(())
    }

    /// Makes sure that nothing that could not be opened may be the real root.
    /// What the root in `tree` mounts elsewhere is none.
    ///
    /// # Errors
    /// Class `Refused`, naming both.
    pub fn check_rivals(&self, found: &Found<'_>, lines: &[Line], tree: &Path) -> Result<()> {
        let encrypted = read_crypttab(tree)?;
        let has_a_place = |volume: &Volume| {
            let by_fstab = lines
                .iter()
                .filter(|line| line.mount_point != Path::new("/"))
                .any(|line| self.is_named(volume, &line.source));
            by_fstab || encrypted.iter().any(|spec| self.is_named(volume, spec))
        };
        let rival = found
            .unopened
            .iter()
            .find(|(volume, _)| !has_a_place(volume));
        let Some((rival, reason)) = rival else {
            return Ok(());
        };
        refuse!(
            "{} holds a root file system on {}, but {} may hold the one in use and cannot be \
             opened: {reason}; or choose with --root",
            self.source.display(),
            found.root.name,
            rival.name
        )
    }
}

/// Returns the devices that the system's crypttab names.
fn read_crypttab(tree: &Path) -> Result<Vec<String>> {
    let found =
        resolve::resolve(tree, Path::new("etc/crypttab")).context("looking up /etc/crypttab")?;
    let Some(file) = found.map(|path| tree.join(path)) else {
        return Ok(Vec::new());
    };
    let meta = fs::metadata(&file).context("looking at the image's /etc/crypttab")?;
    if !meta.is_file() || meta.len() > MAX_CRYPTTAB_BYTES {
        return Ok(Vec::new());
    }
    let bytes = fs::read(&file).context("reading the image's /etc/crypttab")?;
    let text = String::from_utf8_lossy(&bytes);
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let devices = lines.filter_map(|line| line.split_ascii_whitespace().nth(1));
    Ok(devices.map(str::to_owned).collect())
}
