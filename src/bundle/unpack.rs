//! Unpacks a payload on several threads.
//!
//! Each thread takes a chunk, checks it, and decodes it in pieces small enough
//! for the processor's cache; what a piece holds is on its way to the disk
//! before the next one is decoded. A chunk that begins with a member waits for
//! nobody. One that goes on with a file waits for the thread before it, which
//! hands the file over as soon as it has read its header.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ScopedJoinHandle};

use anyhow::{Context, Error, Result, anyhow};
use nix::unistd::syncfs;

use super::batch::Batch;
use super::codec::Decoder;
use super::dir_ends::DirEnds;
use super::extract::{Devices, Extractor};
use super::reader::{Bundle, Feed};
use super::strand::Strand;
use crate::failure::{Class, Classify};
use crate::progress::Progress;

/// Directories all threads together keep open; the usual limit is 1024 files.
const OPEN_DIRS: usize = 512;
const MIN_OPEN_DIRS: usize = 8;
/// The pieces in which chunks are decoded and archives from elsewhere read.
pub(super) const PIECE_BYTES: usize = 1 << 20;

/// How much is unpacked before the disk is told to write it.
const WRITE_BACK_BYTES: u64 = 32 << 20;

/// How to unpack.
#[derive(Clone, Copy, Debug)]
pub struct UnpackOptions {
    /// How many threads decode and write; each takes up to 24 MiB for a bundle
    /// of the default mode.
    pub threads: usize,
    /// What to do with device nodes.
    pub devices: Devices,
}

impl UnpackOptions {
    /// Unpacks everything on `threads` threads.
    pub fn new(threads: usize) -> UnpackOptions {
        UnpackOptions {
            threads,
            devices: Devices::Make,
        }
    }
}

/// How far the threads have come.
#[derive(Default)]
struct State {
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

impl State {
    fn end_chunk(&mut self, index: usize) {
        self.done_early.insert(index);
        while self.done_early.remove(&self.done) {
            self.done += 1;
        }
    }
}

/// What all threads see.
pub(super) struct Shared<'a> {
    target: &'a Path,
    options: UnpackOptions,
    open_dirs: usize,
    state: Mutex<State>,
    changed: Condvar,
    unlabelled: AtomicU64,
    progress: &'a dyn Progress,
}

impl<'a> Shared<'a> {
    pub(super) fn new(
        target: &'a Path,
        options: &UnpackOptions,
        progress: &'a dyn Progress,
    ) -> Shared<'a> {
        let threads = options.threads.max(1);
        Shared {
            target,
            options: UnpackOptions {
                threads,
                ..*options
            },
            open_dirs: (OPEN_DIRS / threads).max(MIN_OPEN_DIRS),
            state: Mutex::default(),
            changed: Condvar::new(),
            unlabelled: AtomicU64::new(0),
            progress,
        }
    }

    pub(super) fn extractor(&self) -> Result<Extractor<'_>> {
        Extractor::new(
            self.target,
            self.open_dirs,
            self.options.devices,
            &self.unlabelled,
        )
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn update(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    /// Waits for other threads; answers `None` when one of them has failed.
    fn wait(&self, until: impl Fn(&State) -> bool) -> Option<MutexGuard<'_, State>> {
        let state = self
            .changed
            .wait_while(self.lock(), |state| state.error.is_none() && !until(state))
            .unwrap_or_else(PoisonError::into_inner);
        state.error.is_none().then_some(state)
    }

    /// Takes the chunks of one thread from decoding to disk.
    fn run(&self, feed: &Feed<'_, '_>) -> Result<()> {
        let mut thread = Thread {
            shared: self,
            feed,
            extractor: self.extractor()?,
            decoder: Decoder::new(feed.codec(), PIECE_BYTES)?,
            packed: Vec::new(),
            batch: Batch::default(),
            ends: DirEnds::default(),
        };
        while let Some((index, _)) = feed.next(&mut thread.packed)? {
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
        let dir = File::open(self.target)?;
        while let Some(mut state) =
            self.wait(|state| state.is_finished || state.unwritten >= WRITE_BACK_BYTES)
        {
            if state.is_finished {
                break;
            }
            state.unwritten = 0;
            drop(state);
            sync(&dir, self.target)?;
        }
        Ok(())
    }

    /// Ends what the threads have done with `chunks` chunks.
    fn finish(self, chunks: usize) -> Result<()> {
        let mut state = self.lock();
        if let Some(error) = state.error.take() {
            return Err(error);
        }
        let last = state.handed_over.remove(&chunks).unwrap_or_default();
        let ends = std::mem::take(&mut state.ends);
        drop(state);
        last.parser.finish().class(Class::BadBundle)?;
        self.settle(&ends)
    }

    /// Finishes directories and makes everything durable.
    pub(super) fn settle(self, ends: &[DirEnds]) -> Result<()> {
        let mut extractor = self.extractor()?;
        for ends in ends {
            extractor.end_dirs(ends)?;
        }
        let dir = File::open(self.target)?;
        sync(&dir, self.target)?;
        drop(extractor);
        let unlabelled = self.unlabelled.into_inner();
        if unlabelled > 0 {
            self.progress.note(&format!(
                "{unlabelled} SELinux labels are unknown to the running kernel's policy; \
                 label the tree with its own policy"
            ));
        }
        Ok(())
    }
}

