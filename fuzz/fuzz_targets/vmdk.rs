//! The descriptor of a VMDK: what is accepted is written and read again as it was.

#![no_main]

use libfuzzer_sys::fuzz_target;
use va_upgrade::source::fuzzing::vmdk_descriptor;
use va_upgrade_fuzz::held::bounded;

fuzz_target!(|text: &[u8]| bounded(text.len(), || feed(text)));

fn feed(text: &[u8]) {
    let _ = vmdk_descriptor(text);
}
