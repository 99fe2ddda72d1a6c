//! What is told of the old system, for those who see only its files.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::appliance::release::ReleaseRecord;
use crate::appliance::{Appliance, disks, machine};
use crate::disk::blkid::{self, Tag};
use crate::linux::fstab::{self, Owner};
use crate::linux::mountinfo::{self, MountEntry};
use crate::refuse;
use crate::system::files::{read_yaml, write_atomic};

/// The file of facts in the archive's own directory.
const FILE: &str = "facts.yaml";

/// The version of this shape.
const FORMAT: u32 = 1;

/// What blkid(8) finds where no files are.
const NO_FILES: [&str; 3] = ["LVM2_member", "swap", "swsuspend"];

/// Where the system is mounted, whose own file systems all come anew.
const OF_SYSTEM: [&str; 4] = ["/", "/boot", "/boot/efi", "/efi"];

/// The old system as it ran.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Facts {
    /// The version of this shape.
    pub format: u32,
    /// The release that ran.
    pub release: ReleaseRecord,
    /// The kernel's command line.
    pub cmdline: String,
    /// The file system type of the root.
    pub root_fs_type: String,
    /// The lines of fstab, rendered, whose file systems or swap go with the disk.
    pub lost: BTreeSet<String>,
}

impl Facts {
    /// Looks at the running system.
    ///
    /// # Errors
    /// Class `Refused` when the disk of the root has a file system, mounted or not, that
    /// is not the system's own. Else when something cannot be read.
    pub fn gather(appliance: &Appliance) -> Result<Facts> {
        let table = machine::mounts(appliance)?;
        let root = mountinfo::at(&table, Path::new("/")).context("the mount table has no root")?;
        let disks = disks_of(appliance, root);
        refuse_others(appliance, &table, root, &disks)?;
        refuse_unmounted(appliance, &table, &disks)?;
        let read = |path: &str| {
            let path = appliance.at(path);
            fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))
        };
        Ok(Facts {
            format: FORMAT,
            release: ReleaseRecord::of_running(appliance)?,
            cmdline: read("/proc/cmdline")?.trim().to_owned(),
            root_fs_type: root.fs_type.clone(),
            lost: lost(appliance, &read("/etc/fstab")?, &disks),
        })
    }

    /// Writes them into `dir`.
    ///
    /// # Errors
    /// When that fails.
    pub fn save(&self, dir: &Path) -> Result<()> {
        let text = serde_yaml::to_string(self).context("rendering the facts")?;
        write_atomic(&dir.join(FILE), text.as_bytes(), 0o600)
    }

    /// Reads them from `dir`.
    ///
    /// # Errors
    /// When they are not there or of a newer shape.
    pub fn load(dir: &Path) -> Result<Facts> {
        let facts: Facts = read_yaml(&dir.join(FILE))?;
        ensure!(
            facts.format == FORMAT,
            "the facts of the old system have format {}, not {FORMAT}",
            facts.format
        );
        Ok(facts)
    }
}

fn disks_of(appliance: &Appliance, mount: &MountEntry) -> BTreeSet<String> {
    let mut disks = disks::of_number(appliance, &mount.device_number);
    disks.append(&mut disks::of_source(appliance, &mount.source));
    disks
}

fn refuse_others(
    appliance: &Appliance,
    table: &[MountEntry],
    root: &MountEntry,
    disks: &BTreeSet<String>,
) -> Result<()> {
    for mount in table {
        let is_of_system = mount.device_number == root.device_number
            || OF_SYSTEM
                .iter()
                .any(|at| mount.mount_point == Path::new(at));
        if !is_of_system && !disks_of(appliance, mount).is_disjoint(disks) {
            refuse!(
                "{} is mounted at {} from the disk of the root, which is made anew, so all that \
                 is in it would be lost; move it to another disk or machine and take it out of \
                 /etc/fstab",
                mount.source,
                mount.mount_point.display()
            );
        }
    }
    Ok(())
}

/// Refuses what lies on `disks` and nobody has mounted: nothing of it would come over.
fn refuse_unmounted(
    appliance: &Appliance,
    table: &[MountEntry],
    disks: &BTreeSet<String>,
) -> Result<()> {
    let dir = appliance.at("/sys/dev/block");
    let listed = fs::read_dir(&dir).with_context(|| format!("listing {}", dir.display()))?;
    for entry in listed {
        let entry = entry?;
        let number = entry.file_name().to_string_lossy().into_owned();
        let is_mounted = table.iter().any(|mount| mount.device_number == number);
        if is_mounted || disks::of_number(appliance, &number).is_disjoint(disks) {
            continue;
        }
        let node = fs::canonicalize(entry.path())?;
        let name = node.file_name().unwrap_or_default().to_string_lossy();
        if disks.contains(&*name) {
            continue;
        }
        let device = Path::new("/dev").join(&*name);
        // blkid fails on a device that holds nothing.
        let found = blkid::ask(appliance.sys, &device, Tag::Type).ok().flatten();
        if let Some(found) = found.filter(|found| !NO_FILES.contains(&&found[..])) {
            refuse!(
                "{} holds {found} that is not mounted, on the disk of the root, which is made \
                 anew, so all that is in it would be lost; move it to another disk or machine, or \
                 clear it with `wipefs --all {}` if nobody needs it",
                device.display(),
                device.display()
            );
        }
    }
    Ok(())
}

/// Lists the lines of `text`, an fstab, that mean something on `disks`. Swap whose
/// place is not known, and in a file, counts too: a start would wait for it.
fn lost(appliance: &Appliance, text: &str, disks: &BTreeSet<String>) -> BTreeSet<String> {
    let lines = fstab::parse(text).into_iter();
    let carried = lines.filter(|line| line.owner() != Owner::System);
    carried
        .filter(|line| {
            let under = disks::of_source(appliance, &line.source);
            !under.is_disjoint(disks) || (line.fs_type == "swap" && under.is_empty())
        })
        .map(|line| line.render())
        .collect()
}
