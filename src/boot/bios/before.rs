//! What the boot sector started before an `apply`, so that a discarded one leaves no
//! trace of its GRUB.
//!
//! Kept in the directory of the new GRUB: the boot code, and what lay on the sectors
//! of the new core. The old core and its directories were not touched; that they are
//! what they were is proved before the boot sector starts them again.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::area::BootArea;
use super::backup::{self, Dir};
use super::installed::{CORE_FILE, our_dirs};
use super::saved::Saved;
use super::sector::Sectors;
use crate::boot::journal;
use crate::paths::{BOOT, BOOT_DIR};
use crate::sha::Sha;
use crate::slot::Slot;
use crate::system::System;
use crate::system::files::{self, read_yaml};

/// Where it is, in the directory of a GRUB.
const DIR: &str = "before";
/// What is known of it, there.
const RECORD: &str = "before.yaml";
/// The boot code, there.
const BOOT_CODE: &str = "boot-code";
/// What lay where the new core is, there.
const SECTORS: &str = "sectors";

/// Which `apply` it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// The slot that was written.
    pub slot: Slot,
    /// Whether there was nothing of va-upgrade's on `/boot` before it.
    pub is_first: bool,
}

#[derive(Serialize, Deserialize)]
struct Record {
    #[serde(flatten)]
    about: About,
    /// The word for the core that was started ([`BootArea::current_core`]).
    core: String,
    /// The first sector of the new core.
    start_lba: u64,
    /// The digest of the boot code.
    boot_code: Sha,
    /// The digest of what lay on the sectors of the new core.
    sectors: Sha,
    /// The directories that the old GRUB may read.
    dirs: Vec<Dir>,
}

/// What the boot sector started before.
pub struct Before {
    record: Record,
    saved: Saved,
    /// The directory of the GRUB that was installed then.
    dir: PathBuf,
}

impl Before {
    /// Keeps in `dir`, of the GRUB whose core is to lie at `place`, what `area` starts
    /// now.
    ///
    /// # Errors
    /// When the disk cannot be read or a file not be written.
    pub(super) fn keep(
        dir: &Path,
        area: &BootArea,
        saved: &Saved,
        place: Sectors,
        about: About,
        dirs: Vec<Dir>,
    ) -> Result<()> {
        let to = dir.join(DIR);
        DirBuilder::new()
            .mode(0o700)
            .create(&to)
            .with_context(|| format!("making {}", to.display()))?;
        let (boot_code, sectors) = saved.parts_at(place)?;
        let record = Record {
            about,
            core: area.current_core()?,
            start_lba: place.start_lba,
            boot_code: Sha::of(boot_code),
            sectors: Sha::of(sectors),
            dirs,
        };
        files::write_atomic(&to.join(BOOT_CODE), boot_code, 0o600)?;
        files::write_atomic(&to.join(SECTORS), sectors, 0o600)?;
        let text = serde_yaml::to_string(&record).context("rendering what was started before")?;
        files::write_atomic(&to.join(RECORD), text.as_bytes(), 0o600)
    }

    fn load(area: &BootArea, dir: &Path) -> Result<Option<Before>> {
        let from = dir.join(DIR);
        if !from.join(RECORD).exists() {
            return Ok(None);
        }
        let record: Record = read_yaml(&from.join(RECORD))?;
        let read = |name: &str, sum: Sha| -> Result<Vec<u8>> {
            let path = from.join(name);
            let bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
            let is_whole = Sha::of(&bytes) == sum;
            ensure!(is_whole, "{} is not what was written", path.display());
            Ok(bytes)
        };
        let boot_code = read(BOOT_CODE, record.boot_code)?;
        let sectors = read(SECTORS, record.sectors)?;
        let saved = area.saved_at(record.start_lba, boot_code, sectors)?;
        Ok(Some(Before {
            record,
            saved,
            dir: dir.to_owned(),
        }))
    }

    /// Returns what was started before the `apply` that wrote `slot`, if the GRUB
    /// which that installed is the one that `disk` starts, or was until [`Before::put_back`]
    /// was cut short.
    ///
    /// # Errors
    /// When the disk or `/boot` cannot be read.
    pub fn look(sys: &dyn System, disk: &Path, slot: Slot) -> Result<Option<(Before, Stage)>> {
        let area = BootArea::look(&sys.at(disk))?;
        let current = area.current_core()?;
        for dir in our_dirs(sys)? {
            let Some(before) = Before::load(&area, &dir)? else {
                continue;
            };
            let note = fs::read_to_string(dir.join(CORE_FILE));
            let is_ours = note.is_ok_and(|note| note.trim() == current);
            if before.record.about.slot == slot && is_ours {
                return Ok(Some((before, Stage::Switched)));
            }
            if before.record.about.slot == slot && before.record.core == current {
                return Ok(Some((before, Stage::PutBack)));
            }
        }
        Ok(None)
    }

    /// Tells which `apply` it was.
    pub fn about(&self) -> About {
        self.record.about
    }

    /// Tells whether what was started before is another's GRUB.
    pub fn is_foreign(&self, sys: &dyn System) -> bool {
        let ours = sys.at(BOOT_DIR);
        !self
            .record
            .dirs
            .iter()
            .any(|dir| sys.at(&dir.path).starts_with(&ours))
    }

    /// Has `disk` start what it started before, byte for byte, once it is proved that
    /// this would start.
    ///
    /// # Errors
    /// When it would not, or the disk cannot be written.
    pub fn put_back(&self, sys: &dyn System, disk: &Path) -> Result<()> {
        let area = BootArea::change(&sys.at(disk))?;
        ensure!(
            area.core_started_by(&self.saved)? == self.record.core,
            "the core that was started before is not there any more"
        );
        for dir in &self.record.dirs {
            let path = sys.at(&dir.path);
            let is_foreign = !path.starts_with(sys.at(BOOT_DIR));
            let is_same = backup::fingerprint(&path, is_foreign)? == dir.content;
            ensure!(
                is_same && (!dir.has_menu || path.join("grub.cfg").is_file()),
                "{} was changed since",
                path.display()
            );
        }
        // GRUB replays no journal, and packages may have written its menu.
        journal::flush(sys, &sys.at(BOOT))?;
        area.restore(&self.saved)?;
        ensure!(
            area.current_core()? == self.record.core,
            "the boot sector starts another core than before"
        );
        Ok(())
    }

    /// Removes the GRUB that nothing starts any more; of the first `apply` all that
    /// va-upgrade has on `/boot`.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub fn remove_new(&self, sys: &dyn System) -> Result<()> {
        match self.record.about.is_first {
            true => files::remove_tree(&sys.at(BOOT_DIR))?,
            false => files::remove_tree(&self.dir)?,
        }
        journal::flush(sys, &sys.at(BOOT))
    }
}

/// Forgets what was started before every `apply`: the system that came with the last
/// one stays.
///
/// # Errors
/// When something cannot be removed.
pub fn forget(sys: &dyn System) -> Result<()> {
    let mut dirs = our_dirs(sys)?.into_iter().map(|dir| dir.join(DIR));
    dirs.try_for_each(|dir| files::remove_tree(&dir))
}

/// How far it was put back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The disk starts the new GRUB.
    Switched,
    /// The disk starts what it started before; the new GRUB is still on `/boot`.
    PutBack,
}
