//! A source that is a directory: a tree as it is, or a mounted root.
//!
//! A mounted root may have the customer's volumes and the kernel's own file
//! systems mounted below it; the tree is then put together again without them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::opened::{Opened, SourceOptions, drop_in_reverse};
use super::place;
use crate::linux::device_mapper;
use crate::linux::fstab::{Owner, is_virtual};
use crate::linux::mountinfo;
use crate::progress::Progress;
use crate::refuse;
use crate::system::{Mount, Mounted, System};

/// Opens the tree in the directory `dir`.
///
/// # Errors
/// Class `Refused` when the directory is empty.
pub fn open<'a>(
    sys: &'a dyn System,
    dir: &Path,
    options: &SourceOptions,
    progress: &dyn Progress,
) -> Result<Opened<'a>> {
    let mut entries = fs::read_dir(dir).with_context(|| format!("listing {}", dir.display()))?;
    if entries.next().is_none() {
        refuse!(
            "{} is an empty directory; is its file system mounted?",
            dir.display()
        );
    }
    let below = list_below(dir)?;
    if below.is_empty() {
        return Ok(Opened {
            root: dir.to_owned(),
            mounts: Vec::new(),
            _disks: Vec::new(),
            unpacked: None,
        });
    }
    let mut mounts = Vec::new();
    match rebuild(sys, dir, &below, options, progress, &mut mounts) {
        Ok(root) => Ok(Opened {
            root,
            mounts,
            _disks: Vec::new(),
            unpacked: None,
        }),
        Err(error) => {
            drop_in_reverse(&mut mounts);
            Err(error)
        }
    }
}

/// Tells whether anything is mounted below the directory `dir`.
///
/// # Errors
/// When the kernel does not say.
pub fn has_mounts(dir: &Path) -> Result<bool> {
    Ok(!list_below(dir)?.is_empty())
}

fn list_below(dir: &Path) -> Result<Vec<Below>> {
    let table = fs::read_to_string("/proc/thread-self/mountinfo")
        .or_else(|_| fs::read_to_string("/proc/self/mountinfo"))
        .context("reading the list of mounts")?;
    Ok(mounts_below(&table, dir))
}

/// Binds `dir` and what belongs to the system below it to a place of its own.
fn rebuild<'a>(
    sys: &'a dyn System,
    dir: &Path,
    below: &[Below],
    options: &SourceOptions,
    progress: &dyn Progress,
    mounts: &mut Vec<Mounted<'a>>,
) -> Result<PathBuf> {
    let place = place::make(sys, dir, options)?;
    let tree = place.path().join("tree");
    mounts.push(place);
    mounts.push(Mounted::new(sys, &Mount::bind(dir, &tree))?);
    for mount in below {
        let path = Path::new("/").join(&mount.path);
        if is_virtual(&mount.kind) {
            continue;
        }
        if Owner::of(&path) == Owner::Customer || mount.is_data(&options.data_volumes) {
            progress.leave_out(&format!(
                "{} ({}): not a part of the system",
                path.display(),
                mount.source
            ));
            continue;
        }
        let bind = Mount::bind(&dir.join(&mount.path), &tree.join(&mount.path));
        mounts.push(Mounted::new(sys, &bind)?);
    }
    Ok(tree)
}

/// Something mounted below the directory.
#[derive(Debug, PartialEq, Eq)]
struct Below {
    /// Relative to the directory.
    path: PathBuf,
    kind: String,
    source: String,
}

impl Below {
    /// Tells whether it is one of the logical volumes `names`.
    fn is_data(&self, names: &[String]) -> bool {
        names
            .iter()
            .any(|name| device_mapper::is_called(&self.source, name))
    }
}

/// Reads `/proc/self/mountinfo`, in the order things were mounted.
fn mounts_below(table: &str, dir: &Path) -> Vec<Below> {
    mountinfo::parse(table)
        .into_iter()
        .filter_map(|mount| {
            let path = mount.mount_point.strip_prefix(dir).ok()?.to_owned();
            (!path.as_os_str().is_empty()).then_some(Below {
                path,
                kind: mount.fs_type,
                source: mount.source,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_mounted_below_the_directory_counts() {
        let table = "\
22 1 253:0 / / rw,relatime shared:1 - xfs /dev/mapper/VA-root rw\n\
30 22 253:0 / /x rw - ext4 /dev/sda9 rw\n\
31 22 8:2 / /x/my\\040root/boot rw - ext4 /dev/sda2 rw\n\
32 22 0:4 / /x/my\\040root/proc rw shared:5 - proc proc rw\n\
33 22 253:3 / /x/my\\040root/var/data rw - ext4 /dev/mapper/VA-data rw\n";
        let below = mounts_below(table, Path::new("/x/my root"));
        let shown: Vec<(&str, &str, bool)> = below
            .iter()
            .map(|mount| {
                let data = mount.is_data(&["data".into()]);
                (mount.path.to_str().unwrap(), mount.kind.as_str(), data)
            })
            .collect();
        assert_eq!(
            shown,
            [
                ("boot", "ext4", false),
                ("proc", "proc", false),
                ("var/data", "ext4", true)
            ]
        );
    }
}
