//! The directories of the GRUB that runs now, copied before anything is changed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::sha::Sha;
use crate::system::{Cmd, System, files};

/// A directory of the GRUB that runs now, and its copy.
pub struct Backup {
    path: PathBuf,
    copy: PathBuf,
    content: BTreeMap<PathBuf, Sha>,
}

impl Backup {
    /// Copies `path` into the directory `to`.
    ///
    /// # Errors
    /// When it cannot be read or copied.
    pub fn take(sys: &dyn System, path: PathBuf, to: &Path) -> Result<Backup> {
        let copy = to.join(path.file_name().unwrap_or_default());
        sys.run(&Cmd::new("cp").args(["-a", "--"]).arg(&path).arg(&copy))
            .with_context(|| format!("saving {}", path.display()))?;
        let backup = Backup {
            content: content(&path)?,
            path,
            copy,
        };
        backup.require_in(&backup.copy)?;
        Ok(backup)
    }

    /// Refuses when the directory is not as it was.
    ///
    /// # Errors
    /// When a file was changed, added or removed.
    pub fn compare(&self) -> Result<()> {
        ensure!(
            content(&self.path)? == self.content,
            "the target's GRUB tools changed {}",
            self.path.display()
        );
        Ok(())
    }

    /// Puts the directory back, where it is not as it was.
    ///
    /// # Errors
    /// When it cannot be restored.
    pub fn restore(&self, sys: &dyn System) -> Result<()> {
        if content(&self.path).is_ok_and(|content| content == self.content) {
            return Ok(());
        }
        self.replace(sys)
            .with_context(|| format!("restoring {}", self.path.display()))
    }

    fn require_in(&self, dir: &Path) -> Result<()> {
        ensure!(
            content(dir)? == self.content,
            "{} is not what was copied to it",
            dir.display()
        );
        Ok(())
    }

    fn replace(&self, sys: &dyn System) -> Result<()> {
        let restored = with_suffix(&self.path, ".restored");
        files::remove_tree(&restored)?;
        let copy = Cmd::new("cp").args(["-a", "--"]);
        sys.run(&copy.arg(&self.copy).arg(&restored))?;
        self.require_in(&restored)?;
        let ruined = with_suffix(&self.path, ".ruined");
        files::remove_tree(&ruined)?;
        if self.path.exists() {
            fs::rename(&self.path, &ruined)?;
        }
        fs::rename(&restored, &self.path)?;
        files::remove_tree(&ruined)
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Returns what a directory of GRUB holds: every file with its SHA-256.
///
/// `grubenv` is left out: services of the running system write it any time.
fn content(dir: &Path) -> Result<BTreeMap<PathBuf, Sha>> {
    let mut found = files::digests(dir)?;
    found.retain(|path, _| !path.ends_with("grubenv"));
    Ok(found)
}
