//! A log in a reserved part of a disk, which outlives its partition table.
//!
//! The part lies in front of the first partition, at the same place whatever the
//! table: behind GPT's entries, before the first MiB ends. It is a ring of records of
//! one sector each, so that a power cut spoils one line at most. A record is
//!
//! | bytes | content |
//! |---|---|
//! | 0 to 7 | `VA-LOG1` and a zero |
//! | 8 to 15 | the run it belongs to, little-endian |
//! | 16 to 23 | its number in the run, from 1 |
//! | 24 to 31 | when, in seconds since 1970 |
//! | 32, 33 | the length of the text |
//! | 34 to 479 | the text, UTF-8 |
//! | 480 to 511 | SHA-256 of the bytes before |

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result};

use crate::sha::Sha;

/// Where the area begins on the disk, in bytes.
pub const START_BYTES: u64 = 64 << 10;

/// Its size in bytes: up to the first MiB of the disk.
pub const SIZE_BYTES: u64 = (1 << 20) - START_BYTES;

const RECORD_BYTES: usize = 512;
const RECORDS: u64 = SIZE_BYTES / RECORD_BYTES as u64;
const MAGIC: [u8; 8] = *b"VA-LOG1\0";
const TEXT_AT: usize = 34;
const SUM_AT: usize = 480;

/// One line of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The run it belongs to.
    pub run: u64,
    /// Its number in the run.
    pub number: u64,
    /// When it was written, in seconds since 1970.
    pub time: u64,
    /// What it says.
    pub text: String,
}

impl Line {
    fn render(&self) -> [u8; RECORD_BYTES] {
        let mut record = [0; RECORD_BYTES];
        record[..8].copy_from_slice(&MAGIC);
        for (at, number) in [(8, self.run), (16, self.number), (24, self.time)] {
            record[at..at + 8].copy_from_slice(&number.to_le_bytes());
        }
        let text = self.text.as_bytes();
        let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
        record[32..TEXT_AT].copy_from_slice(&length.to_le_bytes());
        record[TEXT_AT..TEXT_AT + text.len()].copy_from_slice(text);
        let sum = Sha::of(&record[..SUM_AT]);
        record[SUM_AT..].copy_from_slice(&sum.0);
        record
    }

    fn parse(record: &[u8]) -> Option<Line> {
        let number = |at: usize| {
            let bytes = record.get(at..at + 8)?;
            Some(u64::from_le_bytes(bytes.try_into().ok()?))
        };
        let is_whole = record.starts_with(&MAGIC)
            && Sha::of(record.get(..SUM_AT)?).0[..] == *record.get(SUM_AT..RECORD_BYTES)?;
        let length = u16::from_le_bytes([record[32], record[33]]);
        let text = record
            .get(TEXT_AT..SUM_AT)?
            .get(..length.into())
            .filter(|_| is_whole)?;
        Some(Line {
            run: number(8)?,
            number: number(16)?,
            time: number(24)?,
            text: String::from_utf8(text.to_vec()).ok()?,
        })
    }
}

/// The log of one run.
pub struct LogArea {
    file: File,
    run: u64,
    next: u64,
}

impl LogArea {
    /// Opens the area of `disk` for a run, `run` being told from others by its number.
    ///
    /// # Errors
    /// When the disk cannot be opened.
    pub fn open(disk: &Path, run: u64) -> Result<LogArea> {
        let file = OpenOptions::new().write(true).open(disk);
        let file = file.with_context(|| format!("opening {}", disk.display()))?;
        Ok(LogArea { file, run, next: 1 })
    }

    /// Adds `text`, in as many lines as it needs, and makes it durable.
    ///
    /// # Errors
    /// When the disk cannot be written.
    pub fn add(&mut self, time: u64, text: &str) -> Result<()> {
        for part in parts(text) {
            let line = Line {
                run: self.run,
                number: self.next,
                time,
                text: part.to_owned(),
            };
            let at = (self.next % RECORDS) * RECORD_BYTES as u64;
            self.next += 1;
            self.file
                .write_all_at(&line.render(), START_BYTES + at)
                .context("writing the log")?;
        }
        self.file.sync_data().context("writing the log")
    }
}

