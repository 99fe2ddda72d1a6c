//! Packs the payload chunk by chunk on several threads and writes the chunks
//! in order.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::{Context, Error, Result, anyhow};

use super::group::Group;
use super::plan::PackPlan;
use crate::bundle::codec::Effort;
use crate::bundle::format::index::Chunk;
use crate::bundle::format::landmarks::{Landmarks, Names};
use crate::progress::Progress;
use crate::sha::Sha;
use crate::signals;

/// Chunks shorter than this are not worth ending where a group ends.
const MIN_CHUNK_BYTES: usize = 1 << 20;

/// What packing needs beside the stream.
pub struct Packing<'a> {
    pub threads: usize,
    pub plan: PackPlan,
    pub progress: &'a dyn Progress,
}

/// Takes the tar stream and cuts it into chunks.
pub struct ChunkWriter<'a> {
    buffer: Vec<u8>,
    plan: PackPlan,
    /// What the chunk so far is made of.
    group: Group,
    /// The names of the member being written; it may go on in the next chunk.
    member: Names,
    /// The names in the chunk so far.
    names: Names,
    /// Where the first member begins that begins in it.
    first: Option<usize>,
    number: usize,
    sender: SyncSender<Job>,
    shared: &'a Crew,
}

struct Job {
    number: usize,
    data: Vec<u8>,
    effort: Effort,
    landmarks: Landmarks,
}

struct Crew {
    output: Mutex<Output>,
    changed: Condvar,
    threads: usize,
}

struct Output {
    file: File,
    next: usize,
    /// Packed chunks that wait for one before them.
    waiting: BTreeMap<usize, Packed>,
    chunks: Vec<Chunk>,
    end: u64,
    spare: Vec<Vec<u8>>,
    error: Option<Error>,
}

struct Packed {
    data: Vec<u8>,
    size: u64,
    sha256: Sha,
    landmarks: Landmarks,
}

impl Output {
    /// Writes the chunks whose turn it is.
    fn write_ready(&mut self) -> Result<()> {
        while let Some(packed) = self.waiting.remove(&self.next) {
            self.file
                .write_all(&packed.data)
                .context("writing the payload")?;
            let chunk = Chunk {
                offset: self.end,
                packed: packed.data.len() as u64,
                size: packed.size,
                sha256: packed.sha256,
                landmarks: Some(packed.landmarks),
            };
            self.end += chunk.packed;
            self.next += 1;
            self.chunks.push(chunk);
        }
        Ok(())
    }
}

/// Runs `produce` and packs what it writes into `file`.
pub fn pack_chunks<T>(
    file: File,
    packing: &Packing,
    produce: impl FnOnce(&mut ChunkWriter) -> Result<T>,
) -> Result<(T, Vec<Chunk>)> {
    let threads = packing.threads.max(1);
    let shared = Crew {
        output: Mutex::new(Output {
            file,
            next: 0,
            waiting: BTreeMap::new(),
            chunks: Vec::new(),
            end: 0,
            spare: Vec::new(),
            error: None,
        }),
        changed: Condvar::new(),
        threads,
    };
    // Without a queue: a chunk handed over is a chunk being packed, and
    // memory is bounded by the number of threads.
    let (sender, receiver) = sync_channel(0);
    let receiver = Arc::new(Mutex::new(receiver));
    let produced: Result<T> = thread::scope(|scope| {
        for _ in 0..threads {
            let receiver = Arc::clone(&receiver);
            let shared = &shared;
            scope.spawn(move || {
                if let Err(error) = pack_jobs(&receiver, shared, packing) {
                    shared.fail(error);
                }
            });
        }
        // With the threads' clones gone, sending fails once all have failed.
        drop(receiver);
        let mut writer = ChunkWriter {
            buffer: Vec::new(),
            plan: packing.plan,
            group: Group::EarlyDirs,
            member: Names::default(),
            names: Names::default(),
            first: None,
            number: 0,
            sender,
            shared: &shared,
        };
        let produced = produce(&mut writer)?;
        writer.cut()?;
        Ok(produced)
    });
    let output = shared
        .output
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    // A failed thread is the cause of the producer's failure, not the other way round.
    match output.error {
        Some(error) => Err(error),
        None => Ok((produced?, output.chunks)),
    }
}

