//! Archives put together from members: every kind, dialect and lie.

#![no_main]

use libfuzzer_sys::fuzz_target;
use va_upgrade_fuzz::check_archive;
use va_upgrade_fuzz::members::{Piece, assemble};

fuzz_target!(|pieces: Vec<Piece>| {
    check_archive(&assemble(&pieces));
});
