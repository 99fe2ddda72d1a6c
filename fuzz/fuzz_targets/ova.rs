//! OVAs, with the right checksum in every header that is reached, and descriptions.

#![no_main]

use std::fs;

use libfuzzer_sys::fuzz_target;
use va_upgrade::source::fuzzing::{description, ova};
use va_upgrade_fuzz::held::bounded;
use va_upgrade_fuzz::mend_sums;

fuzz_target!(|archive: &[u8]| bounded(archive.len(), || feed(archive)));

fn feed(archive: &[u8]) {
    if let Ok(text) = std::str::from_utf8(archive) {
        let _ = description(text);
    }
    let mut archive = archive.to_vec();
    mend_sums(&mut archive);
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    fs::write(file.path(), &archive).expect("room for it");
    let _ = ova(file.path());
}
