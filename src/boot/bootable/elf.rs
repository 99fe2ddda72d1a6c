//! The two things an ELF file tells about the machine it needs: the
//! architecture, and the instruction set level in its GNU property note.
//!
//! Read-only and bounded; the files come from an image nobody vouches for.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::cpu::CpuLevel;

const MACHINE_386: u16 = 3;
const MACHINE_X86_64: u16 = 62;
const MACHINE_AARCH64: u16 = 183;
const SEGMENT_NOTE: u32 = 4;
const NOTE_GNU_PROPERTY: u32 = 5;
const PROPERTY_X86_ISA_NEEDED: u32 = 0xc000_8002;
const MAX_SEGMENTS: u16 = 64;
const MAX_NOTES: u64 = 64 * 1024;

/// Returns the name `uname -m` would have for the machine of an ELF file;
/// `None` when it is not an ELF file.
pub fn architecture(file: &File) -> io::Result<Option<&'static str>> {
    let mut head = [0; 20];
    match file.read_exact_at(&mut head, 0) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    if !head.starts_with(b"\x7fELF") {
        return Ok(None);
    }
    Ok(Some(match u16::from_le_bytes([head[18], head[19]]) {
        MACHINE_X86_64 => "x86_64",
        MACHINE_386 => "i686",
        MACHINE_AARCH64 => "aarch64",
        _ => "an unknown machine",
    }))
}

/// Returns the level an x86-64 ELF file says it needs; `None` when it says nothing.
pub fn level_needed(file: &File) -> io::Result<Option<CpuLevel>> {
    let mut head = [0; 64];
    file.read_exact_at(&mut head, 0)?;
    let table = u64_at(&head, 32);
    let entry_size = u64::from(u16::from_le_bytes([head[54], head[55]]));
    let count = u16::from_le_bytes([head[56], head[57]]).min(MAX_SEGMENTS);
    for i in 0..u64::from(count) {
        let mut entry = [0; 56];
        let at = table.checked_add(i * entry_size).unwrap_or(u64::MAX / 2);
        file.read_exact_at(&mut entry, at)?;
        let size = u64_at(&entry, 32);
        if u32_at(&entry, 0) != SEGMENT_NOTE || size > MAX_NOTES {
            continue;
        }
        let mut notes = vec![0; usize::try_from(size).unwrap_or(0)];
        file.read_exact_at(&mut notes, u64_at(&entry, 8))?;
        // Property notes are padded to 8 bytes, all others to 4.
        let align = if u64_at(&entry, 48) == 8 { 8 } else { 4 };
        if let Some(level) = level_in_notes(&notes, align) {
            return Ok(Some(level));
        }
    }
    Ok(None)
}

fn level_in_notes(mut notes: &[u8], align: usize) -> Option<CpuLevel> {
    while notes.len() >= 12 {
        let name_size = padded(u32_at(notes, 0), 4)?;
        let content_size = padded(u32_at(notes, 4), align)?;
        let name = notes.get(12..12 + name_size)?;
        let content = notes.get(12 + name_size..)?;
        let content = &content[..content_size.min(content.len())];
        if u32_at(notes, 8) == NOTE_GNU_PROPERTY && name == b"GNU\0" {
            return level_in_properties(content);
        }
        notes = notes.get(12 + name_size + content_size..)?;
    }
    None
}

fn level_in_properties(mut properties: &[u8]) -> Option<CpuLevel> {
    while properties.len() >= 8 {
        let size = padded(u32_at(properties, 4), 8)?;
        if u32_at(properties, 0) == PROPERTY_X86_ISA_NEEDED && properties.len() >= 12 {
            let bits = u32_at(properties, 8);
            return [
                (8, CpuLevel::V4),
                (4, CpuLevel::V3),
                (2, CpuLevel::V2),
                (1, CpuLevel::V1),
            ]
            .into_iter()
            .find_map(|(bit, level)| (bits & bit != 0).then_some(level));
        }
        properties = properties.get(8 + size..)?;
    }
    None
}

fn padded(size: u32, align: usize) -> Option<usize> {
    usize::try_from(size).ok()?.checked_next_multiple_of(align)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

/// Makes small ELF files for tests.
#[cfg(test)]
pub mod sample {
    use super::*;

    /// Returns an x86-64 file with one note segment that needs `level_bits`.
    pub fn x86_64(level_bits: Option<u32>) -> Vec<u8> {
        let mut properties = Vec::new();
        // A property before the one looked for, as real files have.
        for (kind, value) in [(0xc000_0002_u32, 3_u32)]
            .into_iter()
            .chain(level_bits.map(|bits| (PROPERTY_X86_ISA_NEEDED, bits)))
        {
            for word in [kind, 4, value, 0] {
                properties.extend(word.to_le_bytes());
            }
        }
        let mut notes = Vec::new();
        let size = u32::try_from(properties.len()).unwrap();
        for word in [4, size, NOTE_GNU_PROPERTY] {
            notes.extend(word.to_le_bytes());
        }
        notes.extend(b"GNU\0");
        notes.extend(properties);
        let mut file = vec![0; 120];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        file[18..20].copy_from_slice(&MACHINE_X86_64.to_le_bytes());
        file[32] = 64; // the segment table follows the header
        file[54] = 56;
        file[56] = 1;
        file[64] = 4;
        file[72] = 120; // the notes follow the table
        file[96..104].copy_from_slice(&(notes.len() as u64).to_le_bytes());
        file[112] = 8;
        file.extend(notes);
        file
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn file_of(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    #[test]
    fn the_level_stands_in_the_property_note() {
        for (bits, level) in [
            (Some(0x1), Some(CpuLevel::V1)),
            (Some(0x3), Some(CpuLevel::V2)),
            (Some(0x7), Some(CpuLevel::V3)),
            (Some(0xf), Some(CpuLevel::V4)),
            (None, None),
        ] {
            let file = file_of(&sample::x86_64(bits));
            assert_eq!(level_needed(&file).unwrap(), level, "{bits:?}");
            assert_eq!(architecture(&file).unwrap(), Some("x86_64"));
        }
    }

    #[test]
    fn a_script_has_no_architecture() {
        let script = file_of(b"#!/bin/sh\n");
        assert_eq!(architecture(&script).unwrap(), None);
    }

    #[test]
    fn no_cut_or_flipped_byte_makes_the_reader_panic() {
        let good = sample::x86_64(Some(3));
        for len in 0..good.len() {
            drop(level_needed(&file_of(&good[..len])));
        }
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0xff;
            drop(level_needed(&file_of(&bad)));
        }
    }
}
