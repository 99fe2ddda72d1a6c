//! Unpacks a payload on several threads.
//!
//! Each thread takes a chunk, checks it, and decodes it in pieces small enough
//! for the processor's cache; what a piece holds is on its way to the disk
//! before the next one is decoded. A chunk that begins with a member waits for
//! nobody. One that goes on with a file waits for the thread before it, which
//! hands the file over as soon as it has read its header.

pub mod dir_ends;
pub mod extract;
pub mod listed;
pub mod only;
pub mod place;
pub mod plain;
pub mod shut;
pub mod strand;
pub mod wanted;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::Path;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ScopedJoinHandle};

use anyhow::{Context, Error, Result, anyhow};

use super::open::bundle::Bundle;
use super::open::feed::Feed;
use super::open::pieces::Pieces;
use crate::archive::batch::Batch;
use crate::failure::{Class, Classify};
use crate::progress::{Progress, Step};
use dir_ends::DirEnds;
use extract::Extractor;
use place::{Place, UnpackOptions, sync};
use shut::Shut;
use strand::Strand;

/// How much is unpacked before the disk is told to write it.
const WRITE_BACK_BYTES: u64 = 32 << 20;

/// How far the threads have come.
#[derive(Default)]
struct Standing {
    /// Where the archive goes on, by the chunk it goes on with.
    handed_over: BTreeMap<usize, Strand>,
    /// All chunks before this one are on their way to the disk.
    done: usize,
    /// Those after it that are.
    done_early: BTreeSet<usize>,
    ends: Vec<DirEnds>,
    /// Bytes unpacked since the disk was last told to write.
    unwritten: u64,
    is_finished: bool,
    error: Option<Error>,
}

impl Standing {
    fn end_chunk(&mut self, index: usize) {
        self.done_early.insert(index);
        while self.done_early.remove(&self.done) {
            self.done += 1;
        }
    }
}

/// The threads at work, as each of them sees the others.
struct Crew<'p> {
    place: &'p Place<'p>,
    state: Mutex<Standing>,
    changed: Condvar,
}

impl<'p> Crew<'p> {
    fn new(place: &'p Place<'p>) -> Crew<'p> {
        Crew {
            place,
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Standing> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn update(&self, change: impl FnOnce(&mut Standing)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    /// Notes how a thread ended.
    fn note(&self, ended: Result<()>) {
        if let Err(error) = ended {
            self.update(|state| {
                state.error.get_or_insert(error);
            });
        }
    }

    /// Waits for other threads; answers `None` when one of them has failed.
    fn wait(&self, until: impl Fn(&Standing) -> bool) -> Option<MutexGuard<'_, Standing>> {
        let state = self
            .changed
            .wait_while(self.lock(), |state| state.error.is_none() && !until(state))
            .unwrap_or_else(PoisonError::into_inner);
        state.error.is_none().then_some(state)
    }

    /// Takes the chunks of one thread from decoding to disk.
    fn run(&self, feed: &Feed<'_, '_>) -> Result<()> {
        let mut thread = Thread {
            crew: self,
            feed,
            pieces: Pieces::of(feed)?,
            extractor: self.place.extractor()?,
            batch: Batch::default(),
            ends: DirEnds::default(),
        };
        while let Some((index, _)) = thread.pieces.next_chunk()? {
            if thread.unpack_chunk(index)?.is_none() {
                return Ok(());
            }
        }
        self.lock().ends.push(thread.ends);
        Ok(())
    }

    /// Keeps the disk busy while the threads decode, or all the writing would
    /// be left to the end.
    fn write_back(&self) -> Result<()> {
        let target = self.place.target;
        let dir = File::open(target)?;
        while let Some(mut state) =
            self.wait(|state| state.is_finished || state.unwritten >= WRITE_BACK_BYTES)
        {
            if state.is_finished {
                break;
            }
            state.unwritten = 0;
            drop(state);
            sync(&dir, target)?;
        }
        Ok(())
    }

    /// Ends what the threads have done with `chunks` chunks; returns what is
    /// left to do for the directories.
    fn finish(self, chunks: usize) -> Result<Vec<DirEnds>> {
        let mut state = self.lock();
        if let Some(error) = state.error.take() {
            return Err(error);
        }
        let last = state.handed_over.remove(&chunks).unwrap_or_default();
        let ends = std::mem::take(&mut state.ends);
        drop(state);
        last.parser.finish().class(Class::BadBundle)?;
        Ok(ends)
    }
}

/// Lets nobody wait for a thread that has panicked.
struct PanicGuard<'t, 's>(&'t Crew<'s>);

impl Drop for PanicGuard<'_, '_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.update(|state| {
                state.error.get_or_insert(anyhow!("a thread has panicked"));
            });
        }
    }
}

