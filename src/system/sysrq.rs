//! The kernel's own restart (Linux, "Magic SysRq"), which asks nobody.
//!
//! `kernel.sysrq` restricts what the keyboard may do, not this file.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;

use super::calls::System;

/// The trigger, opened ahead of need: when storage hangs, writing to it does not.
pub struct Sysrq {
    path: PathBuf,
    opened: io::Result<File>,
}

impl Sysrq {
    /// Opens the trigger. Where that fails it is tried again when it is used.
    pub fn open(sys: &dyn System) -> Sysrq {
        let path = sys.at("/proc/sysrq-trigger");
        let opened = File::options().write(true).open(&path);
        Sysrq { path, opened }
    }

    /// Has the kernel begin to write what files still have in memory.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn sync(&self) -> io::Result<()> {
        self.press(b"s")
    }

    /// Restarts the machine at once; nothing is unmounted.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn restart(&self) -> io::Result<()> {
        self.press(b"b")
    }

    fn press(&self, key: &[u8]) -> io::Result<()> {
        match &self.opened {
            Ok(file) => (&mut &*file).write_all(key),
            Err(_) => fs::write(&self.path, key),
        }
    }
}
