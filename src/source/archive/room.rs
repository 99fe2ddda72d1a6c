//! The room below `TMPDIR`, asked for before it is taken: a small archive may
//! hold more zeros than any disk.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::sys::statvfs::statvfs;

use crate::refuse;
use crate::system::files;

/// How much is taken until the file system is asked again: others write, too.
const STEP_BYTES: u64 = 16 << 20;

/// Room in a directory.
pub struct Room {
    dir: PathBuf,
    allowed: u64,
}

impl Room {
    /// Looks after the file system of `dir`.
    pub fn new(dir: &Path) -> Room {
        Room {
            dir: dir.to_owned(),
            allowed: 0,
        }
    }

    /// Takes room for about so many bytes.
    ///
    /// # Errors
    /// Class `Refused` when nothing would be spare after that.
    pub fn take(&mut self, bytes: u64) -> Result<()> {
        if bytes > self.allowed {
            let space = statvfs(&self.dir)
                .with_context(|| format!("asking for space in {}", self.dir.display()))?;
            let free = space
                .blocks_available()
                .saturating_mul(space.fragment_size());
            if free < bytes.saturating_add(files::SPARE_BYTES) {
                refuse!("{}", full());
            }
            self.allowed = (free - files::SPARE_BYTES).min(STEP_BYTES.max(bytes));
        }
        self.allowed -= bytes;
        Ok(())
    }
}

/// Says what is full, and the way out.
pub fn full() -> String {
    format!(
        "{} would have less than {} MiB left; set TMPDIR to a directory with room for all that is \
         in the archive",
        files::temp_dir().display(),
        files::SPARE_BYTES >> 20
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::{Class, class_of};

    #[test]
    fn more_than_there_is_is_refused_and_names_the_way_out() {
        let dir = tempfile::tempdir().unwrap();
        let mut room = Room::new(dir.path());
        room.take(4096).unwrap();
        for bytes in [1 << 60, u64::MAX] {
            let error = room.take(bytes).unwrap_err();
            assert_eq!(class_of(&error), Class::Refused);
            assert!(error.to_string().contains("set TMPDIR"), "{error:#}");
        }
    }
}
