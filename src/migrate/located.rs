//! Where a file of this system is once nothing is mounted: in which file system,
//! on which disk.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::disk;
use crate::appliance::Appliance;
use crate::appliance::machine::mounts;
use crate::disk::blkid::{self, Tag};
use crate::refuse;

/// File systems that both kernels mount and GRUB writes.
const TYPES: [&str; 4] = ["ext2", "ext3", "ext4", "xfs"];

/// A file or directory in a file system on a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// The UUID of the file system.
    pub uuid: String,
    /// Its type.
    pub fs_type: String,
    /// Where it is mounted.
    pub mount_point: PathBuf,
    /// Its device, `major:minor`.
    pub number: String,
    /// Where the file is in it.
    pub inside: PathBuf,
    /// The disk that holds it, such as `sda`.
    pub disk: String,
    /// Whether it can be written.
    pub is_writable: bool,
}

impl Located {
    /// Finds out where `path`, which is there, lies.
    ///
    /// # Errors
    /// Class `Refused` when it is not in a file system that GRUB and the migration
    /// environment can use.
    pub fn find(appliance: &Appliance, path: &Path) -> Result<Located> {
        Located::look(appliance, path)
            .with_context(|| format!("looking where {} is", path.display()))
    }

    fn look(appliance: &Appliance, path: &Path) -> Result<Located> {
        let real = fs::canonicalize(appliance.at(path))?;
        let root = fs::canonicalize(appliance.at("/"))?;
        let path = Path::new("/").join(real.strip_prefix(&root)?);
        let table = mounts(appliance)?;
        let mut above = table.iter().filter(|it| path.starts_with(&it.mount_point));
        // Of those on one mount point, the last one is on top.
        let first = above.next().context("nothing is mounted there")?;
        let length = |path: &Path| path.components().count();
        let mount = above.fold(first, |best, it| {
            match length(&it.mount_point) >= length(&best.mount_point) {
                true => it,
                false => best,
            }
        });
        if !TYPES.contains(&mount.fs_type.as_str()) {
            refuse!(
                "it is {}; put it in a file system that is ext4 or XFS, on the machine's disk",
                mount.fs_type
            );
        }
        if mount.root != Path::new("/") {
            refuse!(
                "{} shows only a part of its file system; use the place where all of it is mounted",
                mount.mount_point.display()
            );
        }
        let device = Path::new(&mount.source);
        let Some(uuid) = blkid::ask(appliance.sys, device, Tag::Uuid)? else {
            refuse!("the file system on {} has no UUID", mount.source);
        };
        Ok(Located {
            uuid,
            fs_type: mount.fs_type.clone(),
            mount_point: mount.mount_point.clone(),
            number: mount.device_number.clone(),
            inside: Path::new("/").join(path.strip_prefix(&mount.mount_point)?),
            disk: disk::holding(appliance.sys, &mount.device_number)?,
            is_writable: mount.writable,
        })
    }

    /// Tells whether the file system is on a mapped device, where GRUB cannot write
    /// (GRUB manual, "Environment block").
    pub fn is_mapped(&self, appliance: &Appliance) -> bool {
        let node = appliance.at(format!("/sys/dev/block/{}", self.number));
        node.join("dm").exists() || node.join("md").exists()
    }
}
