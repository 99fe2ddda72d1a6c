//! The bytes of a tar as they come: from any reader, unpacked on the way.

use std::cell::Cell;
use std::io::{self, Cursor, Read, StdinLock};
use std::os::fd::AsFd;
use std::rc::Rc;

use flate2::read::MultiGzDecoder;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use xz2::read::XzDecoder;
use xz2::stream::CONCATENATED;

use crate::signals;
use crate::source::magic::compression;

/// One block of a tar, which tells what it is.
pub const HEAD_BYTES: usize = 512;
/// The most memory that unpacking xz may take; `xz -9` needs 65 MiB.
const MAX_XZ_MEMORY: u64 = 512 << 20;
/// How long a signal waits for the next byte of standard input.
const PATIENCE_MS: u16 = 200;

/// A tar that is read.
pub struct Stream {
    reader: Box<dyn Read>,
    /// Bytes that the packed form has given.
    taken: Rc<Cell<u64>>,
    told: u64,
}

impl Stream {
    /// Reads `source`, which may be packed with gzip, xz or zstd.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn new(source: impl Read + 'static) -> io::Result<Stream> {
        let taken = Rc::new(Cell::new(0));
        let counted = Counted {
            source,
            taken: Rc::clone(&taken),
        };
        let (head, packed) = look_ahead(counted)?;
        let reader: Box<dyn Read> = match compression(&head) {
            Some("gzip") => Box::new(MultiGzDecoder::new(packed)),
            Some("xz") => {
                let decoder = xz2::stream::Stream::new_stream_decoder(MAX_XZ_MEMORY, CONCATENATED)?;
                Box::new(XzDecoder::new_stream(packed, decoder))
            }
            Some("zstd") => Box::new(zstd::stream::read::Decoder::new(packed)?),
            _ => Box::new(packed),
        };
        Ok(Stream {
            reader,
            taken,
            told: 0,
        })
    }

    /// Returns the first block, which is also read after that.
    ///
    /// # Errors
    /// When it cannot be unpacked.
    pub fn head(&mut self) -> io::Result<Vec<u8>> {
        let reader = std::mem::replace(&mut self.reader, Box::new(io::empty()));
        let (head, again) = look_ahead(reader)?;
        self.reader = Box::new(again);
        Ok(head)
    }

    /// Returns how many packed bytes were read since it was last asked.
    pub fn newly_taken(&mut self) -> u64 {
        let new = self.taken.get() - self.told;
        self.told += new;
        new
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer)
    }
}

/// Returns the first block, or what there is of it, and a reader that begins
/// with it.
fn look_ahead<R: Read>(mut reader: R) -> io::Result<(Vec<u8>, impl Read + use<R>)> {
    let mut head = Vec::new();
    reader
        .by_ref()
        .take(HEAD_BYTES as u64)
        .read_to_end(&mut head)?;
    Ok((head.clone(), Cursor::new(head).chain(reader)))
}

/// Counts what it passes on.
struct Counted<R> {
    source: R,
    taken: Rc<Cell<u64>>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.taken.set(self.taken.get() + count as u64);
        Ok(count)
    }
}

/// Standard input, whose reader does not miss a signal while nothing comes.
pub struct StandardInput(StdinLock<'static>);

impl Default for StandardInput {
    fn default() -> StandardInput {
        StandardInput(io::stdin().lock())
    }
}

impl Read for StandardInput {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            signals::check().map_err(io::Error::other)?;
            let mut wait = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
            match poll(&mut wait, PollTimeout::from(PATIENCE_MS)) {
                Ok(0) | Err(Errno::EINTR) => {}
                // Past the library's own buffer, of which poll(2) knows nothing.
                Ok(_) => return Ok(nix::unistd::read(self.0.as_fd(), buffer)?),
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn read_all(packed: Vec<u8>) -> io::Result<Vec<u8>> {
        let mut stream = Stream::new(Cursor::new(packed))?;
        let head = stream.head()?;
        let mut all = Vec::new();
        stream.read_to_end(&mut all)?;
        assert_eq!(all[..head.len()], head);
        Ok(all)
    }

    #[test]
    fn every_packing_is_undone_also_in_several_parts_and_damage_is_noticed() {
        let text = b"to be packed, ".repeat(1000);
        let gzip = |text: &[u8]| {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), Default::default());
            encoder.write_all(text).unwrap();
            encoder.finish().unwrap()
        };
        let xz = |text: &[u8]| {
            let mut encoder = xz2::write::XzEncoder::new(Vec::new(), 1);
            encoder.write_all(text).unwrap();
            encoder.finish().unwrap()
        };
        let zstd = |text: &[u8]| zstd::encode_all(text, 1).unwrap();
        let plain = |text: &[u8]| text.to_vec();
        type Pack<'a> = &'a dyn Fn(&[u8]) -> Vec<u8>;
        let packers: [Pack; 4] = [&plain, &gzip, &xz, &zstd];
        for (number, pack) in packers.iter().enumerate() {
            let (first, second) = text.split_at(600);
            let packed = [pack(first), pack(second)].concat();
            assert_eq!(read_all(packed.clone()).unwrap(), text, "{number}");
            let cut = packed[..packed.len() - 5].to_vec();
            assert_ne!(read_all(cut).ok().as_ref(), Some(&text), "{number}");
        }
        assert_eq!(read_all(b"short".to_vec()).unwrap(), b"short");
    }
}
