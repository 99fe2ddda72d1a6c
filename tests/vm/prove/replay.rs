//! Goes through a recording and judges the disk at every moment: after each write,
//! after each flush, with some of the writes since the last flush lost, and torn.

use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;

use anyhow::Result;

use super::disk_state::{DiskState, Overlay, Recording, Versions};
use super::judge::{Judge, Verdict};
use super::volumes::{METADATA_BYTES, PV_START};
use super::write_log::{Entry, Request, SECTOR_BYTES};

/// How many subsets of the writes since the last flush are tried.
const VARIANTS: u64 = 8;

/// What was found over one operation.
#[derive(Default)]
pub struct Found {
    pub writes: usize,
    pub flushes: usize,
    pub states: usize,
    pub distinct: usize,
    /// How often each verdict was given.
    pub verdicts: BTreeMap<Verdict, usize>,
    /// Why a disk starts nothing, with the moment.
    pub neither: Vec<String>,
}

/// A recording that is gone through from its beginning.
pub struct Replay<'a> {
    recording: Rc<Recording>,
    judge: &'a Judge,
    durable: Rc<Versions>,
    /// Entries since the last flush.
    pending: Vec<usize>,
    at: usize,
    seed: u64,
}

impl<'a> Replay<'a> {
    /// Begins before the first entry.
    pub fn new(recording: &Rc<Recording>, judge: &'a Judge, seed: u64) -> Result<Replay<'a>> {
        Ok(Replay {
            recording: recording.clone(),
            judge,
            durable: Rc::new(Versions::of_base(recording)?),
            pending: Vec::new(),
            at: 0,
            seed,
        })
    }

    /// Returns the disk as it is before entry `at`, with everything written.
    pub fn disk_at(&mut self, at: usize) -> Result<DiskState> {
        self.skip_to(at)?;
        self.settle()?;
        Ok(DiskState::new(
            &self.recording,
            &self.durable,
            &Rc::new(Overlay::new()),
        ))
    }

    fn skip_to(&mut self, at: usize) -> Result<()> {
        while self.at < at {
            self.pending.push(self.at);
            if self.recording.log.entries[self.at].request == Request::Flush {
                self.settle()?;
            }
            self.at += 1;
        }
        Ok(())
    }

    /// Makes all that is pending durable.
    fn settle(&mut self) -> Result<()> {
        let durable = Rc::make_mut(&mut self.durable);
        for number in self.pending.drain(..) {
            durable.apply(number, &self.recording.log.entries[number])?;
        }
        Ok(())
    }

    /// Judges the disk at every moment of the entries in `range`.
    pub fn judge_all(&mut self, range: Range<usize>) -> Result<Found> {
        self.skip_to(range.start)?;
        self.settle()?;
        let mut found = Found::default();
        let distinct = self.judge.distinct();
        let mut overlay = Rc::new(Overlay::new());
        self.judge_one(&overlay, &mut found, || "at its beginning".to_owned());
        while self.at < range.end {
            let recording = self.recording.clone();
            let (number, entry) = (self.at, &recording.log.entries[self.at]);
            self.at += 1;
            if entry.request == Request::Flush {
                found.flushes += 1;
                self.judge_losses(number, &mut found)?;
                self.settle()?;
                overlay = Rc::new(Overlay::new());
                self.judge_one(&overlay, &mut found, || format!("after flush {number}"));
                continue;
            }
            found.writes += 1;
            self.pending.push(number);
            let all = Rc::make_mut(&mut overlay);
            put(all, number, entry, 0..entry.count)?;
            if matters(entry) {
                self.judge_one(&overlay, &mut found, || format!("after write {number}"));
            }
        }
        found.distinct = self.judge.distinct() - distinct;
        Ok(found)
    }

    /// Judges the disk with some of the writes before flush `flush` lost, and with one
    /// of them torn between two sectors.
    fn judge_losses(&mut self, flush: usize, found: &mut Found) -> Result<()> {
        let entries = &self.recording.log.entries;
        let those: Vec<usize> = self.pending.clone();
        if !those.iter().any(|number| matters(&entries[*number])) {
            return Ok(());
        }
        for variant in 0..VARIANTS {
            let mut random = Random::new(self.seed ^ (flush as u64) << 8 ^ variant);
            let keep_of_eight = 1 + random.below(7);
            let torn = those[usize::try_from(random.below(those.len() as u64))?];
            let mut overlay = Overlay::new();
            for number in &those {
                let entry = &entries[*number];
                if *number == torn && entry.count > 1 {
                    let cut = 1 + random.below(entry.count - 1);
                    let part = match random.below(2) {
                        0 => 0..cut,
                        _ => cut..entry.count,
                    };
                    put(&mut overlay, *number, entry, part)?;
                } else if entry.is_durable || random.below(8) < keep_of_eight {
                    put(&mut overlay, *number, entry, 0..entry.count)?;
                }
            }
            let moment = || format!("before flush {flush} with losses of variant {variant}");
            self.judge_one(&Rc::new(overlay), found, moment);
        }
        Ok(())
    }

    fn judge_one(&self, overlay: &Rc<Overlay>, found: &mut Found, moment: impl Fn() -> String) {
        let disk = DiskState::new(&self.recording, &self.durable, overlay);
        found.states += 1;
        match self.judge.judge(&disk).0 {
            Ok(verdict) => *found.verdicts.entry(verdict).or_default() += 1,
            Err(reason) => found.neither.push(format!("{}: {reason}", moment())),
        }
    }
}

/// Puts a part of an entry, in sectors of it, on top of `overlay`.
fn put(overlay: &mut Overlay, number: usize, entry: &Entry, part: Range<u64>) -> Result<()> {
    let version = u32::try_from(number + 1)?;
    for sector in part {
        overlay.insert(entry.sector + sector, version);
    }
    Ok(())
}

/// Whether an entry lies where firmware, GRUB and LVM read. What lies in a slot is
/// judged with the next of these, and at each flush.
fn matters(entry: &Entry) -> bool {
    entry.sector * SECTOR_BYTES < PV_START + METADATA_BYTES
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Random {
        Random(seed)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (bits ^ (bits >> 31)) % end.max(1)
    }
}
