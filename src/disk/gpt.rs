//! A partition that takes what a disk has grown by.
//!
//! The kernel looks for the second copy of the table where the first one says, and
//! at the end of the disk only where it was told to on its command line. So while
//! the first copy is changed it must be valid at every moment:
//!
//! 1. the second copy, its entries and then its header, is written at the new end;
//! 2. one sector, the first header: it names the entries of the second copy;
//! 3. the first copy's entries, which nothing reads now;
//! 4. one sector, the first header again: it names them.
//!
//! Numbers, names and identities of partitions stay, which a table written anew by
//! a library would not promise. The first sector of the disk, with the boot code, is
//! left alone: readers take a protective entry of the old size (UEFI 5.2.3).

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};

const SECTOR_BYTES: usize = 512;

/// Partitions end at a multiple of this: 1 MiB.
const ALIGNMENT: u64 = 2048;

/// Where the first copy is (UEFI 5.3.1).
const HEADER_LBA: u64 = 1;
const ENTRIES_LBA: u64 = 2;

/// The most that is read of a table's entries; 128 of them take 16 KiB.
const MAX_ENTRIES_BYTES: usize = 256 << 10;

/// A run of sectors to be written and made durable before the next one.
#[derive(Debug, PartialEq, Eq)]
struct Write {
    lba: u64,
    bytes: Vec<u8>,
}

/// What a partition takes.
#[derive(Debug, PartialEq, Eq)]
pub struct Growth {
    /// Its size now.
    pub from_bytes: u64,
    /// Its size afterwards; the same where only the table is mended.
    pub to_bytes: u64,
    writes: Vec<Write>,
}

/// Says how partition `number` of `disk` can take the room behind it; `None` where
/// there is none and the table lies as it should.
///
/// # Errors
/// When the disk has no whole GPT with that partition.
pub fn plan(disk: &Path, number: u32) -> Result<Option<Growth>> {
    let context = || format!("reading the partition table of {}", disk.display());
    let mut file = File::open(disk).with_context(context)?;
    let sectors = file.seek(SeekFrom::End(0)).with_context(context)? / SECTOR_BYTES as u64;
    let table = Table::read(&file).with_context(context)?;
    table.grown(number, sectors).with_context(context)
}

/// Returns the size of partition `number` as the table of `disk` has it.
///
/// # Errors
/// When the disk has no whole GPT with that partition.
pub fn size_bytes(disk: &Path, number: u32) -> Result<u64> {
    let read = || -> Result<u64> {
        let table = Table::read(&File::open(disk)?)?;
        let at = table.entry(number)?;
        let (first, last) = table.ends(at);
        let sectors = last.checked_sub(first).and_then(|span| span.checked_add(1));
        sectors
            .and_then(|sectors| sectors.checked_mul(SECTOR_BYTES as u64))
            .context("a partition ends before it begins")
    };
    read().with_context(|| format!("reading the partition table of {}", disk.display()))
}

/// Writes what was planned, in its order.
///
/// # Errors
/// When the disk cannot be written; the table is then valid, old or new.
pub fn write(disk: &Path, growth: &Growth) -> Result<()> {
    let write = || -> Result<()> {
        let file = OpenOptions::new().read(true).write(true).open(disk)?;
        for Write { lba, bytes } in &growth.writes {
            file.write_all_at(bytes, lba * SECTOR_BYTES as u64)?;
            file.sync_all()?;
        }
        Ok(())
    };
    write().with_context(|| format!("writing the partition table of {}", disk.display()))
}

/// The first copy of a table.
struct Table {
    header: Vec<u8>,
    entries: Vec<u8>,
}

