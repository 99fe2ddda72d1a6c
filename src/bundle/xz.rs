//! One chunk to one complete .xz stream and back.

use anyhow::{Context, Result, ensure};
use xz2::stream::{Action, Check, Filters, LzmaOptions, PRESET_EXTREME, Status, Stream};

/// No dictionary is smaller, however short the chunk.
const MIN_DICT_BYTES: u32 = 64 << 10;
/// What a decoder may take: a dictionary as large as the largest chunk, and
/// liblzma's own tables.
const DECODER_BYTES: u64 = (64 << 20) + (1 << 20);

/// What is done to data before it is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Filter {
    /// Nothing.
    None,
    /// Jump targets in x86 code become absolute and so alike.
    X86,
}

/// How hard a chunk is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Effort {
    /// xz's preset, 0 to 9.
    pub(super) preset: u32,
    /// xz's `--extreme`, and the filter only where a try shows that it pays.
    pub(super) is_extreme: bool,
    /// The largest dictionary; it decides about memory.
    pub(super) max_dict_bytes: u32,
}

/// Packs `data` as a .xz stream; `filter` is the likely one.
pub(super) fn pack(data: &[u8], effort: Effort, filter: Filter) -> Result<Vec<u8>> {
    let packed = pack_with(data, effort, filter)?;
    if !effort.is_extreme || filter == Filter::None {
        return Ok(packed);
    }
    let plain = pack_with(data, effort, Filter::None)?;
    Ok(if plain.len() < packed.len() {
        plain
    } else {
        packed
    })
}

fn pack_with(data: &[u8], effort: Effort, filter: Filter) -> Result<Vec<u8>> {
    let extreme = if effort.is_extreme { PRESET_EXTREME } else { 0 };
    let mut options = LzmaOptions::new_preset(effort.preset | extreme).context("setting up xz")?;
    options.dict_size(dict_bytes(data.len(), effort.max_dict_bytes));
    let mut filters = Filters::new();
    if filter == Filter::X86 {
        filters.x86();
    }
    filters.lzma2(&options);
    // The manifest's SHA-256 proves the chunk; the CRC is for stock tools.
    let mut stream = Stream::new_stream_encoder(&filters, Check::Crc32).context("setting up xz")?;
    let mut packed = Vec::with_capacity(data.len() / 2 + 4096);
    loop {
        let done = usize::try_from(stream.total_in())?;
        let status = stream
            .process_vec(&data[done..], &mut packed, Action::Finish)
            .context("packing a chunk")?;
        if status == Status::StreamEnd {
            packed.shrink_to_fit();
            return Ok(packed);
        }
        packed.reserve(1 << 20);
    }
}

/// Returns the smallest usual dictionary that covers `length` bytes, up to `max`.
fn dict_bytes(length: usize, max: u32) -> u32 {
    let wanted = u32::try_from(length.next_power_of_two()).unwrap_or(max);
    wanted.clamp(MIN_DICT_BYTES, max.max(MIN_DICT_BYTES))
}

/// Unpacks a chunk of exactly `size` bytes into the beginning of `out`.
///
/// `out` grows to `size` and never shrinks: a buffer that is used again need
/// not be cleared again. Nothing the chunk says makes it write or take more.
pub(super) fn unpack<'a>(packed: &[u8], size: usize, out: &'a mut Vec<u8>) -> Result<&'a [u8]> {
    if out.len() < size {
        out.resize(size, 0);
    }
    let mut stream = Stream::new_stream_decoder(DECODER_BYTES, 0).context("setting up xz")?;
    let (mut read, mut written) = (0, 0);
    loop {
        // One byte of room more tells a stream that ends from one that goes on.
        let mut beyond = [0; 1];
        let room = match written < size {
            true => &mut out[written..size],
            false => &mut beyond[..],
        };
        let status = stream.process(&packed[read..], room, Action::Finish)?;
        let before = (read, written);
        read = usize::try_from(stream.total_in())?;
        written = usize::try_from(stream.total_out())?;
        ensure!(written <= size, "it unpacks to more than {size} bytes");
        if status == Status::StreamEnd {
            break;
        }
        ensure!(before != (read, written), "it ends inside its stream");
    }
    ensure!(
        written == size && read == packed.len(),
        "it ends after {written} of {size} bytes"
    );
    Ok(&out[..size])
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAST: Effort = Effort {
        preset: 0,
        is_extreme: false,
        max_dict_bytes: 8 << 20,
    };

    fn sample() -> Vec<u8> {
        (0..200_000_u32)
            .flat_map(|i| (i / 7).to_le_bytes())
            .collect()
    }

    #[test]
    fn a_chunk_survives_with_and_without_the_filter() {
        for filter in [Filter::None, Filter::X86] {
            for data in [&sample()[..], b"x"] {
                let packed = pack(data, FAST, filter).unwrap();
                let mut out = vec![9; 3];
                assert_eq!(unpack(&packed, data.len(), &mut out).unwrap(), data);
            }
        }
    }

    #[test]
    fn the_filter_is_dropped_where_a_try_shows_that_it_does_harm() {
        let best = Effort {
            is_extreme: true,
            ..FAST
        };
        // Not code: what the filter takes for calls differs ever more.
        let data = b"\xe8\x10\x20\x30\x00".repeat(20_000);
        let filtered = pack(&data, FAST, Filter::X86).unwrap();
        let tried = pack(&data, best, Filter::X86).unwrap();
        assert!(
            tried.len() * 2 < filtered.len(),
            "{} {}",
            tried.len(),
            filtered.len()
        );
        let mut out = Vec::new();
        assert_eq!(unpack(&tried, data.len(), &mut out).unwrap(), data);
    }

    #[test]
    fn a_chunk_that_lies_about_its_size_is_refused_without_growing() {
        let zeros = pack(&vec![0; 10 << 20], FAST, Filter::None).unwrap();
        let mut out = Vec::new();
        for size in [1, 4096, (10 << 20) - 1] {
            let error = unpack(&zeros, size, &mut out).unwrap_err().to_string();
            assert!(error.contains("more than"), "{error}");
            assert_eq!(out.len(), size);
        }
        assert!(unpack(&zeros, (10 << 20) + 1, &mut out).is_err());
        assert!(unpack(&zeros[..zeros.len() - 1], 10 << 20, &mut out).is_err());
        let longer = [&zeros[..], &[0; 4]].concat();
        assert!(unpack(&longer, 10 << 20, &mut out).is_err());
    }

    #[test]
    fn a_dictionary_beyond_the_limit_is_refused() {
        // An encoder with such a dictionary would take gigabytes; a patched
        // header says the same.
        let packed = pack(b"abc", FAST, Filter::None).unwrap();
        let mut bomb = packed.clone();
        // Stream header, then size, flags, LZMA2's id and length, its dictionary.
        assert_eq!(bomb[14..16], [0x21, 1]);
        bomb[16] = 34;
        let sum = crc32(&bomb[12..20]);
        bomb[20..24].copy_from_slice(&sum);
        let error = unpack(&bomb, 3, &mut Vec::new()).unwrap_err().to_string();
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
