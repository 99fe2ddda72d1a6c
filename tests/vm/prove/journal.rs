//! What a kernel finds in ext4's journal when it mounts a file system after a power
//! cut: which blocks of it are newer there than in their own place.
//!
//! Format: Linux `Documentation/filesystems/ext4/journal.rst` and `fs/jbd2/recovery.c`.
//! Only what the disks of these tests have is known: no checksums, one journal inside.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};

use super::disk_state::DiskState;

const MAGIC: u32 = 0xc03b_3998;
const DESCRIPTOR: u32 = 1;
const COMMIT: u32 = 2;
const REVOKE: u32 = 5;

const ESCAPED: u16 = 1;
const SAME_UUID: u16 = 2;
const LAST: u16 = 8;

/// `JBD2_FEATURE_INCOMPAT_REVOKE` and `..._64BIT`.
const KNOWN_FEATURES: u32 = 0x1 | 0x2;

/// Where a block's newest content is.
#[derive(Clone, Copy, Debug)]
pub struct Newer {
    /// The byte in the file system.
    pub at: u64,
    /// Whether its first four bytes were zeroed to not look like the journal's own.
    pub is_escaped: bool,
}

struct Journal<'a> {
    disk: &'a DiskState,
    start: u64,
    block_bytes: u64,
    /// The journal's blocks, in the file system.
    blocks: Vec<u64>,
    first: u32,
    has_64bit: bool,
}

/// One transaction that was finished.
struct Transaction {
    sequence: u32,
    written: Vec<(u64, Newer)>,
    revoked: Vec<u64>,
}

/// Reads the journal of the file system at byte `start` of the disk; returns the blocks
/// whose newest content is in it, and the size of a block.
pub fn newer_blocks(disk: &DiskState, start: u64) -> Result<(HashMap<u64, Newer>, u64)> {
    let mut head = [0; 1024];
    disk.read(start + 1024, &mut head)?;
    let word = |at: usize| u32::from_le_bytes(std::array::from_fn(|n| head[at + n]));
    ensure!(head[0x38..0x3a] == [0x53, 0xef], "no superblock");
    let block_bytes = 1024_u64 << word(0x18).min(6);
    let needs_recovery = word(0x60) & 0x4 != 0;
    if word(0x5c) & 0x4 == 0 || !needs_recovery {
        return Ok((HashMap::new(), block_bytes));
    }
    // A copy of the journal inode's map stands in the superblock.
    ensure!(head[0xfd] == 1, "no copy of the journal's map");
    let blocks = extents(&head[0x10c..0x10c + 60])?;
    let mut journal = Journal {
        disk,
        start,
        block_bytes,
        blocks,
        first: 0,
        has_64bit: false,
    };
    let own = journal.block(0)?;
    ensure!(big(&own, 0) == MAGIC, "the journal has no superblock");
    let features = big(&own, 0x28);
    ensure!(
        features & !KNOWN_FEATURES == 0,
        "the journal has features {features:#x}"
    );
    journal.has_64bit = features & 0x2 != 0;
    journal.first = big(&own, 0x14);
    let (sequence, at) = (big(&own, 0x18), big(&own, 0x1c));
    let transactions = match at {
        0 => Vec::new(),
        at => journal.transactions(sequence, at)?,
    };
    Ok((replay(&transactions), block_bytes))
}

fn replay(transactions: &[Transaction]) -> HashMap<u64, Newer> {
    let mut revoked: HashMap<u64, u32> = HashMap::new();
    for transaction in transactions {
        for block in &transaction.revoked {
            revoked.insert(*block, transaction.sequence);
        }
    }
    let mut newer = HashMap::new();
    for transaction in transactions {
        for (block, place) in &transaction.written {
            let until = revoked.get(block);
            if until.is_none_or(|until| transaction.sequence > *until) {
                newer.insert(*block, *place);
            }
        }
    }
    newer
}

impl Journal<'_> {
    fn byte(&self, number: u32) -> Result<u64> {
        let block = self.blocks.get(number as usize);
        Ok(block.context("behind the journal's end")? * self.block_bytes)
    }

    fn block(&self, number: u32) -> Result<Vec<u8>> {
        let mut block = vec![0; usize::try_from(self.block_bytes)?];
        self.disk
            .read(self.start + self.byte(number)?, &mut block)?;
        Ok(block)
    }

    fn after(&self, number: u32) -> u32 {
        match number + 1 {
            next if next as usize >= self.blocks.len() => self.first,
            next => next,
        }
    }

    /// Reads transactions until one is not finished.
    fn transactions(&self, mut sequence: u32, mut at: u32) -> Result<Vec<Transaction>> {
        let mut all = Vec::new();
        let mut now = Transaction {
            sequence,
            written: Vec::new(),
            revoked: Vec::new(),
        };
        for _ in 0..self.blocks.len() {
            let block = self.block(at)?;
            if big(&block, 0) != MAGIC || big(&block, 8) != sequence {
                break;
            }
            at = self.after(at);
            match big(&block, 4) {
                DESCRIPTOR => {
                    for (target, is_escaped) in self.tags(&block) {
                        let newer = Newer {
                            at: self.byte(at)?,
                            is_escaped,
                        };
                        now.written.push((target, newer));
                        at = self.after(at);
                    }
                }
                REVOKE => now.revoked.extend(self.revoked(&block)),
                COMMIT => {
                    sequence += 1;
                    let next = Transaction {
                        sequence,
                        written: Vec::new(),
                        revoked: Vec::new(),
                    };
                    all.push(std::mem::replace(&mut now, next));
                }
                _ => break,
            }
        }
        Ok(all)
    }

    /// Lists which blocks follow a descriptor.
    fn tags(&self, block: &[u8]) -> Vec<(u64, bool)> {
        let size = if self.has_64bit { 12 } else { 8 };
        let mut tags = Vec::new();
        let mut at = 12;
        while at + size <= block.len() {
            let flags = u16::from_be_bytes([block[at + 6], block[at + 7]]);
            let high = if self.has_64bit {
                big(block, at + 8)
            } else {
                0
            };
            let target = u64::from(high) << 32 | u64::from(big(block, at));
            tags.push((target, flags & ESCAPED != 0));
            at += size;
            if flags & SAME_UUID == 0 {
                at += 16;
            }
            if flags & LAST != 0 {
                break;
            }
        }
        tags
    }

    fn revoked(&self, block: &[u8]) -> Vec<u64> {
        let end = (big(block, 12) as usize).min(block.len());
        let size = if self.has_64bit { 8 } else { 4 };
        let list = block.get(16..end).unwrap_or_default();
        list.chunks_exact(size)
            .map(|number| {
                number
                    .iter()
                    .fold(0, |sum, byte| sum << 8 | u64::from(*byte))
            })
            .collect()
    }
}

fn big(block: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(std::array::from_fn(|n| block[at + n]))
}

/// Lists the blocks of a map without an index.
fn extents(map: &[u8]) -> Result<Vec<u64>> {
    let short = |at: usize| u16::from_le_bytes([map[at], map[at + 1]]);
    ensure!(
        short(0) == 0xf30a && short(6) == 0,
        "the journal's map is no plain list of extents"
    );
    let mut blocks = Vec::new();
    for number in 0..usize::from(short(2)).min(4) {
        let at = 12 + 12 * number;
        let low = u32::from_le_bytes(std::array::from_fn(|n| map[at + 8 + n]));
        let first = u64::from(short(at + 6)) << 32 | u64::from(low);
        blocks.extend(first..first + u64::from(short(at + 4)));
    }
    Ok(blocks)
}
