//! Zstandard: one chunk is one frame (RFC 8878).

use std::io;

use anyhow::{Context, Result, anyhow, bail};
use zstd::stream::raw::{self, CParameter, DParameter, InBuffer, Operation, OutBuffer};

use super::step::{Decoded, OnStep, STEP_BYTES};

/// The largest window accepted, as a power of two: the largest chunk.
const MAX_WINDOW_LOG: u32 = 26;

/// How much of a packed chunk is decoded at a time, to several times as much.
const INPUT_BYTES: usize = 256 << 10;

/// What zstd says of a frame that is larger than its place.
const TOO_SMALL: &str = "Destination buffer is too small";

/// From this level on, zstd keeps what it has seen in a binary tree.
const MIN_TREE_LEVEL: i32 = 18;

/// How hard a chunk is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effort {
    /// zstd's level, 1 to 22.
    pub level: i32,
    /// How far back a repetition may lie; it decides about memory.
    pub window_bytes: u32,
}

/// Packs `data` as a frame that tells its size.
pub fn pack(data: &[u8], effort: Effort, report: OnStep) -> Result<Vec<u8>> {
    let mut encoder = encoder(data.len(), effort).context("setting up zstd")?;
    let mut packed = Vec::with_capacity(data.len() / 2 + 4096);
    for step in data.chunks(STEP_BYTES) {
        let mut input = InBuffer::around(step);
        while input.pos() < step.len() {
            grow(&mut packed, |output| encoder.run(&mut input, output))?;
        }
        report(step.len())?;
    }
    while grow(&mut packed, |output| encoder.finish(output, true))? > 0 {}
    packed.shrink_to_fit();
    Ok(packed)
}

fn encoder(length: usize, effort: Effort) -> io::Result<raw::Encoder<'static>> {
    let mut encoder = raw::Encoder::new(effort.level)?;
    // The size comes first: with it zstd takes no more memory than it needs.
    encoder.set_pledged_src_size(Some(length as u64))?;
    let log = effort.window_bytes.ilog2();
    encoder.set_parameter(CParameter::WindowLog(log))?;
    if effort.level >= MIN_TREE_LEVEL {
        // By itself only the last level looks through the whole window. The
        // tree has two entries for each place in it.
        encoder.set_parameter(CParameter::ChainLog(log + 1))?;
        encoder.set_parameter(CParameter::HashLog(log - 1))?;
    }
    Ok(encoder)
}

/// Lets `write` append to `packed`.
fn grow(
    packed: &mut Vec<u8>,
    write: impl FnOnce(&mut OutBuffer<Vec<u8>>) -> io::Result<usize>,
) -> Result<usize> {
    packed.reserve(STEP_BYTES);
    let end = packed.len();
    let mut output = OutBuffer::around_pos(packed, end);
    write(&mut output).context("packing a chunk")
}

/// Decodes frame after frame, each into one place that serves as its window.
pub struct Decoder(raw::Decoder<'static>);

impl Decoder {
    pub fn new() -> Result<Decoder> {
        let mut decoder = raw::Decoder::new().context("setting up zstd")?;
        for parameter in [
            DParameter::WindowLogMax(MAX_WINDOW_LOG),
            DParameter::StableOutBuffer(true),
        ] {
            decoder
                .set_parameter(parameter)
                .context("setting up zstd")?;
        }
        Ok(Decoder(decoder))
    }

    pub fn reset(&mut self) -> Result<()> {
        self.0.reinit().context("setting up zstd")
    }

    /// Writes to `frame` from `start` on; for all of a frame it has to be the
    /// same memory.
    pub fn step(&mut self, input: &[u8], frame: &mut [u8], start: usize) -> Result<Decoded> {
        let mut input = InBuffer::around(&input[..input.len().min(INPUT_BYTES)]);
        let size = frame.len();
        let mut output = OutBuffer::around_pos(frame, start);
        let hint = match self.0.run(&mut input, &mut output) {
            Err(error) if error.to_string() == TOO_SMALL => {
                bail!("it unpacks to more than {size} bytes")
            }
            // Its words are about the frame, not about a disk or a network.
            other => other.map_err(|error| anyhow!("{error}"))?,
        };
        Ok(Decoded {
            read: input.pos(),
            written: output.pos() - start,
            is_end: hint == 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::codec::Codec;
    use crate::bundle::codec::tests::unpack;

    #[test]
    fn a_bad_frame_is_no_failure_of_a_disk() {
        let effort = Effort {
            level: 1,
            window_bytes: 1 << 20,
        };
        let frame = pack(&b"some words ".repeat(50), effort, &mut |_| Ok(())).unwrap();
        for bit in 0..frame.len() * 8 {
            let mut bad = frame.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let Err(error) = unpack(Codec::Zstd, &bad, 550, 100) else {
                continue;
            };
            let is_io = error.chain().any(|cause| cause.is::<io::Error>());
            assert!(!is_io, "bit {bit}: {error:#}");
        }
    }

    #[test]
    fn a_window_beyond_the_limit_is_refused() {
        // RFC 8878: magic, descriptor without sizes, window of 2^(10 + 21)
        // bytes, then a last raw block of one byte.
        let bomb = [0x28, 0xb5, 0x2f, 0xfd, 0, 21 << 3, 9, 0, 0, b'x'];
        let error = unpack(Codec::Zstd, &bomb, 1, 1).unwrap_err().to_string();
        assert!(error.to_lowercase().contains("memory"), "{error}");
    }
}
