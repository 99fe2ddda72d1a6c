//! The metadata of a volume group: no byte of a disk is in two places.

#![no_main]

use libfuzzer_sys::fuzz_target;
use va_upgrade::source::fuzzing::volume_group;
use va_upgrade_fuzz::held::bounded;

/// The physical volumes of the seeds.
const UUIDS: [&str; 2] = [
    "wUERAJF7Mrj6dREhemelZc8tB1mP0U5I",
    "2INIrPZI7iqQSYAjsM0YqkNb3bbt6zxG",
];

fuzz_target!(|text: &str| bounded(text.len(), || feed(text)));

fn feed(text: &str) {
    let _ = volume_group(text, &UUIDS, 60 << 20);
}
