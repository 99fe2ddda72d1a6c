//! The machinery of the VM tests: images made on this machine, and guests
//! driven one command at a time. Nothing here knows what is being tested.

pub mod cache;
pub mod channel;
pub mod disk;
pub mod guest;
pub mod images;
pub mod qemu;
pub mod rootfs;

use std::io::Write;
use std::sync::OnceLock;
use std::time::Instant;

use va_upgrade::system::Host;

/// The machine the tests run on.
pub fn host() -> Host {
    Host::new(false)
}

/// Tells whoever watches a long run what happens, past libtest's capture.
pub fn say(text: &str) {
    static START: OnceLock<Instant> = OnceLock::new();
    let seconds = START.get_or_init(Instant::now).elapsed().as_secs();
    let line = format!("[{seconds:5} s] {text}\n");
    // A closed stderr is no reason to fail a test.
    let _ = std::io::stderr().write_all(line.as_bytes());
}
