//! Where the bytes of a bundle come from, read in order up to the payload.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

/// The file or stream of a bundle.
pub enum Source<'a> {
    /// A file, read by offset.
    File(File),
    /// A block device that begins with the bundle, read by offset.
    Device(File),
    /// A stream, read once.
    Stream(Box<dyn Read + Send + 'a>),
}

impl Source<'_> {
    /// Returns what is read by offset; `None` of a stream.
    pub fn by_offset(&self) -> Option<&File> {
        match self {
            Source::File(file) | Source::Device(file) => Some(file),
            Source::Stream(_) => None,
        }
    }
}

/// A source, and how far it has been read.
pub struct Input<'a> {
    /// The source.
    pub source: Source<'a>,
    /// How many bytes have been read.
    pub at: u64,
}

impl<'a> Input<'a> {
    /// Begins at the first byte.
    pub fn new(source: Source<'a>) -> Input<'a> {
        Input { source, at: 0 }
    }
}

impl Read for Input<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = match &mut self.source {
            Source::File(file) | Source::Device(file) => file.read_at(buffer, self.at),
            Source::Stream(stream) => stream.read(buffer),
        }?;
        self.at += read as u64;
        Ok(read)
    }
}
