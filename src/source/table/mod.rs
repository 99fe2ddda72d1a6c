//! Partition tables: GPT by the `gpt` crate, DOS's with logical partitions in [`mbr`].

mod mbr;
mod partition;

use std::fs::File;
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result, anyhow};
use gpt::disk::LogicalBlockSize;
use gpt::header::{Header, read_header_from_arbitrary_device};
use gpt::partition::file_read_partitions;

use crate::failure::{Class, Classify};
use crate::refuse;
use mbr::Table;
use partition::SECTOR;

pub use partition::Partition;

/// More partitions than any real disk has.
const MAX_PARTITIONS: u32 = 1024;

/// Reads the partition table of a disk; `None` when it has none.
///
/// # Errors
/// Class `Refused` when the table is damaged or leads out of the disk.
pub fn read(disk: &File, size_bytes: u64) -> Result<Option<Vec<Partition>>> {
    if size_bytes < 2 * SECTOR {
        return Ok(None);
    }
    let mut boot_sector = [0; 512];
    disk.read_exact_at(&mut boot_sector, 0)
        .context("reading the first sector")?;
    let partitions = match mbr::read(disk, &boot_sector)? {
        Table::None => return Ok(None),
        Table::Protective => read_gpt(disk).class(Class::Refused)?,
        Table::Partitions(partitions) => partitions,
    };
    for partition in &partitions {
        let end = partition.offset.checked_add(partition.size_bytes);
        if end.is_none_or(|end| end > size_bytes) {
            refuse!(
                "partition {} ends beyond the disk of {size_bytes} bytes; the image was cut off: \
                 copy it again",
                partition.number
            );
        }
    }
    Ok(Some(partitions))
}

fn read_gpt(mut disk: &File) -> Result<Vec<Partition>> {
    let mut failure = anyhow!("no GPT");
    for block in [LogicalBlockSize::Lb512, LogicalBlockSize::Lb4096] {
        match read_header_from_arbitrary_device(&mut disk, block) {
            Ok(header) => return read_gpt_entries(disk, &header, block),
            Err(error) => failure = error.into(),
        }
    }
    Err(failure.context("its partition table (GPT) is damaged; `sgdisk -v` tells more"))
}

