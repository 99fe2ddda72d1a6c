//! Unpacks a payload on several threads.
//!
//! Each thread takes a chunk, checks and decodes it. Then, when it is the
//! chunk's turn, it reads the headers in it and makes its directories; and
//! when the turn has passed on, it writes the chunk's files. So headers are
//! read in order, and decoding and writing share the cores as they need them.

use std::io::{ErrorKind, Read};
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::{Context, Error, Result, ensure};
use nix::unistd::syncfs;
use xz2::stream::{Action, CONCATENATED, Status, Stream};

use super::batch::Batch;
use super::dir_ends::DirEnds;
use super::extract::{Devices, Extractor, Spanning};
use super::meta::Kind;
use super::parse::Parser;
use super::reader::{Bundle, Feed};
use super::xz;
use crate::failure::{Class, Classify};
use crate::progress::Progress;
use crate::system::signals;

/// Directories all threads together keep open; the usual limit is 1024 files.
const OPEN_DIRS: usize = 512;
const MIN_OPEN_DIRS: usize = 8;
/// The pieces an archive from elsewhere is read in.
const PIECE_BYTES: usize = 1 << 20;
const FOREIGN_DECODER_BYTES: u64 = 256 << 20;

/// How to unpack.
#[derive(Clone, Copy, Debug)]
pub struct UnpackOptions {
    /// How many threads decode and write; each takes up to 24 MiB.
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

/// What the threads hand on with the turn.
pub(super) struct Turn {
    next: usize,
    pub(super) parser: Parser,
    /// The file that goes on in the next piece.
    pub(super) spanning: Option<Arc<Spanning>>,
    ends: DirEnds,
    /// Pieces whose files are being written.
    writing: usize,
    error: Option<Error>,
}

/// What is left to write of a piece after its turn.
#[derive(Default)]
pub(super) struct Work {
    carried: Option<Arc<Spanning>>,
    /// The last member of the piece, if it goes on in the next one.
    begun: Option<Arc<Spanning>>,
}

impl Turn {
    fn new() -> Turn {
        Turn {
            next: 0,
            parser: Parser::default(),
            spanning: None,
            ends: DirEnds::default(),
            writing: 0,
            error: None,
        }
    }

    /// Reads the headers of a piece and makes its directories.
    fn take(&mut self, piece: &[u8], batch: &mut Batch, extractor: &mut Extractor) -> Result<Work> {
        self.parser.parse(piece, batch).class(Class::BadBundle)?;
        self.begin(batch, extractor)
    }

    /// Makes the directories of a piece whose headers have been read, and the
    /// file that goes on after it.
    pub(super) fn begin(&mut self, batch: &Batch, extractor: &mut Extractor) -> Result<Work> {
        for member in &batch.members {
            if member.meta.kind == Kind::Dir {
                extractor.make_dir(batch.path(member), member, &mut self.ends)?;
            }
        }
        let carried = match batch.carried() {
            [] => None,
            _ => self.spanning.clone(),
        };
        let mut begun = None;
        match batch.members.last() {
            Some(member) if batch.is_unfinished => {
                let spanning = Arc::new(extractor.begin_spanning(batch, member)?);
                begun = Some(Arc::clone(&spanning));
                self.spanning = Some(spanning);
            }
            // The file from before fills the whole piece.
            None if batch.is_unfinished => {}
            _ => self.spanning = None,
        }
        Ok(Work { carried, begun })
    }
}

impl Work {
    /// Writes what is not a directory.
    pub(super) fn write(
        &self,
        piece: &[u8],
        batch: &Batch,
        extractor: &mut Extractor,
    ) -> Result<()> {
        if let Some(carried) = &self.carried {
            extractor.write_spanning(carried, batch.carried(), piece)?;
        }
        let whole = batch.members.len() - usize::from(self.begun.is_some());
        for member in &batch.members[..whole] {
            if member.meta.kind != Kind::Dir {
                signals::check()?;
                extractor.make(batch, member, piece)?;
            }
        }
        if let Some(begun) = &self.begun
            && let Some(member) = batch.members.last()
        {
            extractor.write_spanning(begun, batch.parts(member), piece)?;
        }
        Ok(())
    }
}

/// What all threads see.
pub(super) struct Shared<'a> {
    target: &'a Path,
    options: UnpackOptions,
    open_dirs: usize,
    turn: Mutex<Turn>,
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
            turn: Mutex::new(Turn::new()),
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

