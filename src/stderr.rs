//! Messages on standard error, which may have no reader.
//!
//! `eprintln!` panics where the reader went away: a log collector that was
//! restarted must not end an upgrade half-way.

use std::io::{self, Write};

/// Writes a line; that nobody can read it is no reason to stop.
pub fn say(line: &str) {
    write(&format!("{line}\n"));
}

/// Writes `text` as it is, under the same rule.
pub fn write(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}