fn read_gpt_entries(
    mut disk: &File,
    header: &Header,
    block: LogicalBlockSize,
) -> Result<Vec<Partition>> {
    // The crate panics on the one and allocates whatever the other says.
    if header.part_size != 128 || header.num_parts > MAX_PARTITIONS {
        refuse!(
            "its partition table (GPT) has {} entries of {} bytes; entries of 128 bytes, \
             at most {MAX_PARTITIONS}, can be read",
            header.num_parts,
            header.part_size
        );
    }
    let entries = file_read_partitions(&mut disk, header, block)
        .context("its partition table (GPT) is damaged; `sgdisk -v` tells more")?;
    let mut partitions = Vec::new();
    for (number, entry) in entries.iter().filter(|(_, entry)| entry.is_used()) {
        let range = || -> Option<(u64, u64)> {
            let blocks = entry
                .last_lba
                .checked_sub(entry.first_lba)?
                .checked_add(1)?;
            let size = block.as_u64();
            Some((
                entry.first_lba.checked_mul(size)?,
                blocks.checked_mul(size)?,
            ))
        };
        let (offset, size_bytes) =
            range().with_context(|| format!("partition {number} has an impossible range"))?;
        partitions.push(Partition {
            number: *number,
            offset,
            size_bytes,
            uuid: entry.part_guid.to_string(),
            label: entry.name.clone(),
            kind: entry.part_type_guid.guid.to_string(),
        });
    }
    Ok(partitions)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::class_of;

    struct Disk {
        file: File,
        size_bytes: u64,
    }

    impl Disk {
        fn new(size_bytes: u64) -> Disk {
            let file = tempfile::tempfile().unwrap();
            file.set_len(size_bytes).unwrap();
            Disk { file, size_bytes }
        }

        /// Writes a table with entries of kind, start and length.
        fn table(self, sector: u64, entries: &[(u8, u32, u32)]) -> Disk {
            let mut bytes = [0; 512];
            bytes[440..444].copy_from_slice(&0xdead_beef_u32.to_le_bytes());
            for (i, (kind, start, length)) in entries.iter().enumerate() {
                let at = 446 + 16 * i;
                bytes[at + 4] = *kind;
                bytes[at + 8..at + 12].copy_from_slice(&start.to_le_bytes());
                bytes[at + 12..at + 16].copy_from_slice(&length.to_le_bytes());
            }
            bytes[510..].copy_from_slice(&[0x55, 0xaa]);
            self.file.write_all_at(&bytes, sector * SECTOR).unwrap();
            self
        }

        fn read(&self) -> Result<Option<Vec<Partition>>> {
            read(&self.file, self.size_bytes)
        }
    }

    #[test]
    fn primary_and_logical_partitions_are_numbered_as_linux_does() {
        let disk = Disk::new(64 << 20)
            .table(0, &[(0x83, 2048, 4096), (0x05, 8192, 40960)])
            .table(8192, &[(0x83, 2048, 2048), (0x05, 8192, 8192)])
            .table(16384, &[(0x8e, 2048, 4096)]);
        let found = disk.read().unwrap().unwrap();
        let ranges: Vec<(u32, u64, u64)> = found
            .iter()
            .map(|p| (p.number, p.offset / 512, p.size_bytes / 512))
            .collect();
        assert_eq!(
            ranges,
            [(1, 2048, 4096), (5, 10240, 2048), (6, 18432, 4096)]
        );
        assert_eq!(found[1].uuid, "deadbeef-05");
    }

    #[test]
    fn a_link_of_the_chain_without_a_partition_has_no_number() {
        let disk = Disk::new(64 << 20)
            .table(0, &[(0x05, 8192, 40960), (0x05, 61440, 4096)])
            .table(8192, &[(0, 0, 0), (0x05, 8192, 8192)])
            .table(16384, &[(0x83, 2048, 4096), (0x05, 16384, 8192)])
            .table(
                24576,
                &[(0x05, 24576, 8192), (0x83, 2048, 1024), (0x83, 7, 99_999)],
            )
            .table(32768, &[(0x83, 2048, 1024)])
            .table(61440, &[(0x83, 1024, 512)]);
        let found = disk.read().unwrap().unwrap();
        let starts: Vec<(u32, u64)> = found.iter().map(|p| (p.number, p.offset / 512)).collect();
        let expected = [(5, 18432), (6, 26624), (7, 34816), (8, 62464)];
        assert_eq!(starts, expected);
        assert_eq!(found[3].uuid, "deadbeef-08");
    }

    #[test]
    fn an_empty_disk_has_no_table() {
        assert_eq!(Disk::new(1 << 20).read().unwrap(), None);
        assert_eq!(Disk::new(100).read().unwrap(), None);
    }

    #[test]
    fn hostile_tables_are_refused() {
        for (disk, word) in [
            (
                Disk::new(1 << 20).table(0, &[(0x83, 2048, 4096)]),
                "cut off",
            ),
            (
                Disk::new(8 << 20)
                    .table(0, &[(0x05, 1024, 8192)])
                    .table(1024, &[(0x83, 1, 1), (0x05, 1, 1)])
                    .table(1025, &[(0x83, 1, 1), (0x05, 1, 1)]),
                "circle",
            ),
            (
                Disk::new(1 << 20).table(0, &[(0x05, u32::MAX, 8192)]),
                "cut off",
            ),
            (Disk::new(1 << 20).table(0, &[(0xee, 1, 2047)]), "damaged"),
        ] {
            let error = disk.read().unwrap_err();
            assert!(format!("{error:#}").contains(word), "{error:#}");
            assert_eq!(class_of(&error), Class::Refused, "{error:#}");
        }
    }

    /// The checksum of GPT, which is zlib's.
    fn crc(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc: u32, _| {
                (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
            })
        })
    }

    #[test]
    fn a_gpt_with_entries_of_another_size_or_number_is_refused() {
        for (at, value) in [(84, 256_u32), (80, u32::MAX)] {
            let disk = Disk::new(1 << 20).table(0, &[(0xee, 1, 2047)]);
            let mut header = [0; 92];
            header[..12].copy_from_slice(b"EFI PART\0\0\x01\0");
            header[12] = 92;
            header[24] = 1;
            header[40] = 34;
            header[72] = 2;
            (header[80], header[84]) = (128, 128);
            header[at..at + 4].copy_from_slice(&value.to_le_bytes());
            let sum = crc(&header);
            header[16..20].copy_from_slice(&sum.to_le_bytes());
            disk.file.write_all_at(&header, SECTOR).unwrap();
            let error = disk.read().unwrap_err();
            assert_eq!(class_of(&error), Class::Refused, "{error:#}");
            assert!(
                format!("{error:#}").contains(&value.to_string()),
                "{error:#}"
            );
        }
    }
}
