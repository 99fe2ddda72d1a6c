//! The things in an image that could hold a file system: the whole disk, its
//! partitions, its logical volumes.

use std::{fmt, io};

use anyhow::{Context, Result};

use super::content::{self, Closed, Content};
use super::lvm::{self, PhysicalVolume};
use super::raw::RawImage;
use super::table::{self, Partition};

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
    /// The type that a GPT gives it; empty without one.
    pub partition_kind: String,
    /// The UUIDs of its group and itself, as device-mapper writes them after
    /// `LVM-`; empty without.
    pub lvm_uuid: String,
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
        partition_kind: partition.kind.clone(),
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
        partition_kind: String::new(),
        lvm_uuid: String::new(),
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
            Err(reason) => (Vec::new(), Content::Closed(Closed::because(reason))),
        };
        found.push(Volume {
            name,
            extents,
            content,
            partition_uuid: String::new(),
            partition_label: String::new(),
            partition_kind: String::new(),
            lvm_uuid: logical.uuid,
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

/// Finds two of `volumes` that lie over each other: a small image would make a large
/// tree.
pub fn sharing<'v>(volumes: &[&'v Volume]) -> Option<(&'v Volume, &'v Volume)> {
    let mut stretches: Vec<(usize, u64, u64, &'v Volume)> = Vec::new();
    for volume in volumes {
        for extent in &volume.extents {
            let end = extent.offset + extent.size_bytes;
            stretches.push((extent.disk, extent.offset, end, volume));
        }
    }
    stretches.sort_by_key(|(disk, start, ..)| (*disk, *start));
    stretches.windows(2).find_map(|pair| {
        let [(disk, _, end, first), (next_disk, start, _, second)] = pair else {
            return None;
        };
        (disk == next_disk && start < end).then_some((*first, *second))
    })
}

/// Lists the names of `volumes`, for messages.
pub fn list_names<'v>(volumes: impl Iterator<Item = &'v Volume>) -> String {
    let names: Vec<String> = volumes.map(|volume| volume.name.to_string()).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_that_lie_over_each_other_are_found() {
        let volume = |number, offset, size_bytes| Volume {
            name: Name::Partition(0, number),
            extents: vec![Extent {
                disk: 0,
                offset,
                size_bytes,
            }],
            content: Content::Other,
            partition_uuid: String::new(),
            partition_label: String::new(),
            partition_kind: String::new(),
            lvm_uuid: String::new(),
        };
        let [first, beside, over] = [volume(1, 0, 512), volume(2, 512, 512), volume(3, 1023, 9)];
        assert_eq!(sharing(&[&beside, &first]), None);
        assert_eq!(sharing(&[&first, &over, &beside]), Some((&beside, &over)));
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
