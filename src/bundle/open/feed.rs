//! The chunks of a payload, handed out to several threads, each proved genuine.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Error, Result, anyhow};

use crate::bundle::codec::Codec;
use crate::bundle::format::index::{Chunk, Index};
use crate::bundle::format::manifest::Manifest;
use crate::failure::{Class, Classify};
use crate::sha::Sha;
use crate::signals;

/// The chunks of a payload, each proved genuine.
pub struct Feed<'b, 'a> {
    label: &'b str,
    codec: Codec,
    chunks: &'b [Chunk],
    /// The numbers of the chunks that are handed out.
    order: Vec<usize>,
    next: AtomicUsize,
    source: FeedSource<'b, 'a>,
}

/// Where chunks come from.
pub enum FeedSource<'b, 'a> {
    /// A file, and where in it the payload begins.
    File(&'b File, u64),
    /// A stream that stands at the payload.
    Stream(Mutex<&'b mut (dyn Read + Send + 'a)>),
}

impl<'b, 'a> FeedSource<'b, 'a> {
    /// Reads from `file`, whose payload begins at `payload_at`.
    pub fn file(file: &'b File, payload_at: u64) -> FeedSource<'b, 'a> {
        FeedSource::File(file, payload_at)
    }

    /// Reads from `stream`, which stands at the payload.
    pub fn stream(stream: &'b mut (dyn Read + Send + 'a)) -> FeedSource<'b, 'a> {
        FeedSource::Stream(Mutex::new(stream))
    }
}

impl<'b, 'a> Feed<'b, 'a> {
    /// Hands out the chunks with the numbers in `order`.
    pub fn new(
        label: &'b str,
        manifest: &Manifest,
        index: &'b Index,
        order: Vec<usize>,
        source: FeedSource<'b, 'a>,
    ) -> Feed<'b, 'a> {
        Feed {
            label,
            codec: manifest.payload.codec,
            chunks: &index.chunks,
            order,
            next: AtomicUsize::new(0),
            source,
        }
    }

    /// Reads the next chunk into `packed` and checks its digest.
    pub fn next(&self, packed: &mut Vec<u8>) -> Result<Option<(usize, &'b Chunk)>> {
        signals::check()?;
        let (index, chunk) = match &self.source {
            FeedSource::File(file, payload_at) => {
                let Some((index, chunk)) = self.claim() else {
                    return Ok(None);
                };
                let length = resize(packed, chunk);
                let read = file.read_exact_at(&mut packed[..length], payload_at + chunk.offset);
                read.map_err(|error| self.unreadable(index, error))?;
                (index, chunk)
            }
            FeedSource::Stream(stream) => {
                // Claimed under the lock, so that chunks come in order.
                let mut stream = lock(stream);
                let Some((index, chunk)) = self.claim() else {
                    return Ok(None);
                };
                let length = resize(packed, chunk);
                let read = stream.read_exact(&mut packed[..length]);
                read.map_err(|error| self.unreadable(index, error))?;
                (index, chunk)
            }
        };
        if Sha::of(packed) != chunk.sha256 {
            return Err(self.bad_chunk(index, anyhow!("its digest is not the manifest's")));
        }
        Ok(Some((index, chunk)))
    }

    /// Returns how the chunks are packed.
    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// Returns all chunks of the payload.
    pub fn chunks(&self) -> &'b [Chunk] {
        self.chunks
    }

    /// Returns the chunk with the number `index`.
    pub fn chunk(&self, index: usize) -> &'b Chunk {
        &self.chunks[index]
    }

    /// Tells whether the manifest says that there is a chunk with the number
    /// `index` and that it begins with a member.
    pub fn begins_with_member(&self, index: usize) -> bool {
        let chunk = self.chunks.get(index);
        chunk
            .and_then(|c| c.landmarks.as_ref())
            .is_some_and(|i| i.first == 0)
    }

    /// Makes the error for a chunk that turned out bad.
    pub fn bad_chunk(&self, index: usize, error: Error) -> Error {
        let number = index + 1;
        let count = self.chunks.len();
        damaged(
            self.label,
            error.context(format!("chunk {number} of {count}")),
        )
    }

    fn claim(&self) -> Option<(usize, &'b Chunk)> {
        let at = self.next.fetch_add(1, Ordering::Relaxed);
        let index = *self.order.get(at)?;
        Some((index, self.chunks.get(index)?))
    }

    fn unreadable(&self, index: usize, error: io::Error) -> Error {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => self.bad_chunk(index, anyhow!("it is cut short")),
            _ => Error::new(error).context(format!("reading {}", self.label)),
        }
    }
}

/// The manifest has bounded the size.
fn resize(packed: &mut Vec<u8>, chunk: &Chunk) -> usize {
    let length = usize::try_from(chunk.packed).expect("bounded by the manifest");
    packed.resize(length, 0);
    length
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Says what is wrong with a bundle, in the words of one who can only get
/// another copy. A failing disk or network is not the bundle's fault.
pub fn damaged(label: &str, error: Error) -> Error {
    let is_io = error
        .downcast_ref::<io::Error>()
        .is_some_and(|e| e.kind() != io::ErrorKind::UnexpectedEof);
    if is_io {
        return error.context(format!("reading {label}"));
    }
    let text = format!("{label} is not a bundle or is damaged; copy it again");
    Err::<(), _>(error.context(text))
        .class(Class::BadBundle)
        .expect_err("made from an error")
}