/// What one thread works with, chunk after chunk.
struct Thread<'t, 's, 'b, 'a> {
    crew: &'t Crew<'s>,
    feed: &'t Feed<'b, 'a>,
    pieces: Pieces<'t, 'b, 'a>,
    extractor: Extractor<'t>,
    batch: Batch,
    ends: DirEnds,
}

impl Thread<'_, '_, '_, '_> {
    /// Unpacks the chunk that was taken; answers `None` when another thread has
    /// failed.
    fn unpack_chunk(&mut self, index: usize) -> Result<Option<()>> {
        let Some(mut strand) = self.begin(index) else {
            return Ok(None);
        };
        let mut is_handed_over = self.hand_over_file(&strand, index);
        while let Some(piece) = self.pieces.next_piece()? {
            strand.read(piece, &mut self.batch)?;
            // What a link leads to may still be being written elsewhere.
            let has_links = self.batch.members.iter().any(|m| m.is_hard_link);
            if has_links && self.crew.wait(|state| state.done >= index).is_none() {
                return Ok(None);
            }
            strand.write(piece, &self.batch, &mut self.extractor, &mut self.ends)?;
            let written = piece.len() as u64;
            self.crew.update(|state| state.unwritten += written);
            self.crew.place.progress.advance(written);
            is_handed_over = is_handed_over || self.hand_over_file(&strand, index);
        }
        let is_awaited = !self.feed.begins_with_member(index + 1);
        if !is_awaited && !strand.parser.is_between_members() {
            let error = anyhow!("it does not end with a member, as the manifest says");
            return Err(self.pieces.blame(error));
        }
        self.crew.update(|state| {
            if is_awaited && !is_handed_over {
                state.handed_over.insert(index + 1, strand);
            }
            state.end_chunk(index);
        });
        Ok(Some(()))
    }

    /// Gives where the archive goes on in the chunk.
    fn begin(&self, index: usize) -> Option<Strand> {
        if index == 0 || self.feed.begins_with_member(index) {
            return Some(Strand::default());
        }
        let is_here = |state: &Standing| state.handed_over.contains_key(&index);
        self.crew.wait(is_here)?.handed_over.remove(&index)
    }

    /// Lets the next chunk begin if a file fills the rest of this one.
    fn hand_over_file(&self, strand: &Strand, index: usize) -> bool {
        let Some(next) = strand.after_data(self.pieces.left()) else {
            return false;
        };
        self.crew.update(|state| {
            state.handed_over.insert(index + 1, next);
        });
        true
    }
}

/// Unpacks the payload of `bundle` beneath the directory `target`, checking each
/// chunk before a byte of it is decoded. Ends with the data on disk.
///
/// # Errors
/// When something cannot be written. Class [`Class::BadBundle`] when the
/// payload is damaged, hostile or not what the manifest says; the target
/// then holds part of the tree, into which nobody but its owner can look, and
/// nothing outside it was touched.
pub fn unpack(
    mut bundle: Bundle,
    target: &Path,
    options: &UnpackOptions,
    progress: &dyn Progress,
) -> Result<()> {
    progress.start(Step::Unpack, Some(bundle.manifest().payload.size_bytes));
    let shut = Shut::new(target)?;
    let payload_bytes = bundle.manifest().payload.size_bytes;
    let place = Place::new(target, options, payload_bytes, progress);
    let crew = Crew::new(&place);
    let chunks = bundle.chunks().len();
    let feed = bundle.feed();
    thread::scope(|scope| {
        scope.spawn(|| crew.note(crew.write_back()));
        let threads: Vec<_> = (0..place.threads)
            .map(|_| {
                scope.spawn(|| {
                    let _guard = PanicGuard(&crew);
                    crew.note(crew.run(&feed));
                })
            })
            .collect();
        let ended: Vec<_> = threads.into_iter().map(ScopedJoinHandle::join).collect();
        crew.update(|state| state.is_finished = true);
        for ended in ended {
            ended.expect("an unpacking thread does not panic");
        }
    });
    let unpacking = format!("unpacking {} to {}", bundle.label(), target.display());
    let ends = crew.finish(chunks).with_context(|| unpacking.clone())?;
    bundle.check_end()?;
    place.settle(&ends, shut).context(unpacking)?;
    progress.finish();
    Ok(())
}
