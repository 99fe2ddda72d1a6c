//! An archive behind an initramfs, in a form that the kernel reads there.
//!
//! The kernel unpacks one archive after the other, each packed or not (Linux,
//! "initramfs buffer format"). Behind all packings but one a plain archive is
//! read. LZ4's decoder (lib/decompress_unlz4.c) takes whatever follows for
//! another frame of its own, so behind that the archive is such a frame.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result};

/// LZ4's legacy frame format, the only one that the kernel reads.
const LZ4: [u8; 4] = [0x02, 0x21, 0x4c, 0x18];
/// A plain archive's entry begins with one of these.
const NEWC: [&[u8]; 2] = [b"070701", b"070702"];
const HEADER_BYTES: usize = 110;

/// Returns what puts `archive` behind the image `initramfs`.
///
/// # Errors
/// When the image cannot be read.
pub fn behind(initramfs: &File, archive: &[u8]) -> Result<Vec<u8>> {
    let read = || -> Result<Vec<u8>> {
        let size = initramfs.metadata()?.len();
        if last_magic(initramfs, size)? == LZ4 {
            return lz4_frame(archive);
        }
        let padding = usize::try_from(size.next_multiple_of(4) - size)?;
        Ok([&[0; 3][..padding], archive].concat())
    };
    read().context("looking at how it is packed")
}

/// Returns the first bytes of what follows the plain archives at the beginning,
/// such as the processor's microcode.
fn last_magic(image: &File, size: u64) -> io::Result<[u8; 4]> {
    let mut at = 0;
    let mut magic = [0; 4];
    while at + magic.len() as u64 <= size {
        image.read_exact_at(&mut magic, at)?;
        at = match entry_bytes(image, at, size)? {
            Some(bytes) => at + bytes,
            None if magic == [0; 4] => at + 4,
            None => break,
        };
    }
    Ok(magic)
}

/// Returns how many bytes the archive's entry at `at` takes, if one is there.
fn entry_bytes(image: &File, at: u64, size: u64) -> io::Result<Option<u64>> {
    const CONTENT_BYTES: usize = 54;
    const NAME_BYTES: usize = 94;
    if size - at < HEADER_BYTES as u64 {
        return Ok(None);
    }
    let mut header = [0; HEADER_BYTES];
    image.read_exact_at(&mut header, at)?;
    let field = |offset: usize| {
        let digits = str::from_utf8(&header[offset..offset + 8]).ok()?;
        u64::from_str_radix(digits, 16).ok()
    };
    let sizes = NEWC
        .contains(&&header[..6])
        .then(|| field(NAME_BYTES).zip(field(CONTENT_BYTES)))
        .flatten();
    Ok(sizes.map(|(name, content)| {
        let start = (HEADER_BYTES as u64 + name).next_multiple_of(4);
        (start + content).next_multiple_of(4)
    }))
}

/// Renders a frame of one block that holds `bytes` as they are (LZ4 Frame Format,
/// "Legacy frame"; LZ4 Block Format: a last sequence has literals only).
fn lz4_frame(bytes: &[u8]) -> Result<Vec<u8>> {
    const SHORT: usize = 15;
    let mut block = vec![u8::try_from(bytes.len().min(SHORT) << 4)?];
    if let Some(more) = bytes.len().checked_sub(SHORT) {
        block.resize(block.len() + more / 255, 255);
        block.push(u8::try_from(more % 255)?);
    }
    block.extend_from_slice(bytes);
    let length = u32::try_from(block.len())?;
    Ok([&LZ4, &length.to_le_bytes()[..], &block].concat())
}

#[cfg(test)]
mod tests {
    use super::super::newc::{self, Entry};
    use super::*;

    fn image(parts: &[&[u8]]) -> File {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&parts.concat(), 0).unwrap();
        file
    }

    #[test]
    fn behind_lz4_an_archive_is_a_frame_and_elsewhere_it_is_plain() {
        let microcode = newc::archive(&[Entry {
            path: "kernel/x86/microcode/GenuineIntel.bin",
            mode: 0o100_644,
            content: &LZ4,
        }]);
        let archive = b"an archive of more than fifteen bytes";
        let frame = [&LZ4, &[39, 0, 0, 0, 0xf0, 22][..], archive].concat();
        let lz4 = [&LZ4, b"packed".as_slice()].concat();
        let gap = [0; 512];
        for parts in [
            &[&lz4[..]][..],
            &[&microcode, &lz4],
            &[&microcode, &gap, &lz4],
        ] {
            assert_eq!(behind(&image(parts), archive).unwrap(), frame);
        }
        let plain = [&[0, 0], archive.as_slice()].concat();
        for parts in [
            &[&b"\x1f\x8b packed"[..]][..],
            &[&microcode, b"\x1f\x8bpacked"],
        ] {
            let padded = (parts.concat().len() + 2).is_multiple_of(4);
            let seen = behind(&image(parts), archive).unwrap();
            assert!(
                seen.ends_with(archive) && (seen == plain || !padded),
                "{seen:?}"
            );
        }
        assert_eq!(behind(&image(&[]), archive).unwrap(), archive);
        assert_eq!(behind(&image(&[&microcode]), archive).unwrap(), archive);
    }

    #[test]
    fn a_frame_of_any_length_is_read_back() {
        for length in [0, 14, 15, 16, 269, 270, 271, 5000] {
            let bytes = vec![7; length];
            let frame = lz4_frame(&bytes).unwrap();
            let mut at = 9;
            let mut literals = usize::from(frame[8] >> 4);
            while literals >= 15 && frame[at] == 255 {
                (literals, at) = (literals + 255, at + 1);
            }
            if literals >= 15 {
                (literals, at) = (literals + usize::from(frame[at]), at + 1);
            }
            assert_eq!((literals, &frame[at..]), (length, &bytes[..]));
        }
    }
}
