//! One chunk to one complete .xz stream and back.

use anyhow::{Context, Result, ensure};
use xz2::stream::{Action, Check, Filters, LzmaOptions, Status, Stream};

/// The dictionary the default preset uses, and the least any chunk gets.
const DEFAULT_DICT_BYTES: u32 = 8 << 20;
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

/// Packs `data` as a .xz stream.
pub(super) fn pack(data: &[u8], preset: u32, filter: Filter) -> Result<Vec<u8>> {
    let mut options = LzmaOptions::new_preset(preset).context("setting up xz")?;
    options.dict_size(dict_bytes(data.len()));
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

/// Returns the smallest usual dictionary that covers `length` bytes, up to the default.
fn dict_bytes(length: usize) -> u32 {
    let wanted = u32::try_from(length.next_power_of_two()).unwrap_or(DEFAULT_DICT_BYTES);
    wanted.clamp(64 << 10, DEFAULT_DICT_BYTES)
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

    fn sample() -> Vec<u8> {
        (0..200_000_u32)
            .flat_map(|i| (i / 7).to_le_bytes())
            .collect()
    }

    #[test]
    fn a_chunk_survives_with_and_without_the_filter() {
        for filter in [Filter::None, Filter::X86] {
            for data in [&sample()[..], b"x"] {
                let packed = pack(data, 6, filter).unwrap();
                let mut out = vec![9; 3];
                assert_eq!(unpack(&packed, data.len(), &mut out).unwrap(), data);
            }
        }
    }

    #[test]
    fn a_chunk_that_lies_about_its_size_is_refused_without_growing() {
        let zeros = pack(&vec![0; 10 << 20], 6, Filter::None).unwrap();
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
        let packed = pack(b"abc", 0, Filter::None).unwrap();
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
