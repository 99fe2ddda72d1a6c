//! What a slot, `/boot` and a package database say of themselves, as the first byte
//! says: nothing panics, and what reads reads back.

#![no_main]

use std::fs;
use std::io::Write;

use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;
use va_upgrade::boot::bootable::elf;
use va_upgrade::boot::record::SlotRecord;
use va_upgrade::boot::state::{State, grubenv};
use va_upgrade::packages::rpm;
use va_upgrade_fuzz::held::bounded;

fuzz_target!(|bytes: &[u8]| bounded(bytes.len(), || feed(bytes)));

fn feed(bytes: &[u8]) {
    let Some((which, rest)) = bytes.split_first() else {
        return;
    };
    match which % 4 {
        0 => {
            let mut block = [b'#'; grubenv::SIZE_BYTES];
            let length = rest.len().min(block.len());
            block[..length].copy_from_slice(&rest[..length]);
            if let Ok(found) = grubenv::parse(&block) {
                let pairs: Vec<(&str, String)> = found
                    .iter()
                    .map(|(name, value)| (&name[..], value.clone()))
                    .collect();
                if let Ok(again) = grubenv::render(&pairs) {
                    assert_eq!(grubenv::parse(&again).expect("its own"), found);
                }
            }
            let dir = TempDir::new().expect("a directory in memory");
            fs::write(dir.path().join("env1"), block).expect("in memory");
            let _ = State::load(dir.path());
        }
        1 => {
            let mut file = tempfile::tempfile().expect("a file in memory");
            file.write_all(rest).expect("in memory");
            let _ = (elf::architecture(&file), elf::level_needed(&file));
        }
        2 => {
            let dir = TempDir::new().expect("a directory in memory");
            fs::write(dir.path().join("slot.yaml"), rest).expect("in memory");
            let _ = SlotRecord::load(dir.path());
        }
        _ => {
            let text = String::from_utf8_lossy(rest);
            for line in text.lines() {
                let _ = (rpm::parse_line(line), rpm::parse_dumped(line));
            }
            for path in rpm::parse_list(&text) {
                assert!(!path.contains('\n'), "{path:?}");
            }
        }
    }
}
