//! Partition tables of both kinds, with the right checksums in a GPT.

#![no_main]

use std::fs::File;
use std::os::unix::fs::FileExt;

use libfuzzer_sys::fuzz_target;
use va_upgrade::source::fuzzing::table;
use va_upgrade_fuzz::held::bounded;

/// The disk goes on with zeros.
const DISK_BYTES: u64 = 4 << 20;
const HEADER: usize = 512;
const ENTRIES: std::ops::Range<usize> = 1024..1024 + 128 * 128;

fuzz_target!(|start: &[u8]| bounded(start.len(), || feed(start)));

fn feed(start: &[u8]) {
    read(start);
    let mut start = start.to_vec();
    if start.len() >= ENTRIES.end {
        let sum = crc(&start[ENTRIES]);
        start[HEADER + 88..HEADER + 92].copy_from_slice(&sum.to_le_bytes());
        start[HEADER + 16..HEADER + 20].fill(0);
        let sum = crc(&start[HEADER..HEADER + 92]);
        start[HEADER + 16..HEADER + 20].copy_from_slice(&sum.to_le_bytes());
        read(&start);
    }
}

fn read(start: &[u8]) {
    let disk: File = tempfile::tempfile().expect("a temporary file");
    disk.set_len(DISK_BYTES.max(start.len() as u64))
        .expect("its length");
    disk.write_all_at(start, 0).expect("room for it");
    let _ = table(&disk);
}

/// The checksum of GPT, which is zlib's.
fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc: u32, _| {
            (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
        })
    })
}
