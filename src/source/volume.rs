//! The things in an image that could hold a file system: the whole disk, its
//! partitions, its logical volumes.

use std::path::Path;
use std::{fmt, io};

use anyhow::{Context, Result};

use super::content::{self, Content};
use super::lvm::{self, PhysicalVolume};
use super::raw::RawImage;
use super::table::{self, Partition};
use crate::linux::device_mapper;

/// A stretch of one of the image's disks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The index of the disk.
    pub disk: usize,
    /// Where it starts.
    pub offset: u64,
    /// How long it is.
    pub size_bytes: u64,
}

/// How a volume is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Name {
    /// A disk without a partition table.
    Disk(usize),
    /// A partition: disk and number.
    Partition(usize, u32),
    /// A logical volume: group and name.
    Logical(String, String),
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Name::Disk(0) => f.write_str("the disk"),
            Name::Disk(disk) => write!(f, "disk {}", disk + 1),
            Name::Partition(0, number) => write!(f, "partition {number}"),
            Name::Partition(disk, number) => write!(f, "partition {number} of disk {}", disk + 1),
            Name::Logical(group, name) => write!(f, "{group}/{name}"),
        }
    }
}

/// Something that could hold a file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// How it is called.
    pub name: Name,
    /// Where its bytes are, in order; none when it is closed.
    pub extents: Vec<Extent>,
    /// What it holds.
    pub content: Content,
    /// As fstab writes it after `PARTUUID=`; empty without one.
    pub partition_uuid: String,
    /// As fstab writes it after `PARTLABEL=`; empty without one.
    pub partition_label: String,
}

/// Lists the volumes of an image's disks.
///
/// # Errors
/// Class `Refused` when a partition table or LVM's metadata are damaged.
pub fn list(disks: &[RawImage]) -> Result<Vec<Volume>> {
    let mut volumes = Vec::new();
    for (disk, image) in disks.iter().enumerate() {
        match table::read(image.file(), image.size_bytes())? {
            Some(partitions) => {
                for partition in &partitions {
                    volumes.push(partition_volume(disks, disk, partition)?);
                }
            }
            None => volumes.push(whole_disk(disks, disk)?),
        }
    }
    let logical = logical_volumes(disks, &volumes)?;
    volumes.extend(logical);
    Ok(volumes)
}

fn whole_disk(disks: &[RawImage], disk: usize) -> Result<Volume> {
    let extent = Extent {
        disk,
        offset: 0,
        size_bytes: disks[disk].size_bytes(),
    };
    plain_volume(disks, Name::Disk(disk), extent)
}

fn partition_volume(disks: &[RawImage], disk: usize, partition: &Partition) -> Result<Volume> {
    let extent = Extent {
        disk,
        offset: partition.offset,
        size_bytes: partition.size_bytes,
    };
    let volume = plain_volume(disks, Name::Partition(disk, partition.number), extent)?;
    Ok(Volume {
        partition_uuid: partition.uuid.clone(),
        partition_label: partition.label.clone(),
        ..volume
    })
}

fn plain_volume(disks: &[RawImage], name: Name, extent: Extent) -> Result<Volume> {
    let read =
        |buffer: &mut [u8], offset: u64| disks[extent.disk].read_at(buffer, extent.offset + offset);
    let content =
        content::probe(&read, extent.size_bytes).with_context(|| format!("reading {name}"))?;
    Ok(Volume {
        name,
        extents: vec![extent],
        content,
        partition_uuid: String::new(),
        partition_label: String::new(),
    })
}

