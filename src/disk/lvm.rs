//! Logical volumes, as the `lvm` commands report them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::system::{Cmd, System};

/// A logical volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogicalVolume {
    /// Its name inside the volume group.
    pub name: String,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// Its segment type; only `linear` can be a slot.
    pub segment_type: String,
}

/// Lists the logical volumes of the volume group `vg`; one of several segments
/// appears once, with `linear` only when all of them are.
///
/// # Errors
/// When `lvs` fails or prints what it never did.
pub fn list(sys: &dyn System, vg: &str) -> Result<Vec<LogicalVolume>> {
    list_by(sys, Cmd::new("lvs"), vg)
}

/// Lists likewise by the beginning of a call of `lvs`.
pub(super) fn list_by(sys: &dyn System, lvs: Cmd, vg: &str) -> Result<Vec<LogicalVolume>> {
    let columns = "--options=lv_name,lv_size,segtype";
    let cmd = lvs.args(report(columns)).arg("--segments").arg(vg);
    let mut volumes: Vec<LogicalVolume> = Vec::new();
    for line in sys
        .run(&cmd)?
        .lines()
        .filter(|line| !line.trim().is_empty())
    {
        let next = parse_volume(line)?;
        match volumes.iter_mut().find(|v| v.name == next.name) {
            Some(known) if next.segment_type != "linear" => known.segment_type = next.segment_type,
            Some(_) => {}
            None => volumes.push(next),
        }
    }
    Ok(volumes)
}

/// A volume group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeGroup {
    /// Its UUID.
    pub uuid: String,
    /// The one machine that may use it; empty for any (lvmsystemid(7)).
    pub system_id: String,
}

/// Returns all volume groups called `vg`.
///
/// # Errors
/// When `vgs` fails.
pub fn groups(sys: &dyn System, vg: &str) -> Result<Vec<VolumeGroup>> {
    let columns = "--options=vg_name,vg_uuid,vg_systemid";
    let out = sys.run(&Cmd::new("vgs").args(report(columns)))?;
    let rows = out.lines().map(|line| line.trim().split('|'));
    let groups = rows.filter_map(|mut fields| {
        let is_wanted = fields.next() == Some(vg);
        let uuid = fields.next().filter(|_| is_wanted)?;
        Some(VolumeGroup {
            uuid: uuid.to_owned(),
            system_id: fields.next().unwrap_or_default().to_owned(),
        })
    });
    Ok(groups.collect())
}

/// Makes the device of a logical volume appear, where it is not there yet.
///
/// # Errors
/// When `lvchange` fails.
pub fn activate(sys: &dyn System, vg: &str, volume: &str) -> Result<()> {
    let name = format!("{vg}/{volume}");
    sys.run(&Cmd::new("lvchange").args(["-ay", &name]))
        .map(drop)
}

/// Returns the one disk that holds the volume group `vg`.
///
/// `sys_dir` is `/sys`.
///
/// # Errors
/// When the group lies on several disks, or the disk cannot be told.
pub fn disk_of_group(sys: &dyn System, sys_dir: &Path, vg: &str) -> Result<PathBuf> {
    let out = sys.run(&Cmd::new("pvs").args(report("--options=vg_name,pv_name")))?;
    let rows = out.lines().filter_map(|line| line.trim().split_once('|'));
    let mut disks = Vec::new();
    for (_, pv) in rows.filter(|(name, _)| *name == vg) {
        disks.push(disk_of_partition(sys_dir, Path::new(pv))?);
    }
    disks.dedup();
    match disks.as_slice() {
        [disk] => Ok(disk.clone()),
        [] => bail!("volume group {vg} has no physical volume"),
        several => bail!(
            "volume group {vg} lies on {} disks; an appliance has one",
            several.len()
        ),
    }
}

/// Returns the disk a partition belongs to, from the tree in `/sys`.
fn disk_of_partition(sys_dir: &Path, partition: &Path) -> Result<PathBuf> {
    let name = partition.file_name().context("a device without a name")?;
    let node = sys_dir.join("class/block").join(name);
    let real = fs::canonicalize(&node)
        .with_context(|| format!("finding {} in /sys", partition.display()))?;
    ensure!(
        real.join("partition").exists(),
        "{} is not a partition",
        partition.display()
    );
    let disk = real
        .parent()
        .and_then(Path::file_name)
        .context("a partition without a disk")?;
    Ok(Path::new("/dev").join(disk))
}

fn report(columns: &str) -> [&str; 5] {
    [
        "--noheadings",
        "--nosuffix",
        "--units=b",
        "--separator=|",
        columns,
    ]
}

fn parse_volume(line: &str) -> Result<LogicalVolume> {
    let fields: Vec<&str> = line.trim().split('|').collect();
    let [name, size, segment_type] = fields[..] else {
        bail!("lvs printed {line:?}, not three fields");
    };
    Ok(LogicalVolume {
        name: name.to_owned(),
        size_bytes: size
            .parse()
            .with_context(|| format!("lvs printed the size {size:?}"))?,
        segment_type: segment_type.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_lvs_is_read() {
        let volume = parse_volume("  root|1887436800|linear").unwrap();
        assert_eq!(
            (volume.name.as_str(), volume.size_bytes),
            ("root", 1_887_436_800)
        );
        assert!(parse_volume("  root|1,8g|linear").is_err());
        assert!(parse_volume("  WARNING: something").is_err());
    }

    #[test]
    fn the_disk_of_a_partition_is_its_parent() {
        let dir = tempfile::tempdir().unwrap();
        let disk = dir.path().join("devices/pci/block/nvme0n1");
        fs::create_dir_all(disk.join("nvme0n1p3")).unwrap();
        fs::write(disk.join("nvme0n1p3/partition"), "3").unwrap();
        fs::create_dir_all(dir.path().join("class/block")).unwrap();
        for name in ["nvme0n1p3", "nvme0n1"] {
            let target = if name == "nvme0n1" {
                disk.clone()
            } else {
                disk.join(name)
            };
            std::os::unix::fs::symlink(target, dir.path().join("class/block").join(name)).unwrap();
        }
        let found = disk_of_partition(dir.path(), Path::new("/dev/nvme0n1p3")).unwrap();
        assert_eq!(found, Path::new("/dev/nvme0n1"));
        assert!(disk_of_partition(dir.path(), Path::new("/dev/nvme0n1")).is_err());
    }
}
