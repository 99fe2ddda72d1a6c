//! What a disk holds at a moment: for each sector the entry of the write log that
//! wrote it last. Nothing is copied; contents are read from the log and the base.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::rc::Rc;

use anyhow::{Context, Result};
use va_upgrade::sha::Sha;

use super::write_log::{Entry, Request, SECTOR_BYTES, WriteLog};

/// A recording: the disk before, and what was written since.
pub struct Recording {
    base: File,
    pub log: WriteLog,
}

impl Recording {
    /// Opens the raw disk of before and the log.
    pub fn open(base: &Path, log: &Path) -> Result<Recording> {
        Ok(Recording {
            base: File::open(base).with_context(|| format!("opening {}", base.display()))?,
            log: WriteLog::open(log)?,
        })
    }

    /// Returns the disk's size in sectors.
    pub fn sectors(&self) -> Result<u64> {
        Ok(self.base.metadata()?.len() / SECTOR_BYTES)
    }

    /// Reads sectors that all come from the same entry, 0 for the base.
    fn read_run(&self, version: u32, sector: u64, into: &mut [u8]) -> Result<()> {
        let Some(entry) = (version as usize)
            .checked_sub(1)
            .map(|n| self.log.entries[n])
        else {
            let at = sector * SECTOR_BYTES;
            return self
                .base
                .read_exact_at(into, at)
                .context("reading the base");
        };
        match entry.request {
            Request::Write { at_log_byte } => {
                let at = at_log_byte + (sector - entry.sector) * SECTOR_BYTES;
                self.log.read(at, into)
            }
            Request::Discard | Request::Flush => {
                into.fill(0);
                Ok(())
            }
        }
    }
}

/// The sectors' versions when everything up to some entry is on the disk.
#[derive(Clone)]
pub struct Versions(Vec<u32>);

impl Versions {
    /// Those of the base.
    pub fn of_base(recording: &Recording) -> Result<Versions> {
        Ok(Versions(vec![0; usize::try_from(recording.sectors()?)?]))
    }

    /// Puts the entry with this number on the disk.
    pub fn apply(&mut self, number: usize, entry: &Entry) -> Result<()> {
        if entry.request == Request::Flush {
            return Ok(());
        }
        let version = u32::try_from(number + 1)?;
        let start = usize::try_from(entry.sector)?;
        let end = start + usize::try_from(entry.count)?;
        let end = end.min(self.0.len());
        self.0[start.min(end)..end].fill(version);
        Ok(())
    }
}

/// What the note of what was read takes for one run.
const RUN_BYTES: usize = 20;

/// Some of the writes that were not durable yet, by sector.
pub type Overlay = BTreeMap<u64, u32>;

/// A disk at a moment. A clone shares the note of what was read.
#[derive(Clone)]
pub struct DiskState {
    recording: Rc<Recording>,
    durable: Rc<Versions>,
    overlay: Rc<Overlay>,
    /// A byte that is another than it was written, where a test wants that.
    harm: Option<u64>,
    /// What was read: runs of sectors with their versions. Two states of which the
    /// same was read are the same to the reader.
    read: Rc<RefCell<Vec<u8>>>,
}

impl DiskState {
    /// Returns the disk with what is durable and, on top, `overlay`.
    pub fn new(
        recording: &Rc<Recording>,
        durable: &Rc<Versions>,
        overlay: &Rc<Overlay>,
    ) -> DiskState {
        DiskState {
            recording: recording.clone(),
            durable: durable.clone(),
            overlay: overlay.clone(),
            harm: None,
            read: Rc::default(),
        }
    }

    /// The same disk with the byte at `at` changed.
    pub fn harmed(&self, at: u64) -> DiskState {
        DiskState {
            harm: Some(at),
            read: Rc::default(),
            ..self.clone()
        }
    }

    /// Finds the byte of the disk at which a sector with this content was read since
    /// the last [`DiskState::take_trace`].
    pub fn find_read(&self, content: &[u8]) -> Result<Option<u64>> {
        let trace = self.read.take();
        for run in trace.chunks_exact(RUN_BYTES) {
            if run == [0xff; RUN_BYTES] {
                continue;
            }
            let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|n| run[at + n]));
            for sector in word(0)..word(0) + word(8) {
                let at = sector * SECTOR_BYTES;
                let mut held = [0; 512];
                self.read(at, &mut held)?;
                if held.starts_with(&content[..content.len().min(held.len())]) {
                    return Ok(Some(at));
                }
            }
        }
        Ok(None)
    }

    /// Writes the whole disk to `path`, a copy of the base.
    pub fn write_to(&self, path: &Path) -> Result<()> {
        let file = File::options().write(true).open(path)?;
        for (sector, count, version) in self.runs(0, self.recording.sectors()?)? {
            if version != 0 {
                let mut content = vec![0; usize::try_from(count * SECTOR_BYTES)?];
                self.recording.read_run(version, sector, &mut content)?;
                file.write_all_at(&content, sector * SECTOR_BYTES)?;
            }
        }
        Ok(())
    }

    /// Returns a digest of which content was read since the last call.
    pub fn take_trace(&self) -> Sha {
        Sha::of(&self.read.take())
    }

    /// Reads bytes from anywhere on the disk.
    pub fn read(&self, at: u64, into: &mut [u8]) -> Result<()> {
        let size = u64::try_from(into.len())?;
        let (first, end) = (at / SECTOR_BYTES, (at + size).div_ceil(SECTOR_BYTES));
        let mut sectors = vec![0; usize::try_from((end - first) * SECTOR_BYTES)?];
        for (sector, count, version) in self.runs(first, end)? {
            let from = usize::try_from((sector - first) * SECTOR_BYTES)?;
            let to = from + usize::try_from(count * SECTOR_BYTES)?;
            self.recording
                .read_run(version, sector, &mut sectors[from..to])?;
        }
        if let Some(harm) = self.harm
            && (first * SECTOR_BYTES..end * SECTOR_BYTES).contains(&harm)
        {
            sectors[usize::try_from(harm - first * SECTOR_BYTES)?] ^= 0x55;
        }
        let skip = usize::try_from(at - first * SECTOR_BYTES)?;
        into.copy_from_slice(&sectors[skip..skip + into.len()]);
        Ok(())
    }

    /// Tells which content the sectors have, without reading it.
    pub fn runs(&self, first: u64, end: u64) -> Result<Vec<(u64, u64, u32)>> {
        let mut runs: Vec<(u64, u64, u32)> = Vec::new();
        let mut changed = self.overlay.range(first..end).peekable();
        for sector in first..end {
            let version = match changed.next_if(|(at, _)| **at == sector) {
                Some((_, version)) => *version,
                None => {
                    let index = usize::try_from(sector)?;
                    *self.durable.0.get(index).context("behind the disk's end")?
                }
            };
            match runs.last_mut() {
                Some((_, count, same)) if *same == version => *count += 1,
                _ => runs.push((sector, 1, version)),
            }
        }
        let mut read = self.read.borrow_mut();
        if self
            .harm
            .is_some_and(|harm| (first..end).contains(&(harm / SECTOR_BYTES)))
        {
            // As long as a run.
            read.extend([0xff; RUN_BYTES]);
        }
        for (sector, count, version) in &runs {
            read.extend(sector.to_le_bytes());
            read.extend(count.to_le_bytes());
            read.extend(version.to_le_bytes());
        }
        Ok(runs)
    }
}