fn logical_volumes(disks: &[RawImage], volumes: &[Volume]) -> Result<Vec<Volume>> {
    let homes: Vec<&Volume> = volumes
        .iter()
        .filter(|volume| volume.content == Content::PhysicalVolume)
        .collect();
    let mut pvs = Vec::new();
    for home in &homes {
        let extent = home.extents[0];
        let read = |buffer: &mut [u8], offset: u64| {
            disks[extent.disk].read_at(buffer, extent.offset.saturating_add(offset))
        };
        pvs.push(PhysicalVolume::read(
            &read,
            extent.size_bytes,
            home.name.to_string(),
        )?);
    }
    let mut found = Vec::new();
    for logical in lvm::logical_volumes(&pvs)? {
        let name = Name::Logical(logical.group, logical.name);
        let (extents, content) = match logical.layout {
            Ok(stretches) => {
                let extents: Vec<Extent> = stretches
                    .iter()
                    .map(|stretch| {
                        let home = homes[stretch.pv].extents[0];
                        Extent {
                            disk: home.disk,
                            offset: home.offset + stretch.offset,
                            size_bytes: stretch.size_bytes,
                        }
                    })
                    .collect();
                let size = extents.iter().map(|extent| extent.size_bytes).sum();
                let read =
                    |buffer: &mut [u8], offset| read_extents(disks, &extents, buffer, offset);
                let content =
                    content::probe(&read, size).with_context(|| format!("reading {name}"))?;
                (extents, content)
            }
            Err(reason) => (Vec::new(), Content::Closed(reason)),
        };
        found.push(Volume {
            name,
            extents,
            content,
            partition_uuid: String::new(),
            partition_label: String::new(),
        });
    }
    Ok(found)
}

/// Reads across the seams of a volume.
fn read_extents(
    disks: &[RawImage],
    extents: &[Extent],
    mut buffer: &mut [u8],
    mut offset: u64,
) -> io::Result<()> {
    for extent in extents {
        if offset >= extent.size_bytes {
            offset -= extent.size_bytes;
            continue;
        }
        let here = usize::try_from(extent.size_bytes - offset).unwrap_or(usize::MAX);
        let (now, later) = buffer.split_at_mut(here.min(buffer.len()));
        disks[extent.disk].read_at(now, extent.offset + offset)?;
        buffer = later;
        offset = 0;
        if buffer.is_empty() {
            return Ok(());
        }
    }
    Err(io::ErrorKind::UnexpectedEof.into())
}

impl Volume {
    /// Tells whether a word of fstab's first column means this volume.
    pub fn is_named_by(&self, spec: &str) -> bool {
        let (key, value) = match spec.split_once('=') {
            Some((key, value)) if !spec.starts_with('/') => (key, value.trim_matches('"')),
            _ => match spec
                .strip_prefix("/dev/disk/by-")
                .and_then(|by| by.split_once('/'))
            {
                Some(("uuid", value)) => ("UUID", value),
                Some(("label", value)) => ("LABEL", value),
                Some(("partuuid", value)) => ("PARTUUID", value),
                Some(("partlabel", value)) => ("PARTLABEL", value),
                Some(_) => return false,
                None => return self.is_device(spec),
            },
        };
        let file_system = match &self.content {
            Content::FileSystem(file_system) => Some(file_system),
            _ => None,
        };
        !value.is_empty()
            && match key {
                "UUID" => file_system.is_some_and(|fs| fs.uuid.eq_ignore_ascii_case(value)),
                "LABEL" => file_system.is_some_and(|fs| fs.label == value),
                "PARTUUID" => self.partition_uuid.eq_ignore_ascii_case(value),
                "PARTLABEL" => self.partition_label == value,
                _ => false,
            }
    }

    fn is_device(&self, device: &str) -> bool {
        match &self.name {
            Name::Logical(group, name) => {
                device == format!("/dev/{group}/{name}")
                    || Path::new(device) == device_mapper::path(group, name)
            }
            Name::Partition(disk, number) => device_parts(device) == Some((*disk, Some(*number))),
            Name::Disk(disk) => device_parts(device) == Some((*disk, None)),
        }
    }
}

/// Tells whether `device` is the kernel's name of a disk that `volume` is not on.
pub fn is_on_another_disk(device: &str, volume: &Volume) -> bool {
    let named = device_parts(device).map(|(disk, _)| disk);
    named.is_some_and(|disk| volume.extents.iter().all(|extent| extent.disk != disk))
}

