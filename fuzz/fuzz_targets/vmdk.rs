//! The descriptor of a VMDK: what is accepted is written and read again as it was.

#![no_main]

use libfuzzer_sys::fuzz_target;
use va_upgrade::source::fuzzing::vmdk_descriptor;

fuzz_target!(|text: &[u8]| {
    let _ = vmdk_descriptor(text);
});