/// Cuts a text at its ends of lines, and where one does not fit in a record.
fn parts(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for mut line in text.lines().filter(|line| !line.is_empty()) {
        while line.len() > SUM_AT - TEXT_AT {
            let mut end = SUM_AT - TEXT_AT;
            while !line.is_char_boundary(end) {
                end -= 1;
            }
            let (part, rest) = line.split_at(end);
            found.push(part);
            line = rest;
        }
        found.push(line);
    }
    found
}

/// Reads what the area of `disk` holds of its latest run, in order; nothing where it
/// was never used.
///
/// # Errors
/// When the disk cannot be read.
pub fn read(disk: &Path) -> Result<Vec<Line>> {
    let mut area = vec![0; usize::try_from(SIZE_BYTES)?];
    let opened = File::open(disk);
    opened
        .and_then(|file| file.read_exact_at(&mut area, START_BYTES))
        .with_context(|| format!("reading the log on {}", disk.display()))?;
    let mut lines: Vec<Line> = area.chunks(RECORD_BYTES).filter_map(Line::parse).collect();
    let latest = lines.iter().max_by_key(|line| (line.time, line.number));
    let run = latest.map_or(0, |line| line.run);
    lines.retain(|line| line.run == run);
    lines.sort_by_key(|line| line.number);
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk() -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(2 << 20).unwrap();
        file
    }

    fn texts(disk: &Path) -> Vec<String> {
        let lines = read(disk).unwrap();
        lines.into_iter().map(|line| line.text).collect()
    }

    #[test]
    fn the_latest_run_is_read_back_in_order_and_a_spoilt_line_is_left_out() {
        let file = disk();
        assert_eq!(read(file.path()).unwrap(), []);
        let mut log = LogArea::open(file.path(), 7).unwrap();
        log.add(100, "of an older run").unwrap();
        let mut log = LogArea::open(file.path(), 8).unwrap();
        log.add(200, "M10 table\nM11 nodes").unwrap();
        log.add(201, &"ü".repeat(400)).unwrap();
        let found = texts(file.path());
        assert_eq!(found[..2], ["M10 table", "M11 nodes"]);
        assert_eq!(found[2..].concat(), "ü".repeat(400));
        file.as_file()
            .write_all_at(b"x", START_BYTES + 2 * 512 + 40)
            .unwrap();
        assert_eq!(texts(file.path())[0], "M10 table");
        assert_eq!(texts(file.path()).len(), found.len() - 1);
        let edges = [START_BYTES - 1, START_BYTES + SIZE_BYTES].map(|at| {
            let mut byte = [1];
            file.as_file().read_exact_at(&mut byte, at).unwrap();
            byte
        });
        assert_eq!(edges, [[0], [0]]);
    }

    #[test]
    fn a_full_ring_drops_what_is_oldest() {
        let file = disk();
        let mut log = LogArea::open(file.path(), 1).unwrap();
        let text: String = (1..=RECORDS + 5).map(|n| format!("line {n}\n")).collect();
        log.add(1, &text).unwrap();
        let found = texts(file.path());
        assert_eq!(found.len() as u64, RECORDS);
        assert_eq!(found[0], "line 6");
        assert_eq!(found.last().unwrap(), &format!("line {}", RECORDS + 5));
    }

    #[test]
    fn what_others_wrote_there_is_no_log() {
        let mut record = Line {
            run: 1,
            number: 1,
            time: 1,
            text: "x".into(),
        }
        .render();
        assert!(Line::parse(&record).is_some());
        record[32] = 255;
        record[33] = 255;
        let sum = Sha::of(&record[..SUM_AT]);
        record[SUM_AT..].copy_from_slice(&sum.0);
        assert_eq!(Line::parse(&record), None);
        assert_eq!(Line::parse(&[0; RECORD_BYTES]), None);
    }
}