    pub(super) fn lock(&self) -> MutexGuard<'_, Turn> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'g>(
        &self,
        guard: MutexGuard<'g, Turn>,
        until: impl Fn(&Turn) -> bool,
    ) -> MutexGuard<'g, Turn> {
        self.changed
            .wait_while(guard, |turn| turn.error.is_none() && !until(turn))
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the pieces of one thread from decoding to disk.
    fn run(&self, feed: &Feed) -> Result<()> {
        let mut extractor = self.extractor()?;
        let (mut packed, mut buffer) = (Vec::new(), Vec::new());
        let mut batch = Batch::default();
        while let Some((index, chunk)) = feed.next(&mut packed)? {
            let size = usize::try_from(chunk.size)?;
            let piece = xz::unpack(&packed, size, &mut buffer)
                .map_err(|error| feed.bad_chunk(index, error))?;
            let mut turn = self.wait(self.lock(), |turn| turn.next == index);
            if turn.error.is_some() {
                return Ok(());
            }
            let work = turn.take(piece, &mut batch, &mut extractor)?;
            self.progress.advance(chunk.size);
            let has_links = batch.members.iter().any(|m| m.is_hard_link);
            if has_links {
                // What a link leads to may still be being written elsewhere.
                turn = self.wait(turn, |turn| turn.writing == 0);
                if turn.error.is_some() {
                    return Ok(());
                }
                work.write(piece, &batch, &mut extractor)?;
                turn.next += 1;
                self.changed.notify_all();
                continue;
            }
            turn.next += 1;
            turn.writing += 1;
            drop(turn);
            self.changed.notify_all();
            work.write(piece, &batch, &mut extractor)?;
            self.lock().writing -= 1;
            self.changed.notify_all();
        }
        Ok(())
    }

    /// Ends what the threads have done.
    fn finish(self) -> Result<()> {
        let mut turn = self.lock();
        if let Some(error) = turn.error.take() {
            return Err(error);
        }
        let parser = std::mem::take(&mut turn.parser);
        drop(turn);
        parser.finish().class(Class::BadBundle)?;
        self.settle()
    }

    /// Finishes directories and makes everything durable, whether or not the
    /// end of the archive was read.
    pub(super) fn settle(self) -> Result<()> {
        let turn = self.turn.into_inner();
        let turn = turn.unwrap_or_else(PoisonError::into_inner);
        Extractor::new(
            self.target,
            self.open_dirs,
            self.options.devices,
            &self.unlabelled,
        )?
        .end_dirs(&turn.ends)?;
        let dir = std::fs::File::open(self.target)?;
        syncfs(&dir).with_context(|| format!("syncing {}", self.target.display()))?;
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
        let feed = self.feed();
        thread::scope(|scope| {
            for _ in 0..shared.options.threads {
                scope.spawn(|| {
                    if let Err(error) = shared.run(&feed) {
                        shared.lock().error.get_or_insert(error);
                        shared.changed.notify_all();
                    }
                });
            }
        });
        shared
            .finish()
            .with_context(|| format!("unpacking {} to {}", self.label(), target.display()))?;
        self.check_end()?;
        progress.finish();
        Ok(())
    }
}

/// Unpacks a `.tar.xz` made by any of the usual tars beneath `target`.
///
/// # Errors
/// When something cannot be read or written. Class [`Class::BadBundle`] when
/// the archive is damaged or hostile.
pub fn unpack_tar_xz(
    mut input: impl Read,
    target: &Path,
    options: &UnpackOptions,
    progress: &dyn Progress,
) -> Result<()> {
    let shared = Shared::new(target, options, progress);
    let mut extractor = shared.extractor()?;
    let mut batch = Batch::default();
    let mut stream = Stream::new_stream_decoder(FOREIGN_DECODER_BYTES, CONCATENATED)?;
    let mut packed = vec![0; PIECE_BYTES];
    let mut piece = Vec::with_capacity(PIECE_BYTES);
    let (mut start, mut end) = (0, 0);
    loop {
        signals::check()?;
        if start == end {
            start = 0;
            end = read_some(&mut input, &mut packed)?;
        }
        let action = if end == 0 {
            Action::Finish
        } else {
            Action::Run
        };
        let before = stream.total_in();
        let status = stream
            .process_vec(&packed[start..end], &mut piece, action)
            .context("decoding the archive")
            .class(Class::BadBundle)?;
        start += usize::try_from(stream.total_in() - before)?;
        let is_stuck = end == 0 && piece.is_empty() && status != Status::StreamEnd;
        ensure!(!is_stuck, "the archive ends inside its xz stream");
        let work = shared.lock().take(&piece, &mut batch, &mut extractor)?;
        work.write(&piece, &batch, &mut extractor)?;
        piece.clear();
        if status == Status::StreamEnd {
            break;
        }
    }
    drop(extractor);
    shared.finish()
}

fn read_some(input: &mut impl Read, buffer: &mut [u8]) -> Result<usize> {
    loop {
        match input.read(buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            other => return other.context("reading the archive"),
        }
    }
}
