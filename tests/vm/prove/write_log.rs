//! The write log of QEMU's `blklogwrites`: every write, flush and discard that a
//! machine's disk ever saw, in order.
//!
//! Format: Linux `Documentation/admin-guide/device-mapper/log-writes.rst`, as QEMU's
//! `block/blklogwrites.c` writes it.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

/// What the log and this proof count in.
pub const SECTOR_BYTES: u64 = 512;

const MAGIC: u64 = 0x006a_7366_7773_6872;

const FLUSH: u64 = 1 << 0;
const FUA: u64 = 1 << 1;
const DISCARD: u64 = 1 << 2;

/// What the disk was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Write what the log holds from this byte on.
    Write { at_log_byte: u64 },
    /// Forget the content; it reads as zeros from then on.
    Discard,
    /// Make all before it durable.
    Flush,
}

/// One line of the log.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    pub request: Request,
    /// Where on the disk, in sectors.
    pub sector: u64,
    /// How many sectors.
    pub count: u64,
    /// Whether it was durable by itself.
    pub is_durable: bool,
    /// The byte of the log behind it, by which a moment is named.
    pub end_log_byte: u64,
}

/// A whole log.
pub struct WriteLog {
    file: File,
    pub entries: Vec<Entry>,
}

impl WriteLog {
    /// Reads the log at `path`; its contents stay in the file. The last entry may
    /// have been cut with the machine's power.
    pub fn open(path: &Path) -> Result<WriteLog> {
        let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
        let size = file.metadata()?.len();
        let mut head = [0; 32];
        file.read_exact_at(&mut head, 0)?;
        let word = |number: usize| -> u64 {
            u64::from_le_bytes(std::array::from_fn(|byte| head[number * 8 + byte]))
        };
        ensure!(word(0) == MAGIC, "{} is no write log", path.display());
        let sector_bytes = word(3) & 0xffff_ffff;
        ensure!(
            sector_bytes == SECTOR_BYTES,
            "the log counts in {sector_bytes} bytes"
        );
        let mut entries = Vec::new();
        let mut at = SECTOR_BYTES;
        while at + SECTOR_BYTES <= size {
            let entry = read_entry(&file, at)?;
            if entry.end_log_byte > size {
                break;
            }
            at = entry.end_log_byte;
            entries.push(entry);
        }
        Ok(WriteLog { file, entries })
    }

    /// Returns the number of entries before the moment at which the log had this
    /// many bytes.
    pub fn entries_before(&self, log_bytes: u64) -> usize {
        self.entries
            .partition_point(|entry| entry.end_log_byte <= log_bytes)
    }

    /// Reads content of the log.
    pub fn read(&self, log_byte: u64, into: &mut [u8]) -> Result<()> {
        self.file
            .read_exact_at(into, log_byte)
            .context("reading the write log")
    }
}

fn read_entry(file: &File, at: u64) -> Result<Entry> {
    let mut head = [0; 32];
    file.read_exact_at(&mut head, at)?;
    let word = |number: usize| -> u64 {
        u64::from_le_bytes(std::array::from_fn(|byte| head[number * 8 + byte]))
    };
    // The fourth word is the length of a mark, which QEMU does not write.
    let [sector, count, flags] = std::array::from_fn(word);
    let data_at = at + SECTOR_BYTES;
    let request = match flags & (FLUSH | DISCARD) {
        0 => Request::Write {
            at_log_byte: data_at,
        },
        DISCARD => Request::Discard,
        FLUSH => Request::Flush,
        _ => bail!("entry at byte {at} of the log has flags {flags:#x}"),
    };
    let held = match request {
        Request::Write { .. } => count * SECTOR_BYTES,
        Request::Discard | Request::Flush => 0,
    };
    Ok(Entry {
        request,
        sector,
        count,
        is_durable: flags & FUA != 0,
        end_log_byte: data_at + held,
    })
}