impl ChunkWriter<'_> {
    /// Begins the member `path`, which has about `bytes` bytes.
    pub fn begin_member(&mut self, path: &[u8], bytes: u64) -> Result<()> {
        // Who unpacks a chunk that begins with a member need not wait for the
        // one before it.
        let fits = bytes <= (self.limit() - self.buffer.len()) as u64;
        if !fits && self.buffer.len() >= self.limit() / 2 {
            self.cut()?;
        }
        self.member.clear();
        self.member.add(path);
        if self.buffer.is_empty() {
            // The member before it ended with its chunk.
            self.names.clear();
        }
        self.names.extend(&self.member);
        self.first.get_or_insert(self.buffer.len());
        Ok(())
    }

    /// Adds bytes to the stream.
    pub fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let take = bytes.len().min(self.limit() - self.buffer.len());
            self.buffer.extend_from_slice(&bytes[..take]);
            bytes = &bytes[take..];
            self.cut_full()?;
        }
        Ok(())
    }

    /// Adds `length` bytes of `file` from `offset`, showing them to `look`.
    pub fn write_file(
        &mut self,
        file: &File,
        mut offset: u64,
        length: u64,
        look: &mut dyn FnMut(&[u8]),
    ) -> Result<()> {
        let end = offset + length;
        while offset < end {
            signals::check()?;
            let start = self.buffer.len();
            let room = (self.limit() - start).min(1 << 20);
            let step = usize::try_from(end - offset).map_or(room, |left| left.min(room));
            self.buffer.resize(start + step, 0);
            file.read_exact_at(&mut self.buffer[start..], offset)
                .context("the file has become shorter meanwhile")?;
            look(&self.buffer[start..]);
            offset += step as u64;
            self.cut_full()?;
        }
        Ok(())
    }

    /// Begins the members of `group`, in a new chunk if this one is worth ending.
    pub fn begin_group(&mut self, group: Group) -> Result<()> {
        if self.buffer.len() >= MIN_CHUNK_BYTES || self.buffer.len() >= self.plan.chunk_bytes(group)
        {
            self.cut()?;
        }
        self.group = group;
        Ok(())
    }

    fn limit(&self) -> usize {
        self.plan.chunk_bytes(self.group)
    }

    /// Ends the chunk so far, if there is anything in it.
    pub fn cut(&mut self) -> Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let mut names = std::mem::replace(&mut self.names, self.member.clone());
        names.sort();
        let first = self.first.take().unwrap_or(self.buffer.len());
        let landmarks = Landmarks {
            first: first as u64,
            names,
        };
        let job = Job {
            number: self.number,
            data: std::mem::take(&mut self.buffer),
            effort: self.plan.effort(self.group),
            landmarks,
        };
        self.number += 1;
        let sent = self.sender.send(job);
        sent.map_err(|_| anyhow!("the packing threads have ended"))?;
        // Whoever took it has left its own buffer behind, unless it had none.
        self.buffer = self.shared.lock().spare.pop().unwrap_or_default();
        Ok(())
    }

    fn cut_full(&mut self) -> Result<()> {
        if self.buffer.len() < self.limit() {
            return Ok(());
        }
        self.cut()
    }
}

impl Crew {
    fn lock(&self) -> MutexGuard<'_, Output> {
        self.output.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fail(&self, error: Error) {
        self.lock().error.get_or_insert(error);
        self.changed.notify_all();
    }
}

fn pack_jobs(receiver: &Mutex<Receiver<Job>>, shared: &Crew, packing: &Packing) -> Result<()> {
    loop {
        let next = receiver
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .recv();
        let Ok(mut job) = next else {
            return Ok(());
        };
        let data = job.effort.pack(&job.data, &mut |step| {
            packing.progress.advance(step as u64);
            signals::check()
        })?;
        let packed = Packed {
            sha256: Sha::of(&data),
            size: job.data.len() as u64,
            data,
            landmarks: job.landmarks,
        };
        job.data.clear();

        let mut output = shared.lock();
        output.spare.push(job.data);
        let is_early = |o: &mut Output| {
            o.error.is_none() && o.next != job.number && o.waiting.len() >= shared.threads
        };
        output = shared
            .changed
            .wait_while(output, is_early)
            .unwrap_or_else(PoisonError::into_inner);
        if output.error.is_some() {
            return Ok(());
        }
        output.waiting.insert(job.number, packed);
        output.write_ready()?;
        drop(output);
        shared.changed.notify_all();
    }
}
