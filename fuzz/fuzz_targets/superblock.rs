//! The beginning of a volume: superblocks, and LVM's label with what it leads to.

#![no_main]

use std::os::unix::fs::FileExt;

use libfuzzer_sys::fuzz_target;
use va_upgrade::source::fuzzing::superblock;
use va_upgrade_fuzz::held::bounded;

/// The volume goes on with zeros.
const VOLUME_BYTES: u64 = 4 << 20;

fuzz_target!(|start: &[u8]| bounded(start.len(), || feed(start)));

fn feed(start: &[u8]) {
    let volume = tempfile::tempfile().expect("a temporary file");
    volume.set_len(VOLUME_BYTES).expect("its length");
    volume.write_all_at(start, 0).expect("room for it");
    superblock(&volume, VOLUME_BYTES);
    superblock(&volume, start.len() as u64);
}