fn sync(dir: &File, target: &Path) -> Result<()> {
    syncfs(dir).with_context(|| format!("syncing {}", target.display()))
}

/// Lets nobody wait for a thread that has panicked.
struct PanicGuard<'t, 's>(&'t Shared<'s>);

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
    shared: &'t Shared<'s>,
    feed: &'t Feed<'b, 'a>,
    extractor: Extractor<'t>,
    decoder: Decoder,
    packed: Vec<u8>,
    batch: Batch,
    ends: DirEnds,
}

impl Thread<'_, '_, '_, '_> {
    /// Unpacks the chunk that `packed` holds; answers `None` when another
    /// thread has failed.
    fn unpack_chunk(&mut self, index: usize) -> Result<Option<()>> {
        let blame = |error| self.feed.bad_chunk(index, error);
        let Some(mut strand) = self.begin(index) else {
            return Ok(None);
        };
        self.decoder
            .begin(self.feed.chunk(index).size)
            .map_err(blame)?;
        let mut is_handed_over = self.hand_over_file(&strand, index);
        loop {
            let piece = self.decoder.next(&self.packed).map_err(blame)?;
            if piece.is_empty() {
                break;
            }
            strand.read(piece, &mut self.batch)?;
            // What a link leads to may still be being written elsewhere.
            let has_links = self.batch.members.iter().any(|m| m.is_hard_link);
            if has_links && self.shared.wait(|state| state.done >= index).is_none() {
                return Ok(None);
            }
            strand.write(piece, &self.batch, &mut self.extractor, &mut self.ends)?;
            self.shared
                .update(|state| state.unwritten += piece.len() as u64);
            self.shared.progress.advance(piece.len() as u64);
            is_handed_over = is_handed_over || self.hand_over_file(&strand, index);
        }
        let is_awaited = !self.feed.begins_with_member(index + 1);
        if !is_awaited && !strand.parser.is_between_members() {
            let error = anyhow!("it does not end with a member, as the manifest says");
            return Err(blame(error));
        }
        self.shared.update(|state| {
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
        let is_here = |state: &State| state.handed_over.contains_key(&index);
        self.shared.wait(is_here)?.handed_over.remove(&index)
    }

    /// Lets the next chunk begin if a file fills the rest of this one.
    fn hand_over_file(&self, strand: &Strand, index: usize) -> bool {
        let Some(next) = strand.after_data(self.decoder.left()) else {
            return false;
        };
        self.shared.update(|state| {
            state.handed_over.insert(index + 1, next);
        });
        true
    }
}

impl Bundle<'_> {
    /// Unpacks the payload beneath the directory `target`, checking each
    /// chunk before a byte of it is decoded. Ends with the data on disk.
    ///
    /// # Errors
    /// When something cannot be written. Class [`Class::BadBundle`] when the
    /// payload is damaged, hostile or not what the manifest says; the target
    /// then holds part of the tree and nothing outside it was touched.
    pub fn unpack(
        mut self,
        target: &Path,
        options: &UnpackOptions,
        progress: &dyn Progress,
    ) -> Result<()> {
        progress.start("unpacking", Some(self.manifest().payload.size_bytes));
        let shared = Shared::new(target, options, progress);
        let chunks = self.manifest().chunks.len();
        let feed = self.feed();
        let note = |ended: Result<()>| {
            if let Err(error) = ended {
                shared.update(|state| {
                    state.error.get_or_insert(error);
                });
            }
        };
        thread::scope(|scope| {
            scope.spawn(|| note(shared.write_back()));
            let threads: Vec<_> = (0..shared.options.threads)
                .map(|_| {
                    scope.spawn(|| {
                        let _guard = PanicGuard(&shared);
                        note(shared.run(&feed));
                    })
                })
                .collect();
            let ended: Vec<_> = threads.into_iter().map(ScopedJoinHandle::join).collect();
            shared.update(|state| state.is_finished = true);
            for ended in ended {
                ended.expect("an unpacking thread does not panic");
            }
        });
        shared
            .finish(chunks)
            .with_context(|| format!("unpacking {} to {}", self.label(), target.display()))?;
        self.check_end()?;
        progress.finish();
        Ok(())
    }
}
