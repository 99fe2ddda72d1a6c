//! What every flow of an appliance works with.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;

use crate::boot::journal;
use crate::boot::state::State;
use crate::config::Config;
use crate::failure::{Class, class_of};
use crate::paths::{BOOT, BOOT_DIR, LOCK_FILE};
use crate::progress::Progress;
use crate::system::{Lock, System};

/// An appliance as a flow sees it: the machine, its settings, and who is told.
#[derive(Clone, Copy)]
pub struct Appliance<'a> {
    /// The machine.
    pub sys: &'a dyn System,
    /// Its settings.
    pub config: &'a Config,
    /// Who is told how far the work is.
    pub progress: &'a dyn Progress,
}

impl Appliance<'_> {
    /// Returns where the absolute path `path` of the machine is found.
    pub fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        self.sys.at(path)
    }

    /// Takes the lock of everything that changes the boot state.
    ///
    /// # Errors
    /// Class `Locked` when another process holds it.
    pub fn lock(&self) -> Result<Lock> {
        Lock::take(&self.at(LOCK_FILE))
    }

    /// Takes the lock, waiting up to `patience` for it; says so before it waits.
    ///
    /// # Errors
    /// Class `Locked` when another process still holds it then.
    pub fn wait_for_lock(&self, patience: Duration) -> Result<Lock> {
        match self.lock() {
            Err(error) if class_of(&error) == Class::Locked => {}
            outcome => return outcome,
        }
        self.progress.note(&format!(
            "another va-upgrade is at work; waiting up to {} seconds for its end",
            patience.as_secs()
        ));
        Lock::wait(self.sys, &self.at(LOCK_FILE), patience)
    }

    /// Writes the boot state so that GRUB sees it; returns whether all of it was
    /// written.
    ///
    /// What fails once the menu believes the new state undoes nothing, so it is a
    /// warning.
    ///
    /// # Errors
    /// When it cannot be written, so that the state of before counts.
    pub fn save(&self, state: &State, lock: &Lock) -> Result<bool> {
        let saved = state.save(&self.at(BOOT_DIR), lock)?;
        let flushed = match saved.needs_flush {
            true => self.flush_boot(),
            false => Ok(()),
        };
        match saved.rest.and(flushed) {
            Err(error) if saved.is_committed => {
                self.progress.warn(&format!(
                    "the boot state is written and counts, but not all that belongs to it, \
                     which the next boot tries again: {error:#}"
                ));
                Ok(false)
            }
            outcome => outcome.map(|()| true),
        }
    }

    /// Makes everything written to `/boot` visible to GRUB.
    ///
    /// # Errors
    /// When its file system cannot be frozen or thawed.
    pub fn flush_boot(&self) -> Result<()> {
        journal::flush(self.sys, &self.at(BOOT))
    }
}
