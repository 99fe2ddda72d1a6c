//! One chunk to one complete stream of the bundle's codec and back.

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use step::OnStep;

pub mod step;
pub mod xz;
pub mod zstd;

/// How chunks are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Codec {
    /// Each chunk is a complete .xz stream.
    Xz,
    /// Each chunk is a complete Zstandard frame.
    Zstd,
}

impl Codec {
    /// Returns the name of the bundle's payload member.
    pub fn member(self) -> &'static str {
        match self {
            Codec::Xz => "rootfs.tar.xz",
            Codec::Zstd => "rootfs.tar.zst",
        }
    }
}

/// The pieces in which chunks are decoded.
pub const PIECE_BYTES: usize = 1 << 20;

/// How hard chunks are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// With xz.
    Xz(xz::Effort),
    /// With zstd.
    Zstd(zstd::Effort),
}

impl Effort {
    /// Packs `data` as one complete stream, telling `report` of every step.
    pub fn pack(self, data: &[u8], report: OnStep) -> Result<Vec<u8>> {
        match self {
            Effort::Xz(effort) => xz::pack(data, effort, report),
            Effort::Zstd(effort) => zstd::pack(data, effort, report),
        }
    }
}

/// Decodes chunks piece by piece; what it has allocated serves chunk after chunk.
pub struct Decoder {
    stream: Stream,
    /// The last piece, or with zstd all of the chunk so far: its window.
    buffer: Vec<u8>,
    /// How much of the buffer is decoded.
    decoded: usize,
    piece_bytes: usize,
    /// How far the packed chunk has been read.
    read: usize,
    size: usize,
    left: usize,
    is_at_end: bool,
}

enum Stream {
    Xz(xz::Decoder),
    Zstd(zstd::Decoder),
}

impl Decoder {
    /// Makes a decoder that has no chunk yet, for pieces of `piece_bytes`.
    pub fn new(codec: Codec, piece_bytes: usize) -> Result<Decoder> {
        let stream = match codec {
            Codec::Xz => Stream::Xz(xz::Decoder::new()?),
            Codec::Zstd => Stream::Zstd(zstd::Decoder::new()?),
        };
        Ok(Decoder {
            stream,
            buffer: Vec::new(),
            decoded: 0,
            piece_bytes,
            read: 0,
            size: 0,
            left: 0,
            is_at_end: false,
        })
    }

    /// Begins a chunk of `size` bytes.
    pub fn begin(&mut self, size: u64) -> Result<()> {
        self.size = usize::try_from(size)?;
        let buffer_bytes = match &mut self.stream {
            Stream::Xz(stream) => {
                stream.reset()?;
                self.piece_bytes + 1
            }
            Stream::Zstd(stream) => {
                stream.reset()?;
                self.size
            }
        };
        if self.buffer.len() < buffer_bytes {
            self.buffer = vec![0; buffer_bytes];
        }
        (self.read, self.decoded, self.left) = (0, 0, self.size);
        self.is_at_end = false;
        Ok(())
    }

    /// Returns how many bytes of the chunk are still to come.
    pub fn left(&self) -> u64 {
        self.left as u64
    }

    /// Decodes the next piece of `packed`; it is empty at the end.
    ///
    /// Nothing the chunk says makes it write or take more than was announced.
    pub fn next(&mut self, packed: &[u8]) -> Result<&[u8]> {
        let (start, mut decoded) = match self.stream {
            Stream::Xz(_) => (0, 0),
            Stream::Zstd(_) => (self.size - self.left, self.decoded),
        };
        let wanted = start + self.left.min(self.piece_bytes);
        while decoded < wanted {
            decoded += self.step(packed, decoded, wanted)?;
            ensure!(
                decoded >= wanted || !self.is_at_end,
                "it ends after {} of {} bytes",
                self.size - self.left + decoded - start,
                self.size
            );
        }
        self.decoded = decoded;
        if wanted > start {
            self.left -= wanted - start;
            if self.left == 0 {
                self.end(packed)?;
            }
        }
        Ok(&self.buffer[start..wanted])
    }