impl Table {
    fn read(file: &File) -> Result<Table> {
        let mut header = vec![0; SECTOR_BYTES];
        file.read_exact_at(&mut header, HEADER_LBA * SECTOR_BYTES as u64)?;
        ensure!(header.starts_with(b"EFI PART"), "it is no GPT");
        let size = u32_at(&header, 12) as usize;
        ensure!(
            (92..=SECTOR_BYTES).contains(&size),
            "its header has {size} bytes"
        );
        ensure!(
            u32_at(&header, 16) == header_sum(&header),
            "its first header is damaged; mend it with `sgdisk`"
        );
        let bytes = (u32_at(&header, 80) as usize).saturating_mul(u32_at(&header, 84) as usize);
        ensure!(
            u32_at(&header, 84) >= 128 && (1..=MAX_ENTRIES_BYTES).contains(&bytes),
            "its entries take {bytes} bytes"
        );
        let mut entries = vec![0; bytes];
        let at = u64_at(&header, 72).saturating_mul(SECTOR_BYTES as u64);
        file.read_exact_at(&mut entries, at)?;
        ensure!(
            u32_at(&header, 88) == sum(&entries),
            "its first entries are damaged; mend them with `sgdisk`"
        );
        Ok(Table { header, entries })
    }

    /// Returns where the entry of partition `number` begins.
    fn entry(&self, number: u32) -> Result<usize> {
        ensure!(number > 0, "there is no partition 0");
        let size = u32_at(&self.header, 84) as usize;
        let at = (number as usize - 1).saturating_mul(size);
        let kind = self.entries.get(at..at.saturating_add(16));
        ensure!(
            kind.is_some_and(|kind| kind != [0; 16]),
            "there is no partition {number}"
        );
        Ok(at)
    }

    /// Returns the first and the last sector of the entry at `at`.
    fn ends(&self, at: usize) -> (u64, u64) {
        (
            u64_at(&self.entries, at + 32),
            u64_at(&self.entries, at + 40),
        )
    }

    /// Plans the table in which partition `number` ends where the disk does.
    fn grown(&self, number: u32, sectors: u64) -> Result<Option<Growth>> {
        let entries_sectors = self.entries.len().div_ceil(SECTOR_BYTES) as u64;
        let second_header = sectors.checked_sub(1).context("the disk is empty")?;
        let second_entries = second_header.saturating_sub(entries_sectors);
        let size = u32_at(&self.header, 84) as usize;
        let at = self.entry(number)?;
        let (first, last) = self.ends(at);
        ensure!(
            first <= last && last < sectors,
            "partition {number} ends outside the disk"
        );
        let others = self
            .entries
            .chunks(size)
            .filter(|entry| entry[..16] != [0; 16]);
        let is_last = others
            .map(|entry| u64_at(entry, 32))
            .all(|start| start <= first);
        // What ends behind it by less than the alignment is as large as it can be.
        let end = second_entries / ALIGNMENT * ALIGNMENT;
        let new_last = match is_last && end > last + ALIGNMENT {
            true => end - 1,
            false => last,
        };
        let is_in_place =
            u64_at(&self.header, 32) == second_header && u64_at(&self.header, 72) == ENTRIES_LBA;
        if is_in_place && new_last == last {
            return Ok(None);
        }
        let mut entries = self.entries.clone();
        entries[at + 40..at + 48].copy_from_slice(&new_last.to_le_bytes());
        let bytes = |last: u64| (last + 1 - first) * SECTOR_BYTES as u64;
        let header = |own: u64, other: u64, entries_lba: u64| {
            self.header_of(own, other, entries_lba, second_entries - 1, &entries)
        };
        let first_copy = |entries_lba| Write {
            lba: HEADER_LBA,
            bytes: header(HEADER_LBA, second_header, entries_lba),
        };
        let copy_of_entries = |lba| Write {
            lba,
            bytes: padded(&entries),
        };
        Ok(Some(Growth {
            from_bytes: bytes(last),
            to_bytes: bytes(new_last),
            writes: vec![
                copy_of_entries(second_entries),
                Write {
                    lba: second_header,
                    bytes: header(second_header, HEADER_LBA, second_entries),
                },
                first_copy(second_entries),
                copy_of_entries(ENTRIES_LBA),
                first_copy(ENTRIES_LBA),
            ],
        }))
    }

