//! One `va-upgrade` at a time: on a machine, and on a file.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::fcntl::{Flock, FlockArg};

use super::calls::System;
use crate::failure::{Class, Classify, class_of, with_class};
use crate::signals;

/// Holds the machine-wide lock until dropped.
pub struct Lock {
    _file: Flock<File>,
}

/// How often a held lock is tried again.
const PAUSE: Duration = Duration::from_millis(200);

impl Lock {
    /// Takes the lock in the file at `path`, waiting up to `patience` for it.
    ///
    /// # Errors
    /// Class [`Class::Locked`] when another process still holds it then.
    pub fn wait(sys: &dyn System, path: &Path, patience: Duration) -> Result<Lock> {
        let mut waited = Duration::ZERO;
        loop {
            match Lock::take(path) {
                Err(error) if class_of(&error) == Class::Locked && waited < patience => {
                    sys.wait(PAUSE);
                    waited += PAUSE;
                }
                outcome => return outcome,
            }
        }
    }

    /// Takes the lock of the file at `path` itself, which whoever holds it may
    /// replace; waits up to `patience` for it.
    ///
    /// # Errors
    /// Class [`Class::Locked`] when another process still holds it then.
    pub fn of_file(sys: &dyn System, path: &Path, patience: Duration) -> Result<Lock> {
        let mut waited = Duration::ZERO;
        loop {
            signals::check()?;
            let file = File::open(path)
                .with_context(|| format!("opening {}", path.display()))
                .class(Class::Refused)?;
            let opened = file.metadata()?.ino();
            match Lock::of(file, path) {
                // Another file has taken its place meanwhile.
                Ok(_) if path.metadata()?.ino() != opened => {}
                Err(error) if class_of(&error) == Class::Locked && waited < patience => {
                    sys.wait(PAUSE);
                    waited += PAUSE;
                }
                outcome => return outcome,
            }
        }
    }

    /// Takes the lock in the file at `path`, without waiting.
    ///
    /// # Errors
    /// Class [`Class::Locked`] when another process holds it.
    pub fn take(path: &Path) -> Result<Lock> {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)
            .with_context(|| format!("opening lock {}", path.display()))?;
        Lock::of(file, path)
    }

    fn of(file: File, path: &Path) -> Result<Lock> {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => Ok(Lock { _file: file }),
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => Err(with_class(
                Class::Locked,
                anyhow::anyhow!(
                    "another va-upgrade is at work (it holds {}); wait for it to end",
                    path.display()
                ),
            )),
            Err((_, errno)) => Err(errno).with_context(|| format!("locking {}", path.display())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_taker_is_told_and_the_lock_ends_with_its_holder() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let first = Lock::take(&path).unwrap();
        let error = Lock::take(&path).err().unwrap();
        assert_eq!(class_of(&error), Class::Locked);
        drop(first);
        Lock::take(&path).unwrap();
    }
}
