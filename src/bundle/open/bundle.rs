//! A bundle whose manifest is believed: hands out the payload, or checks it whole.

use std::fmt;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::thread;

use anyhow::{Result, anyhow, ensure};

use super::feed::{Feed, FeedSource, damaged};
use crate::bundle::archive::block::{END, padding};
use crate::bundle::format::container;
use crate::bundle::format::manifest::Manifest;
use crate::progress::{Progress, Step};
use crate::refuse;

/// Where the bytes come from.
pub enum Source<'a> {
    File(File),
    Stream(Box<dyn Read + Send + 'a>),
}

/// A bundle whose manifest has been authenticated.
pub struct Bundle<'a> {
    label: String,
    source: Source<'a>,
    manifest: Manifest,
    payload_at: u64,
}

impl fmt::Debug for Bundle<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bundle({})", self.label)
    }
}

impl<'a> Bundle<'a> {
    /// Takes over what has been authenticated.
    pub fn new(
        label: String,
        source: Source<'a>,
        manifest: Manifest,
        payload_at: u64,
    ) -> Bundle<'a> {
        Bundle {
            label,
            source,
            manifest,
            payload_at,
        }
    }

    /// Returns the manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Checks every byte after the manifest against it, without unpacking.
    ///
    /// # Errors
    /// Class [`Class::BadBundle`] when a byte differs, is missing or is left
    /// over. A stream cannot be read twice and is refused.
    pub fn verify(&mut self, threads: usize, progress: &dyn Progress) -> Result<()> {
        let Source::File(file) = &mut self.source else {
            return Err(anyhow!(
                "{} is a stream; it is verified while it is unpacked",
                self.label
            ));
        };
        let packed = self.manifest.payload.packed_bytes;
        progress.start(Step::Verify, Some(packed));
        check_tail(file, &self.manifest, self.payload_at)
            .map_err(|error| damaged(&self.label, error))?;
        let threads = threads.clamp(1, self.manifest.chunks.len().max(1));
        let feed = self.feed();
        thread::scope(|scope| {
            let workers: Vec<_> = (0..threads)
                .map(|_| scope.spawn(|| verify_chunks(&feed, progress)))
                .collect();
            workers
                .into_iter()
                .try_for_each(|w| w.join().expect("a verifying thread does not panic"))
        })?;
        progress.finish();
        Ok(())
    }

    /// Returns where the payload begins in the file.
    pub fn payload_at(&self) -> u64 {
        self.payload_at
    }

    /// Returns the name that messages call it by.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Hands the chunks of the payload out to several threads.
    pub fn feed(&mut self) -> Feed<'_, 'a> {
        let order = (0..self.manifest.chunks.len()).collect();
        self.feed_in(order)
    }

    /// Hands out the chunks with the numbers in `order` only; of a file.
    pub fn feed_of(&mut self, order: Vec<usize>) -> Result<Feed<'_, 'a>> {
        if let Source::Stream(_) = self.source {
            refuse!(
                "{} is a stream; parts of a bundle are only unpacked from a file",
                self.label
            );
        }
        Ok(self.feed_in(order))
    }

    fn feed_in(&mut self, order: Vec<usize>) -> Feed<'_, 'a> {
        let source = match &mut self.source {
            Source::File(file) => FeedSource::file(file, self.payload_at),
            Source::Stream(stream) => FeedSource::stream(stream.as_mut()),
        };
        Feed::new(&self.label, &self.manifest, order, source)
    }

    /// Checks what follows the payload; of a stream, all of which has been read.
    pub fn check_end(&mut self) -> Result<()> {
        let packed = self.manifest.payload.packed_bytes;
        let checked = match &mut self.source {
            Source::File(file) => check_tail(file, &self.manifest, self.payload_at),
            Source::Stream(stream) => {
                container::read_padding(stream, &self.manifest.payload.member, packed)
                    .and_then(|()| container::read_end(stream))
            }
        };
        checked.map_err(|error| damaged(&self.label, error))
    }
}

fn check_tail(file: &mut File, manifest: &Manifest, payload_at: u64) -> Result<()> {
    let packed = manifest.payload.packed_bytes;
    let end = payload_at + packed;
    let whole = end + (padding(packed) + END.len()) as u64;
    let length = file.metadata()?.len();
    ensure!(
        length >= whole,
        "it is cut short: {length} of {whole} bytes"
    );
    file.seek(SeekFrom::Start(end))?;
    container::read_padding(file, &manifest.payload.member, packed)?;
    container::read_end(file)
}

fn verify_chunks(feed: &Feed, progress: &dyn Progress) -> Result<()> {
    let mut packed = Vec::new();
    while let Some((_, chunk)) = feed.next(&mut packed)? {
        progress.advance(chunk.packed);
    }
    Ok(())
}
