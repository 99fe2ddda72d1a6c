//! The file systems of the old system, found by their UUIDs and mounted for one
//! piece of work.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::appliance::Appliance;
use crate::disk::blkid::{self, Tag};
use crate::paths::OLD_MOUNT;
use crate::system::{Cmd, Mount, Mounted, System};

/// How often it is looked for: controllers take their time.
const LOOKS: usize = 90;
const PAUSE: Duration = Duration::from_secs(1);

/// Devices that hold no file system of a disk.
const NOT_LOOKED_AT: [&str; 5] = ["loop", "ram", "zram", "sr", "fd"];

/// What may be done in a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reading.
    Read,
    /// Writing, too.
    Write,
}

/// Does `work` with the file system `uuid`, mounted for it.
///
/// # Errors
/// When there is no such file system, it cannot be mounted or unmounted, and those of
/// `work`.
pub fn with_file_system<T>(
    appliance: &Appliance,
    uuid: &str,
    access: Access,
    work: impl FnOnce(&Path) -> Result<T>,
) -> Result<T> {
    let (device, fs_type) = wait_for(appliance, uuid)?;
    let options = match access {
        Access::Read => "ro",
        Access::Write => "rw",
    };
    let point = appliance.at(OLD_MOUNT);
    let mount = Mount::device(&device, &point, driver(&fs_type)?, options);
    let mounted = Mounted::new(appliance.sys, &mount)?;
    let outcome = work(mounted.path());
    let unmounted = mounted.unmount();
    let value = outcome?;
    unmounted.map(|()| value)
}

/// Returns where the absolute `path` of a file system is, once that is mounted at
/// `root`.
pub fn inside(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// Gives up all logical volumes.
///
/// # Errors
/// When one is in use.
pub fn deactivate(sys: &dyn System) -> Result<()> {
    sys.run(&Cmd::new("lvm").args(["vgchange", "-an"]))
        .map(drop)
}

/// Returns the driver that mounts a file system of this type.
fn driver(fs_type: &str) -> Result<&str> {
    match fs_type {
        "ext2" | "ext3" | "ext4" => Ok("ext4"),
        "xfs" => Ok("xfs"),
        other => bail!("the old system is on {other}"),
    }
}

/// Finds the file system; volumes are activated where it is on none of the plain
/// devices.
fn wait_for(appliance: &Appliance, uuid: &str) -> Result<(PathBuf, String)> {
    let mut last = None;
    for look in 0..LOOKS {
        if let Some(found) = find(appliance.sys, uuid)? {
            return Ok(found);
        }
        // What is on a plain device needs no LVM, which may be missing.
        let cmd = Cmd::new("lvm").args(["vgchange", "-ay", "--sysinit"]);
        last = appliance.sys.run(&cmd).err();
        if look + 1 < LOOKS && find(appliance.sys, uuid)?.is_none() {
            appliance.sys.wait(PAUSE);
        }
    }
    match last {
        Some(error) => Err(error).with_context(|| format!("file system {uuid} is not there")),
        None => bail!("file system {uuid} is not there"),
    }
}

/// Returns the one device with the file system `uuid`, and its type.
fn find(sys: &dyn System, uuid: &str) -> Result<Option<(PathBuf, String)>> {
    let dir = sys.at("/sys/class/block");
    let listed = fs::read_dir(&dir).with_context(|| format!("listing {}", dir.display()))?;
    let mut names = Vec::new();
    for entry in listed {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.retain(|name| !NOT_LOOKED_AT.iter().any(|start| name.starts_with(start)));
    names.sort();
    let mut found = Vec::new();
    for name in names {
        let device = Path::new("/dev").join(name);
        // blkid fails on a device that holds nothing.
        let ask = |tag| blkid::ask(sys, &device, tag).ok().flatten();
        if ask(Tag::Uuid).as_deref() == Some(uuid)
            && let Some(fs_type) = ask(Tag::Type)
        {
            found.push((device, fs_type));
        }
    }
    match found.len() {
        0 | 1 => Ok(found.pop()),
        several => bail!("{several} devices hold the file system {uuid}"),
    }
}
