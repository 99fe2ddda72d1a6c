//! The first and the last MiB of a disk, kept in RAM: every partition table, boot code
//! and the gap with GRUB's core that the table of the old system consists of.

use std::fs::{File, OpenOptions};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use nix::fcntl::{OFlag, PosixFadviseAdvice, posix_fadvise};

use crate::refuse;

const EDGE_BYTES: u64 = 1 << 20;

/// Both edges as they were.
pub struct Edges {
    disk: PathBuf,
    saved: Vec<(u64, Vec<u8>)>,
}

impl Edges {
    /// Copies the edges of `disk`, of `size_bytes`, which nobody may hold.
    ///
    /// # Errors
    /// Class `Refused` when somebody does. Else when it cannot be read.
    pub fn save(disk: &Path, size_bytes: u64) -> Result<Edges> {
        let exclusive = OpenOptions::new()
            .read(true)
            .custom_flags(OFlag::O_EXCL.bits())
            .open(disk);
        let file = match exclusive {
            Ok(file) => file,
            Err(error) => refuse!("{} is held by something: {error}", disk.display()),
        };
        ensure!(
            size_bytes > 2 * EDGE_BYTES,
            "{} has {size_bytes} bytes",
            disk.display()
        );
        let mut saved = Vec::new();
        for at in [0, size_bytes - EDGE_BYTES] {
            let mut bytes = vec![0; usize::try_from(EDGE_BYTES)?];
            file.read_exact_at(&mut bytes, at)
                .with_context(|| format!("reading {}", disk.display()))?;
            saved.push((at, bytes));
        }
        Ok(Edges {
            disk: disk.to_owned(),
            saved,
        })
    }

    /// Fills both edges with zeros, so that no half of an older table is left.
    ///
    /// # Errors
    /// When the disk cannot be written.
    pub fn clear(&self) -> Result<()> {
        let clear = || -> Result<()> {
            let file = self.open()?;
            for (at, bytes) in &self.saved {
                file.write_all_at(&vec![0; bytes.len()], *at)?;
            }
            Ok(file.sync_all()?)
        };
        clear().with_context(|| format!("clearing the edges of {}", self.disk.display()))
    }

    /// Writes both edges as they were and reads them back. The first one comes last:
    /// with it the old system starts.
    ///
    /// # Errors
    /// When that fails.
    pub fn restore(&self) -> Result<()> {
        let restore = || -> Result<()> {
            let file = self.open()?;
            for (at, bytes) in self.saved.iter().rev() {
                file.write_all_at(bytes, *at)?;
                file.sync_all()?;
                posix_fadvise(file.as_fd(), 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
                let mut found = vec![0; bytes.len()];
                file.read_exact_at(&mut found, *at)?;
                ensure!(found == *bytes, "it does not read back as written");
            }
            Ok(())
        };
        restore().with_context(|| format!("restoring the edges of {}", self.disk.display()))
    }

    fn open(&self) -> Result<File> {
        Ok(OpenOptions::new().read(true).write(true).open(&self.disk)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_come_back_byte_for_byte() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let before: Vec<u8> = (0..(3 << 20) + 512)
            .map(|at: u32| at.to_le_bytes()[1])
            .collect();
        std::fs::write(file.path(), &before).unwrap();
        let edges = Edges::save(file.path(), before.len() as u64).unwrap();
        edges.clear().unwrap();
        let cleared = std::fs::read(file.path()).unwrap();
        assert_eq!(cleared[..1 << 20], vec![0; 1 << 20]);
        assert_eq!(
            cleared[1 << 20..(2 << 20) + 512],
            before[1 << 20..(2 << 20) + 512]
        );
        edges.restore().unwrap();
        assert_eq!(std::fs::read(file.path()).unwrap(), before);
        assert!(Edges::save(file.path(), 1 << 20).is_err());
    }
}
