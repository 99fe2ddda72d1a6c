//! DOS's partition table with its chain of logical partitions, numbered as the
//! kernel does (`block/partitions/msdos.c`).

use std::fs::File;
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result};

use super::partition::{Partition, SECTOR};
use crate::failure::{Class, Classify};
use crate::refuse;

/// The kernel gives up after so many links of the chain without a partition.
const MAX_EMPTY: u32 = 100;
/// More logical partitions than any real disk has; ends a circle of them.
const MAX_LOGICAL: u32 = 60;
const FIRST_LOGICAL: u32 = 5;
const PROTECTIVE: u8 = 0xee;

/// What the first sector says.
pub enum Table {
    /// It is no table.
    None,
    /// The disk has a GPT.
    Protective,
    /// It has these partitions.
    Partitions(Vec<Partition>),
}

/// Reads the table in the first sector, `boot_sector`, of a disk.
///
/// # Errors
/// Class `Refused` when the chain of logical partitions does not end on the disk.
pub fn read(disk: &File, boot_sector: &[u8; 512]) -> Result<Table> {
    let entries = entries(boot_sector);
    if !is_table(boot_sector, &entries) {
        return Ok(Table::None);
    }
    if entries.iter().any(|entry| entry.kind == PROTECTIVE) {
        return Ok(Table::Protective);
    }
    let mut found = Found {
        signature: word(boot_sector, 440),
        next_logical: FIRST_LOGICAL,
        partitions: Vec::new(),
    };
    for (entry, number) in entries.iter().zip(1..) {
        if entry.is_extended() {
            found.add_logical(disk, *entry)?;
        } else if entry.length != 0 {
            found.add(*entry, number, 0);
        }
    }
    let mut partitions = found.partitions;
    partitions.sort_by_key(|partition| partition.number);
    Ok(match partitions.is_empty() {
        true => Table::None,
        false => Table::Partitions(partitions),
    })
}

/// An entry of a table, in sectors.
#[derive(Clone, Copy)]
struct Entry {
    status: u8,
    kind: u8,
    start: u32,
    length: u32,
}

impl Entry {
    fn is_extended(self) -> bool {
        self.length != 0 && matches!(self.kind, 0x05 | 0x0f | 0x85)
    }
}

fn entries(sector: &[u8; 512]) -> [Entry; 4] {
    [446, 462, 478, 494].map(|at| Entry {
        status: sector[at],
        kind: sector[at + 4],
        start: word(sector, at + 8),
        length: word(sector, at + 12),
    })
}

fn has_signature(sector: &[u8; 512]) -> bool {
    sector[510..] == [0x55, 0xaa]
}

fn is_table(sector: &[u8; 512], entries: &[Entry; 4]) -> bool {
    // A bare FAT or NTFS ends in the same two bytes; its code makes no sense as entries.
    let sensible = |entry: &Entry| matches!(entry.status, 0 | 0x80);
    let used = |entry: &Entry| entry.kind != 0 && entry.length != 0;
    has_signature(sector)
        && entries.iter().all(sensible)
        && entries.iter().any(used)
        && sector[54..57] != *b"FAT"
        && sector[82..85] != *b"FAT"
}

/// What was found so far.
struct Found {
    signature: u32,
    next_logical: u32,
    partitions: Vec<Partition>,
}

impl Found {
    /// Follows the chain of logical partitions in the extended one `whole`.
    fn add_logical(&mut self, disk: &File, whole: Entry) -> Result<()> {
        let first = u64::from(whole.start);
        let (mut at, mut length) = (first, u64::from(whole.length));
        let mut empty = 0;
        while empty <= MAX_EMPTY {
            let mut sector = [0; 512];
            disk.read_exact_at(&mut sector, at * SECTOR)
                .context(
                    "reading the table of logical partitions; the image was cut off, copy it again",
                )
                .class(Class::Refused)?;
            if !has_signature(&sector) {
                return Ok(());
            }
            let entries = entries(&sector);
            empty += 1;
            for (entry, index) in entries.iter().zip(0..) {
                if entry.length == 0 || entry.is_extended() {
                    continue;
                }
                // The last two may be leftovers of something else.
                if index >= 2 && !fits(*entry, at, length, whole) {
                    continue;
                }
                if self.next_logical == FIRST_LOGICAL + MAX_LOGICAL {
                    refuse!(
                        "it has more than {MAX_LOGICAL} logical partitions, or they form a circle"
                    );
                }
                self.add(*entry, self.next_logical, at);
                self.next_logical += 1;
                empty = 0;
            }
            let Some(next) = entries.iter().find(|entry| entry.is_extended()) else {
                return Ok(());
            };
            (at, length) = (first + u64::from(next.start), u64::from(next.length));
        }
        Ok(())
    }

    fn add(&mut self, entry: Entry, number: u32, base: u64) {
        self.partitions.push(Partition {
            number,
            offset: (base + u64::from(entry.start)) * SECTOR,
            size_bytes: u64::from(entry.length) * SECTOR,
            uuid: format!("{:08x}-{number:02x}", self.signature),
            label: String::new(),
            kind: String::new(),
        });
    }
}

/// Tells whether an entry of the link at sector `at` lies within that link and
/// within the extended partition `whole`.
fn fits(entry: Entry, at: u64, length: u64, whole: Entry) -> bool {
    let end = u64::from(entry.start) + u64::from(entry.length);
    end <= length && at + end <= u64::from(whole.start) + u64::from(whole.length)
}

fn word(sector: &[u8; 512], at: usize) -> u32 {
    u32::from_le_bytes([sector[at], sector[at + 1], sector[at + 2], sector[at + 3]])
}