/// Lists the names of `volumes`, for messages.
pub fn list_names<'v>(volumes: impl Iterator<Item = &'v Volume>) -> String {
    let names: Vec<String> = volumes.map(|volume| volume.name.to_string()).collect();
    names.join(", ")
}

/// Reads `/dev/sda2` as disk 0, partition 2, under any driver's names.
fn device_parts(device: &str) -> Option<(usize, Option<u32>)> {
    let name = device.strip_prefix("/dev/")?;
    let number = |digits: &str| -> Option<Option<u32>> {
        match digits {
            "" => Some(None),
            _ => digits.parse().ok().map(Some),
        }
    };
    for prefix in ["sd", "vd", "xvd", "hd"] {
        if let Some(rest) = name.strip_prefix(prefix) {
            let letter = rest.bytes().next().filter(u8::is_ascii_lowercase)?;
            return Some((usize::from(letter - b'a'), number(&rest[1..])?));
        }
    }
    if let Some(rest) = name.strip_prefix("nvme") {
        let (disk, rest) = rest.split_once("n1")?;
        let digits = rest.strip_prefix('p').unwrap_or(rest);
        return Some((disk.parse().ok()?, number(digits)?));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::content::{FileSystem, Health};
    use super::*;

    fn volume(name: Name) -> Volume {
        Volume {
            name,
            extents: Vec::new(),
            content: Content::FileSystem(FileSystem {
                kind: "ext4",
                uuid: "0a1b-22".into(),
                label: "boot".into(),
                health: Health::Sound,
            }),
            partition_uuid: "deadbeef-01".into(),
            partition_label: String::new(),
        }
    }

    #[test]
    fn every_way_fstab_names_a_volume_is_understood() {
        let part = volume(Name::Partition(0, 1));
        let logical = volume(Name::Logical("V-A".into(), "root".into()));
        for (spec, is_part, is_logical) in [
            ("UUID=0A1B-22", true, true),
            ("UUID=\"0a1b-22\"", true, true),
            ("LABEL=boot", true, true),
            ("LABEL=", false, false),
            ("PARTUUID=DEADBEEF-01", true, true),
            ("PARTLABEL=", false, false),
            ("/dev/disk/by-uuid/0a1b-22", true, true),
            ("/dev/disk/by-id/x", false, false),
            ("/dev/sda1", true, false),
            ("/dev/vda1", true, false),
            ("/dev/nvme0n1p1", true, false),
            ("/dev/sda", false, false),
            ("/dev/sda11", false, false),
            ("/dev/sdb1", false, false),
            ("/dev/V-A/root", false, true),
            ("/dev/mapper/V--A-root", false, true),
            ("/dev/mapper/V-A-root", false, false),
            ("/dev/", false, false),
            ("/dev/sd", false, false),
            ("/dev/sd\u{e9}1", false, false),
            ("server:/export", false, false),
        ] {
            assert_eq!(part.is_named_by(spec), is_part, "{spec}");
            assert_eq!(logical.is_named_by(spec), is_logical, "{spec}");
        }
    }

    #[test]
    fn reading_crosses_the_seams_of_a_volume() {
        use std::os::unix::fs::FileExt;
        let disk = RawImage::temporary(4096, 0).unwrap();
        disk.file().write_all_at(b"world", 100).unwrap();
        disk.file().write_all_at(b"hello ", 2000).unwrap();
        let extent = |offset, size_bytes| Extent {
            disk: 0,
            offset,
            size_bytes,
        };
        let extents = [extent(1990, 16), extent(100, 5)];
        let mut text = [0; 11];
        read_extents(std::slice::from_ref(&disk), &extents, &mut text, 10).unwrap();
        assert_eq!(&text, b"hello world");
        let mut more = [0; 12];
        assert!(read_extents(std::slice::from_ref(&disk), &extents, &mut more, 10).is_err());
    }
}
