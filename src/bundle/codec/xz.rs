//! xz: one chunk is one complete .xz stream.

use anyhow::{Context, Result};
use xz2::stream::{Action, Check, Filters, LzmaOptions, PRESET_EXTREME, Status, Stream};

use super::step::{Decoded, OnStep, STEP_BYTES};

/// Added to a preset, it is xz's `--extreme`.
pub const EXTREME: u32 = PRESET_EXTREME;
/// No dictionary is smaller, however short the chunk.
const MIN_DICT_BYTES: u32 = 64 << 10;
/// What a decoder may take: a dictionary as large as the largest chunk, and
/// liblzma's own tables.
const DECODER_BYTES: u64 = (64 << 20) + (1 << 20);

/// What is done to data before it is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Nothing.
    None,
    /// Jump targets in x86 code become absolute and so alike.
    X86,
    /// That, where a try shows that it pays.
    TryX86,
}

/// How hard a chunk is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effort {
    /// xz's preset, 0 to 9, perhaps with [`EXTREME`].
    pub preset: u32,
    /// The largest dictionary; it decides about memory.
    pub dict_bytes: u32,
    pub filter: Filter,
}

/// Packs `data` as a .xz stream.
pub fn pack(data: &[u8], effort: Effort, report: OnStep) -> Result<Vec<u8>> {
    match effort.filter {
        Filter::None => pack_with(data, effort, false, report),
        Filter::X86 => pack_with(data, effort, true, report),
        Filter::TryX86 => {
            // Two passes, and each is half the work.
            let filtered = pack_with(data, effort, true, &mut |step| report(step / 2))?;
            let plain = pack_with(data, effort, false, &mut |step| report(step.div_ceil(2)))?;
            Ok(match plain.len() < filtered.len() {
                true => plain,
                false => filtered,
            })
        }
    }
}

fn pack_with(data: &[u8], effort: Effort, is_filtered: bool, report: OnStep) -> Result<Vec<u8>> {
    let mut options = LzmaOptions::new_preset(effort.preset).context("setting up xz")?;
    options.dict_size(dict_bytes(data.len(), effort.dict_bytes));
    let mut filters = Filters::new();
    if is_filtered {
        filters.x86();
    }
    filters.lzma2(&options);
    // The manifest's SHA-256 proves the chunk; the CRC is for stock tools.
    let mut stream = Stream::new_stream_encoder(&filters, Check::Crc32).context("setting up xz")?;
    let mut packed = Vec::with_capacity(data.len() / 2 + 4096);
    let mut done = 0;
    loop {
        let end = data.len().min(done + STEP_BYTES);
        let action = match end == data.len() {
            true => Action::Finish,
            false => Action::Run,
        };
        let status = stream
            .process_vec(&data[done..end], &mut packed, action)
            .context("packing a chunk")?;
        let taken = usize::try_from(stream.total_in())? - done;
        done += taken;
        report(taken)?;
        if status == Status::StreamEnd {
            packed.shrink_to_fit();
            return Ok(packed);
        }
        packed.reserve(STEP_BYTES);
    }
}

/// Returns the smallest usual dictionary that covers `length` bytes, up to `max`.
fn dict_bytes(length: usize, max: u32) -> u32 {
    let wanted = u32::try_from(length.next_power_of_two()).unwrap_or(max);
    wanted.clamp(MIN_DICT_BYTES, max.max(MIN_DICT_BYTES))
}

/// Decodes stream after stream.
pub struct Decoder(Stream);

impl Decoder {
    pub fn new() -> Result<Decoder> {
        let stream = Stream::new_stream_decoder(DECODER_BYTES, 0).context("setting up xz")?;
        Ok(Decoder(stream))
    }

    pub fn reset(&mut self) -> Result<()> {
        *self = Decoder::new()?;
        Ok(())
    }

    pub fn step(&mut self, input: &[u8], room: &mut [u8]) -> Result<Decoded> {
        let before = (self.0.total_in(), self.0.total_out());
        let status = self.0.process(input, room, Action::Finish)?;
        Ok(Decoded {
            read: usize::try_from(self.0.total_in() - before.0)?,
            written: usize::try_from(self.0.total_out() - before.1)?,
            is_end: status == Status::StreamEnd,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::codec::Codec;
    use crate::bundle::codec::tests::unpack;

    fn effort(filter: Filter) -> Effort {
        Effort {
            preset: 0,
            dict_bytes: 8 << 20,
            filter,
        }
    }

    #[test]
    fn the_filter_is_dropped_where_a_try_shows_that_it_does_harm() {
        // Not code: what the filter takes for calls differs ever more.
        let data = b"\xe8\x10\x20\x30\x00".repeat(20_000);
        let filtered = pack(&data, effort(Filter::X86), &mut |_| Ok(())).unwrap();
        let tried = pack(&data, effort(Filter::TryX86), &mut |_| Ok(())).unwrap();
        assert!(
            tried.len() * 2 < filtered.len(),
            "{} {}",
            tried.len(),
            filtered.len()
        );
        for packed in [filtered, tried] {
            let unpacked = unpack(Codec::Xz, &packed, data.len() as u64, 4096).unwrap();
            assert_eq!(unpacked, data);
        }
    }

    #[test]
    fn a_dictionary_beyond_the_limit_is_refused() {
        // An encoder with such a dictionary would take gigabytes; a patched
        // header says the same.
        let packed = pack(b"abc", effort(Filter::None), &mut |_| Ok(())).unwrap();
        let mut bomb = packed.clone();
        // Stream header, then size, flags, LZMA2's id and length, its dictionary.
        assert_eq!(bomb[14..16], [0x21, 1]);
        bomb[16] = 34;
        let sum = crc32(&bomb[12..20]);
        bomb[20..24].copy_from_slice(&sum);
        let error = unpack(Codec::Xz, &bomb, 3, 4096).unwrap_err().to_string();
        assert!(error.to_lowercase().contains("memory"), "{error}");
    }

    fn crc32(bytes: &[u8]) -> [u8; 4] {
        let mut sum = u32::MAX;
        for byte in bytes {
            sum ^= u32::from(*byte);
            for _ in 0..8 {
                sum = (sum >> 1) ^ (0xedb8_8320 & (sum & 1).wrapping_neg());
            }
        }
        (!sum).to_le_bytes()
    }
}