    fn header_of(
        &self,
        own: u64,
        other: u64,
        entries_lba: u64,
        last_usable: u64,
        entries: &[u8],
    ) -> Vec<u8> {
        let mut header = self.header.clone();
        for (at, value) in [(24, own), (32, other), (48, last_usable), (72, entries_lba)] {
            header[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        header[88..92].copy_from_slice(&sum(entries).to_le_bytes());
        let own_sum = header_sum(&header);
        header[16..20].copy_from_slice(&own_sum.to_le_bytes());
        header
    }
}

fn padded(bytes: &[u8]) -> Vec<u8> {
    let mut sectors = bytes.to_vec();
    sectors.resize(bytes.len().next_multiple_of(SECTOR_BYTES), 0);
    sectors
}

/// Returns the checksum of a header, in which its own place counts as zero.
fn header_sum(header: &[u8]) -> u32 {
    let size = (u32_at(header, 12) as usize).min(header.len());
    let mut header = header[..size].to_vec();
    header[16..20].fill(0);
    sum(&header)
}

fn sum(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut value = [0; 4];
    value.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(value)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut value = [0; 8];
    value.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use gpt::disk::LogicalBlockSize;
    use std::fs;
    use std::path::PathBuf;

    const MIB: u64 = 1 << 20;

    /// A disk of 64 MiB with partitions 1, 2 and 4, the last of which ends at 40 MiB.
    fn disk(dir: &Path) -> PathBuf {
        let path = dir.join("disk");
        fs::File::create(&path).unwrap().set_len(64 * MIB).unwrap();
        let mut table = gpt::GptConfig::new()
            .writable(true)
            .logical_block_size(LogicalBlockSize::Lb512)
            .create(&path)
            .unwrap();
        let kind = gpt::partition_types::LINUX_FS;
        for (number, start, size) in [(1, 1, 1), (2, 2, 8), (4, 10, 30)] {
            table
                .add_partition_at("p", number, start * 2048, size * 2048, kind.clone(), 0)
                .unwrap();
        }
        table.write().unwrap();
        leave_out_number_3(&path);
        path
    }

    /// Gives the third partition the number 4: libraries number them anew.
    fn leave_out_number_3(path: &Path) {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .unwrap();
        let mut table = Table::read(&file).unwrap();
        let third = table.entries[256..384].to_vec();
        table.entries[384..512].copy_from_slice(&third);
        table.entries[256..384].fill(0);
        let last = 64 * 2048 - 1;
        let usable = u64_at(&table.header, 48);
        for (own, other, entries) in [(1, last, 2), (last, 1, last - 32)] {
            let header = table.header_of(own, other, entries, usable, &table.entries);
            file.write_all_at(&table.entries, entries * 512).unwrap();
            file.write_all_at(&header, own * 512).unwrap();
        }
    }

    fn enlarge(path: &Path, bytes: u64) {
        let file = OpenOptions::new().write(true).open(path).unwrap();
        file.set_len(bytes).unwrap();
    }

    /// Says where each partition is, from the first copy as the kernel reads it.
    fn partitions(path: &Path) -> Vec<(u32, u64, u64)> {
        let file = File::open(path).unwrap();
        let table = Table::read(&file).unwrap();
        let entries = table.entries.chunks(128).zip(1..);
        let used = entries.filter(|(entry, _)| entry[..16] != [0; 16]);
        used.map(|(entry, number)| (number, u64_at(entry, 32), u64_at(entry, 40)))
            .collect()
    }

    #[test]
    fn the_last_partition_takes_what_the_disk_has_grown_by_and_keeps_its_number() {
        let dir = tempfile::tempdir().unwrap();
        let path = disk(dir.path());
        let before = partitions(&path);
        assert_eq!(before.iter().map(|p| p.0).collect::<Vec<_>>(), [1, 2, 4]);
        enlarge(&path, 256 * MIB);
        let growth = plan(&path, 4).unwrap().unwrap();
        assert_eq!((growth.from_bytes, growth.to_bytes), (30 * MIB, 245 * MIB));
        write(&path, &growth).unwrap();
        let after = partitions(&path);
        assert_eq!(after[..2], before[..2]);
        assert_eq!(after[2], (4, 10 * 2048, 255 * 2048 - 1));
        // Both copies are whole to another reader, the second at the end.
        let table = gpt::GptConfig::new()
            .only_valid_headers(true)
            .open(&path)
            .unwrap();
        let second = table.backup_header().unwrap();
        assert_eq!(second.current_lba, 256 * 2048 - 1);
        assert_eq!(table.primary_header().unwrap().part_start, 2);
        assert_eq!(plan(&path, 4).unwrap(), None);
    }

    #[test]
    fn a_power_cut_between_any_two_writes_leaves_a_valid_table_to_go_on_with() {
        let dir = tempfile::tempdir().unwrap();
        let path = disk(dir.path());
        let before = partitions(&path);
        enlarge(&path, 256 * MIB);
        let whole = plan(&path, 4).unwrap().unwrap();
        let pristine = fs::read(&path).unwrap();
        for done in 0..=whole.writes.len() {
            fs::write(&path, &pristine).unwrap();
            let mut growth = plan(&path, 4).unwrap().unwrap();
            growth.writes.truncate(done);
            write(&path, &growth).unwrap();
            let found = partitions(&path);
            assert_eq!(found[..2], before[..2], "after {done} writes");
            if let Some(rest) = plan(&path, 4).unwrap() {
                write(&path, &rest).unwrap();
            }
            assert_eq!(
                partitions(&path)[2].2,
                255 * 2048 - 1,
                "after {done} writes"
            );
            assert_eq!(plan(&path, 4).unwrap(), None, "after {done} writes");
        }
    }

    #[test]
    fn a_partition_that_is_not_the_last_stays_and_only_the_second_copy_moves() {
        let dir = tempfile::tempdir().unwrap();
        let path = disk(dir.path());
        assert_eq!(plan(&path, 2).unwrap(), None);
        let before = partitions(&path);
        enlarge(&path, 256 * MIB);
        let growth = plan(&path, 2).unwrap().unwrap();
        assert_eq!(growth.from_bytes, growth.to_bytes);
        write(&path, &growth).unwrap();
        assert_eq!(partitions(&path), before);
        assert_eq!(plan(&path, 2).unwrap(), None);
    }

    #[test]
    fn damaged_and_lying_tables_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = disk(dir.path());
        let pristine = fs::read(&path).unwrap();
        assert!(plan(&path, 3).is_err());
        assert!(plan(&path, 0).is_err());
        assert!(plan(&path, u32::MAX).is_err());
        for at in [512, 512 + 12, 512 + 40, 1024 + 33] {
            let mut bytes = pristine.clone();
            bytes[at] ^= 0xff;
            fs::write(&path, &bytes).unwrap();
            assert!(plan(&path, 4).is_err(), "byte {at}");
        }
        // Sums that are right, and entries that are not.
        for (at, value) in [(72, u64::MAX), (80, u64::MAX)] {
            let mut bytes = pristine.clone();
            bytes[512 + at..512 + at + 8].copy_from_slice(&value.to_le_bytes());
            let own = header_sum(&bytes[512..1024]);
            bytes[512 + 16..512 + 20].copy_from_slice(&own.to_le_bytes());
            fs::write(&path, &bytes).unwrap();
            assert!(plan(&path, 4).is_err(), "field {at}");
        }
        fs::write(&path, [0; 4096]).unwrap();
        assert!(plan(&path, 1).is_err());
    }
}
