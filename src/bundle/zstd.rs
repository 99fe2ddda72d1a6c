//! Zstandard: one chunk is one frame (RFC 8878).

use anyhow::{Context, Result};
use zstd::bulk::Compressor;
use zstd::stream::raw::{self, DParameter, InBuffer, Operation, OutBuffer};
use zstd::zstd_safe::CParameter;

use super::codec::Step;

/// The largest window accepted, as a power of two: the largest chunk.
const MAX_WINDOW_LOG: u32 = 26;

/// How hard a chunk is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Effort {
    /// zstd's level, 1 to 22.
    pub(super) level: i32,
    /// How far back a repetition may lie; it decides about memory.
    pub(super) window_bytes: u32,
}

/// Packs `data` as a frame that tells its size.
pub(super) fn pack(data: &[u8], effort: Effort) -> Result<Vec<u8>> {
    let pack = || -> std::io::Result<Vec<u8>> {
        let mut compressor = Compressor::new(effort.level)?;
        let log = effort.window_bytes.ilog2();
        compressor.set_parameter(CParameter::WindowLog(log))?;
        compressor.compress(data)
    };
    pack().context("packing a chunk")
}

/// Decodes frame after frame.
pub(super) struct Decoder(raw::Decoder<'static>);

impl Decoder {
    pub(super) fn new() -> Result<Decoder> {
        let mut decoder = raw::Decoder::new().context("setting up zstd")?;
        decoder
            .set_parameter(DParameter::WindowLogMax(MAX_WINDOW_LOG))
            .context("setting up zstd")?;
        Ok(Decoder(decoder))
    }

    pub(super) fn reset(&mut self) -> Result<()> {
        self.0.reinit().context("setting up zstd")
    }

    pub(super) fn step(&mut self, input: &[u8], room: &mut [u8]) -> Result<Step> {
        let mut input = InBuffer::around(input);
        let mut output = OutBuffer::around(room);
        let hint = self.0.run(&mut input, &mut output)?;
        Ok(Step {
            read: input.pos(),
            written: output.pos(),
            is_end: hint == 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::bundle::codec::tests::unpack;
    use crate::bundle::manifest::Codec;

    #[test]
    fn a_window_beyond_the_limit_is_refused() {
        // RFC 8878: magic, descriptor without sizes, window of 2^(10 + 21)
        // bytes, then a last raw block of one byte.
        let bomb = [0x28, 0xb5, 0x2f, 0xfd, 0, 21 << 3, 9, 0, 0, b'x'];
        let error = unpack(Codec::Zstd, &bomb, 1, 1).unwrap_err().to_string();
        assert!(error.to_lowercase().contains("memory"), "{error}");
    }
}
