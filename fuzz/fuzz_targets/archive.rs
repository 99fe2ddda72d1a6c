//! Archives byte by byte, their sums put right.

#![no_main]

use libfuzzer_sys::fuzz_target;
use va_upgrade_fuzz::{check_archive, mend_sums};

fuzz_target!(|bytes: &[u8]| {
    let mut archive = bytes.to_vec();
    mend_sums(&mut archive);
    check_archive(&archive);
});
