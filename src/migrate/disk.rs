//! The disk of the machine, as both systems know it: its device may be called
//! something else by the other kernel.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::refuse;
use crate::system::System;

/// The unit of sizes in `/sys/class/block`, whatever the disk's own is.
const SYSFS_SECTOR: u64 = 512;

/// The type of the partition that stands for a whole GPT (UEFI, "Protective MBR").
const PROTECTIVE: u8 = 0xee;

/// Devices that are no disk of the machine.
const NO_DISKS: [&str; 8] = ["loop", "ram", "zram", "sr", "fd", "dm-", "md", "nbd"];

/// What a disk is known by.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// Its size.
    pub size_bytes: u64,
    /// The size of its sectors, as its partition table counts them.
    pub logical_sector_bytes: u64,
    /// Its serial number, where the kernel tells it.
    pub serial: Option<String>,
    /// The kind of its partition table.
    pub table: Table,
    /// The GUID of a GPT, the eight hex digits of another table's signature.
    pub id: String,
}

/// The kinds of partition tables.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Table {
    /// GUID partition table.
    Gpt,
    /// DOS partition table.
    Mbr,
}

impl Disk {
    /// Looks at the disk called `name`, such as `sda`.
    ///
    /// # Errors
    /// When it cannot be read or has no partition table.
    pub fn look(sys: &dyn System, name: &str) -> Result<Disk> {
        let look = || -> Result<Disk> {
            let node = sys.at(format!("/sys/class/block/{name}"));
            let number = |file: &str| -> Result<u64> {
                let path = node.join(file);
                let text = fs::read_to_string(&path)
                    .with_context(|| format!("reading {}", path.display()))?;
                Ok(text.trim().parse()?)
            };
            let sector = number("queue/logical_block_size")?;
            ensure!(
                sector == 512 || sector == 4096,
                "its sectors have {sector} bytes"
            );
            let device = File::open(sys.at(format!("/dev/{name}")))?;
            let (table, id) = read_table(&device, sector)?;
            Ok(Disk {
                size_bytes: number("size")? * SYSFS_SECTOR,
                logical_sector_bytes: sector,
                serial: serial(&node),
                table,
                id,
            })
        };
        look().with_context(|| format!("looking at disk {name}"))
    }

    /// Finds this disk among those of the machine; returns its device.
    ///
    /// # Errors
    /// When none is it, or several are.
    pub fn find(&self, sys: &dyn System) -> Result<PathBuf> {
        let mut found = Vec::new();
        for name in names(sys)? {
            // A disk without a table, or one that cannot be read, is another one.
            if Disk::look(sys, &name).is_ok_and(|disk| self.is(&disk)) {
                found.push(PathBuf::from(format!("/dev/{name}")));
            }
        }
        match found.as_slice() {
            [disk] => Ok(disk.clone()),
            [] => bail!("no disk here is the one with id {}", self.id),
            several => bail!("{} disks here have id {}", several.len(), self.id),
        }
    }

    /// Tells whether both are one disk; not every driver tells the serial number.
    fn is(&self, other: &Disk) -> bool {
        let same_serial = match (&self.serial, &other.serial) {
            (Some(own), Some(theirs)) => own == theirs,
            _ => true,
        };
        let known = |disk: &Disk| {
            let Disk {
                size_bytes,
                logical_sector_bytes,
                table,
                id,
                ..
            } = disk.clone();
            (size_bytes, logical_sector_bytes, table, id)
        };
        same_serial && known(self) == known(other)
    }
}