    /// Checks that chunk and stream end together.
    fn end(&mut self, packed: &[u8]) -> Result<()> {
        // One byte of room tells a stream that ends from one that goes on.
        while !self.is_at_end {
            let beyond = self.step(packed, self.decoded, self.decoded + 1)?;
            ensure!(beyond == 0, "it unpacks to more than {} bytes", self.size);
        }
        ensure!(
            self.read == packed.len(),
            "something follows its {} bytes",
            self.size
        );
        Ok(())
    }

    /// Returns how much it has written to the buffer from `start` on: xz no more
    /// than up to `wanted`, zstd what comes, up to the chunk's size.
    fn step(&mut self, packed: &[u8], start: usize, wanted: usize) -> Result<usize> {
        let input = &packed[self.read..];
        let step = match &mut self.stream {
            Stream::Xz(stream) => stream.step(input, &mut self.buffer[start..wanted])?,
            Stream::Zstd(stream) => stream.step(input, &mut self.buffer[..self.size], start)?,
        };
        self.read += step.read;
        self.is_at_end = step.is_end;
        ensure!(
            step.is_end || step.read + step.written > 0,
            "it ends inside its stream"
        );
        Ok(step.written)
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    const FAST: [(Codec, Effort); 2] = [
        (
            Codec::Xz,
            Effort::Xz(xz::Effort {
                preset: 0,
                dict_bytes: 8 << 20,
                filter: xz::Filter::None,
            }),
        ),
        (
            Codec::Zstd,
            Effort::Zstd(zstd::Effort {
                level: 1,
                window_bytes: 8 << 20,
            }),
        ),
    ];

    /// Decodes a chunk of `size` bytes in pieces of `piece_bytes`.
    pub fn unpack(codec: Codec, packed: &[u8], size: u64, piece_bytes: usize) -> Result<Vec<u8>> {
        let mut decoder = Decoder::new(codec, piece_bytes)?;
        decoder.begin(size)?;
        let mut all = Vec::new();
        loop {
            let piece = decoder.next(packed)?;
            assert!(piece.len() <= piece_bytes);
            if piece.is_empty() {
                return Ok(all);
            }
            all.extend_from_slice(piece);
        }
    }

    #[test]
    fn packing_ends_when_it_is_told_to() {
        for (_, effort) in FAST {
            let mut steps = 0;
            let mut report = |_| {
                steps += 1;
                ensure!(steps < 3, "interrupted");
                Ok(())
            };
            let error = effort.pack(&vec![7; 9 << 20], &mut report).unwrap_err();
            assert_eq!((error.to_string().as_str(), steps), ("interrupted", 3));
        }
    }

    fn sample() -> Vec<u8> {
        (0..200_000_u32)
            .flat_map(|i| (i / 7).to_le_bytes())
            .collect()
    }

    #[test]
    fn a_chunk_survives_in_pieces_of_any_size() {
        for (codec, effort) in FAST {
            for data in [&sample()[..], &vec![7; 3 << 20], b"x"] {
                let mut reported = 0;
                let mut report = |step| {
                    reported += step;
                    Ok(())
                };
                let packed = effort.pack(data, &mut report).unwrap();
                assert_eq!(reported, data.len(), "{codec:?}");
                for piece in [1 << 20, 4096, data.len(), 999] {
                    let unpacked = unpack(codec, &packed, data.len() as u64, piece).unwrap();
                    assert!(unpacked == data, "{codec:?} in pieces of {piece}");
                }
            }
        }
    }

    #[test]
    fn a_chunk_that_lies_about_its_size_is_refused() {
        for (codec, effort) in FAST {
            let zeros = effort.pack(&vec![0; 10 << 20], &mut |_| Ok(())).unwrap();
            for size in [1, 4096, (10 << 20) - 1] {
                let error = unpack(codec, &zeros, size, 1 << 20).unwrap_err();
                assert!(error.to_string().contains("more than"), "{error}");
            }
            for (packed, size) in [
                (&zeros[..], (10 << 20) + 1),
                (&zeros[..zeros.len() - 1], 10 << 20),
                (&[&zeros[..], &[0; 4]].concat(), 10 << 20),
                (&[&zeros[..], &zeros[..]].concat(), 10 << 20),
                (&[], 1),
            ] {
                assert!(unpack(codec, packed, size, 1 << 20).is_err(), "{codec:?}");
            }
        }
    }
}
