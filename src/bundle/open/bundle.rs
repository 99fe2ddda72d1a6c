//! A bundle whose manifest is believed: hands out the payload, or checks it whole.

use std::fmt;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::thread;

use anyhow::{Context, Result, ensure};

use super::feed::{Feed, FeedSource, damaged};
use super::input::{Input, Source};
use crate::archive::block::{BLOCK, END, padding};
use crate::bundle::format::container;
use crate::bundle::format::files::FILES;
use crate::bundle::format::index::{Chunk, Index};
use crate::bundle::format::manifest::Manifest;
use crate::progress::{Progress, Step};
use crate::refuse;
use crate::system::files;

/// What was read on the way to the payload.
pub struct Members {
    /// The index.
    pub index: Index,
    /// The list of files, packed, where it cannot be read again.
    pub list: Option<Vec<u8>>,
}

/// A bundle whose manifest has been authenticated.
pub struct Bundle<'a> {
    label: String,
    source: Source<'a>,
    manifest: Manifest,
    index: Index,
    /// Where the first index member begins in the file, header included.
    members_at: u64,
    payload_at: u64,
    /// The list of files, packed, which has gone by.
    list_of_stream: Option<Vec<u8>>,
}

impl fmt::Debug for Bundle<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bundle({})", self.label)
    }
}

impl<'a> Bundle<'a> {
    /// Takes over what has been authenticated; `input` stands at the payload.
    pub fn new(
        label: String,
        input: Input<'a>,
        manifest: Manifest,
        members: Members,
        members_at: u64,
    ) -> Bundle<'a> {
        Bundle {
            label,
            payload_at: input.at,
            source: input.source,
            manifest,
            index: members.index,
            members_at,
            list_of_stream: members.list,
        }
    }

    /// Returns the manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Tells whether it is a stream: what has been read of it has gone by.
    pub fn is_stream(&self) -> bool {
        self.source.by_offset().is_none()
    }

    /// Checks every byte after the manifest against it, without unpacking, which
    /// takes all of a stream.
    ///
    /// # Errors
    /// Class [`Class::BadBundle`] when a byte differs, is missing or is left
    /// over; a block device may be larger than its bundle.
    pub fn verify(&mut self, threads: usize, progress: &dyn Progress) -> Result<()> {
        let packed = self.manifest.payload.packed_bytes;
        progress.start(Step::Verify, Some(packed));
        if !self.is_stream() {
            self.check_end()?;
        }
        let threads = threads.clamp(1, self.index.chunks.len().max(1));
        let feed = self.feed();
        thread::scope(|scope| {
            let workers: Vec<_> = (0..threads)
                .map(|_| scope.spawn(|| verify_chunks(&feed, progress)))
                .collect();
            workers
                .into_iter()
                .try_for_each(|w| w.join().expect("a verifying thread does not panic"))
        })?;
        if self.is_stream() {
            self.check_end()?;
        }
        progress.finish();
        Ok(())
    }

    /// Returns the index.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// Returns the chunks of the payload.
    pub fn chunks(&self) -> &[Chunk] {
        &self.index.chunks
    }

    /// Returns the list of files, packed.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn files(&self) -> Result<Option<Vec<u8>>> {
        let Some(file) = self.source.by_offset() else {
            return Ok(self.list_of_stream.clone());
        };
        let mut at = self.members_at;
        for member in &self.manifest.index {
            at += BLOCK as u64;
            if member.name == FILES {
                let mut content = vec![0; usize::try_from(member.bytes)?];
                file.read_exact_at(&mut content, at)
                    .with_context(|| format!("reading {}", self.label))?;
                return Ok(Some(content));
            }
            at += member.bytes + padding(member.bytes) as u64;
        }
        Ok(None)
    }

    /// Copies all that follows the signatures to where `to` stands.
    ///
    /// # Errors
    /// Class [`Class::Refused`](crate::failure::Class::Refused) of a stream, where
    /// it has gone by, and of a device, in whose place no file can come.
    pub fn copy_members(&self, to: &mut File) -> Result<()> {
        let Source::File(file) = &self.source else {
            refuse!("{} is no file, so nothing can be added to it", self.label);
        };
        let length = file.metadata()?.len();
        files::copy_bytes(file, self.members_at, to, length - self.members_at)
    }

    /// Returns the name that messages call it by.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Hands the chunks of the payload out to several threads.
    pub fn feed(&mut self) -> Feed<'_, 'a> {
        let order = (0..self.index.chunks.len()).collect();
        self.feed_in(order)
    }

    /// Hands out the chunks with the numbers in `order` only; not of a stream.
    pub fn feed_of(&mut self, order: Vec<usize>) -> Result<Feed<'_, 'a>> {
        if self.is_stream() {
            refuse!(
                "{} is a stream; parts of a bundle are only unpacked from a file",
                self.label
            );
        }
        Ok(self.feed_in(order))
    }

    fn feed_in(&mut self, order: Vec<usize>) -> Feed<'_, 'a> {
        let source = match &mut self.source {
            Source::File(file) | Source::Device(file) => FeedSource::file(file, self.payload_at),
            Source::Stream(stream) => FeedSource::stream(stream.as_mut()),
        };
        Feed::new(&self.label, &self.manifest, &self.index, order, source)
    }

    /// Checks what follows the payload; of a stream, all of which has been read.
    pub fn check_end(&mut self) -> Result<()> {
        let packed = self.manifest.payload.packed_bytes;
        let checked = match &mut self.source {
            Source::File(file) => check_tail(file, &self.manifest, self.payload_at)
                .and_then(|()| container::read_end(file)),
            // What a device holds behind the bundle is of an earlier use.
            Source::Device(file) => check_tail(file, &self.manifest, self.payload_at)
                .and_then(|()| container::read_end(&mut file.take(END.len() as u64))),
            Source::Stream(stream) => {
                container::read_padding(stream, &self.manifest.payload.member, packed)
                    .and_then(|()| container::read_end(stream))
            }
        };
        checked.map_err(|error| damaged(&self.label, error))
    }
}

/// Checks that all of the bundle is there; leaves `file` at the end of the tar.
fn check_tail(file: &mut File, manifest: &Manifest, payload_at: u64) -> Result<()> {
    let packed = manifest.payload.packed_bytes;
    let end = payload_at + packed;
    let whole = end + (padding(packed) + END.len()) as u64;
    // Of a device, its metadata say nothing.
    let length = file.seek(SeekFrom::End(0))?;
    ensure!(
        length >= whole,
        "it is cut short: {length} of {whole} bytes"
    );
    file.seek(SeekFrom::Start(end))?;
    container::read_padding(file, &manifest.payload.member, packed)
}

fn verify_chunks(feed: &Feed, progress: &dyn Progress) -> Result<()> {
    let mut packed = Vec::new();
    while let Some((_, chunk)) = feed.next(&mut packed)? {
        progress.advance(chunk.packed);
    }
    Ok(())
}