/// Lists the disks of the machine.
fn names(sys: &dyn System) -> Result<Vec<String>> {
    let dir = sys.at("/sys/class/block");
    let listed = fs::read_dir(&dir).with_context(|| format!("listing {}", dir.display()))?;
    let mut names = Vec::new();
    for entry in listed {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_part = entry.path().join("partition").exists();
        if !is_part && !NO_DISKS.iter().any(|start| name.starts_with(start)) {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Returns the one disk that holds the device with this number, `major:minor`:
/// itself, the disk of a partition, or that of the volumes below it.
///
/// # Errors
/// Class `Refused` when it lies on several disks.
pub fn holding(sys: &dyn System, number: &str) -> Result<String> {
    let link = sys.at(format!("/sys/dev/block/{number}"));
    let node = fs::canonicalize(&link).with_context(|| format!("finding device {number}"))?;
    let mut disks = Vec::new();
    collect(&node, &mut disks, 0)?;
    disks.sort();
    disks.dedup();
    match disks.as_slice() {
        [disk] => Ok(disk.clone()),
        several => refuse!(
            "it lies on {} disks; only a system on one disk can be moved",
            several.len()
        ),
    }
}

fn collect(node: &Path, disks: &mut Vec<String>, depth: usize) -> Result<()> {
    // What a kernel stacks is never that deep.
    ensure!(depth < 16, "devices lie on each other in a circle");
    let name = |path: &Path| -> Result<String> {
        let name = path.file_name().context("a device without a name")?;
        Ok(name.to_string_lossy().into_owned())
    };
    if node.join("partition").exists() {
        disks.push(name(node.parent().context("a partition without a disk")?)?);
        return Ok(());
    }
    let below = fs::read_dir(node.join("slaves")).map(Iterator::flatten);
    let below: Vec<_> = below.into_iter().flatten().collect();
    if below.is_empty() {
        disks.push(name(node)?);
    }
    for entry in below {
        collect(&fs::canonicalize(entry.path())?, disks, depth + 1)?;
    }
    Ok(())
}

/// Returns the serial number of the disk at `node` of sysfs: that of virtio and NVMe,
/// or a SCSI disk's page 0x80 (SPC, "Unit Serial Number": four bytes before it).
fn serial(node: &Path) -> Option<String> {
    let plain = ["serial", "device/serial"]
        .iter()
        .find_map(|file| fs::read(node.join(file)).ok());
    let page = || {
        Some(
            fs::read(node.join("device/vpd_pg80"))
                .ok()?
                .get(4..)?
                .to_vec(),
        )
    };
    let bytes = plain.or_else(page)?;
    let text = String::from_utf8_lossy(&bytes);
    let text = text.trim_matches(|c: char| c.is_whitespace() || c.is_control());
    (!text.is_empty()).then(|| text.to_owned())
}

/// Returns what kind of partition table `disk` has, and its id.
fn read_table(disk: &File, sector: u64) -> Result<(Table, String)> {
    let mut first = [0; 512];
    disk.read_exact_at(&mut first, 0)
        .context("reading the first sector")?;
    ensure!(first[510..] == [0x55, 0xaa], "it has no partition table");
    let kinds = (0..4).map(|entry| first[446 + 16 * entry + 4]);
    if !kinds.clone().any(|kind| kind == PROTECTIVE) {
        let bytes = first[440..444].iter().rev();
        let id = bytes.map(|byte| format!("{byte:02x}")).collect();
        return Ok((Table::Mbr, id));
    }
    let mut header = [0; 72];
    disk.read_exact_at(&mut header, sector)
        .context("reading the header of its GPT")?;
    ensure!(header.starts_with(b"EFI PART"), "its GPT has no header");
    Ok((Table::Gpt, guid(&header[56..])))
}

/// Writes a GUID as text: its first three fields are little-endian (UEFI,
/// "EFI_GUID").
fn guid(bytes: &[u8]) -> String {
    const ORDER: [usize; 16] = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
    let mut text = String::with_capacity(36);
    for (place, at) in ORDER.into_iter().enumerate() {
        if matches!(place, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{:02x}", bytes[at]));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn disk(parts: &[(u64, &[u8])]) -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 20).unwrap();
        for (at, bytes) in parts {
            file.write_all_at(bytes, *at).unwrap();
        }
        (&file).flush().unwrap();
        file
    }

    #[test]
    fn both_kinds_of_tables_have_an_id() {
        let mbr = disk(&[(440, &[0xef, 0xbe, 0xad, 0xde]), (510, &[0x55, 0xaa])]);
        assert_eq!(
            read_table(&mbr, 512).unwrap(),
            (Table::Mbr, "deadbeef".into())
        );
        let id: Vec<u8> = (0..16).collect();
        for sector in [512, 4096] {
            let gpt = disk(&[
                (450, &[0xee]),
                (510, &[0x55, 0xaa]),
                (sector, b"EFI PART"),
                (sector + 56, &id),
            ]);
            let wanted = "03020100-0504-0706-0809-0a0b0c0d0e0f".into();
            assert_eq!(read_table(&gpt, sector).unwrap(), (Table::Gpt, wanted));
        }
        assert!(read_table(&disk(&[]), 512).is_err());
        let headless = disk(&[(450, &[0xee]), (510, &[0x55, 0xaa])]);
        assert!(read_table(&headless, 512).is_err());
    }

    #[test]
    fn a_serial_number_that_one_side_does_not_know_is_not_compared() {
        let disk = super::super::order::tests::order().disk;
        let with = |serial: &str| Disk {
            serial: Some(serial.into()),
            ..disk.clone()
        };
        assert!(disk.is(&with("a")) && with("a").is(&disk) && with("a").is(&with("a")));
        assert!(!with("a").is(&with("b")));
        let larger = Disk {
            size_bytes: disk.size_bytes + 512,
            ..disk.clone()
        };
        assert!(!disk.is(&larger));
    }
}
