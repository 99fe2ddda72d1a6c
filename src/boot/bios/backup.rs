//! The directories of the GRUB that runs now, copied before anything is changed.
//!
//! GRUB's tools change what lies in the directories of modules, fonts and
//! translations. The files beside those, the menu above all, are written by
//! packages of the running system, also in these minutes: they are no work of ours
//! to undo, unless they are gone.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::paths::BOOT_DIR;
use crate::sha::Sha;
use crate::system::{Cmd, System, files};

/// A directory of the GRUB that runs now, and its copy.
pub struct Backup {
    path: PathBuf,
    copy: PathBuf,
    content: BTreeMap<PathBuf, Sha>,
    /// Whether a distribution's tools write the files at its top.
    has_foreign_menu: bool,
}

/// A directory of a GRUB that may start again later.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Dir {
    /// Where it is, in `/boot`.
    pub path: PathBuf,
    /// The digest of what GRUB's tools put there.
    pub content: Sha,
    /// Whether it has a menu, which others write.
    pub has_menu: bool,
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
            has_foreign_menu: !path.starts_with(sys.at(BOOT_DIR)),
            path,
            copy,
        };
        backup.require_in(&backup.copy)?;
        Ok(backup)
    }

    /// Refuses when GRUB's tools changed something in the directory.
    ///
    /// # Errors
    /// When a file of theirs was changed, added or removed.
    pub fn compare(&self) -> Result<()> {
        let now = content(&self.path)?;
        ensure!(
            self.lost(&now).is_empty() && self.added(&now).is_empty(),
            "the target's GRUB tools changed {}",
            self.path.display()
        );
        Ok(())
    }

    /// Puts back what GRUB's tools changed in the directory.
    ///
    /// # Errors
    /// When something cannot be restored.
    pub fn restore(&self, sys: &dyn System) -> Result<()> {
        let restore = || match content(&self.path) {
            Ok(now) => self.mend(sys, &now),
            Err(_) => self.replace(sys),
        };
        restore().with_context(|| format!("restoring {}", self.path.display()))
    }

    /// Lists the files that are gone, or changed by nobody else.
    fn lost(&self, now: &BTreeMap<PathBuf, Sha>) -> Vec<&PathBuf> {
        let is_lost = |(path, sha): &(&PathBuf, &Sha)| match now.get(*path) {
            // On its way to the name that it is for.
            None => !(self.is_of_others(path) && path.extension().is_some_and(|e| e == "new")),
            Some(found) => found != *sha && !self.is_of_others(path),
        };
        let lost = self.content.iter().filter(is_lost);
        lost.map(|(path, _)| path).collect()
    }

    /// Lists the files that were added by nobody else.
    fn added<'a>(&self, now: &'a BTreeMap<PathBuf, Sha>) -> Vec<&'a PathBuf> {
        let is_new =
            |path: &&PathBuf| !self.content.contains_key(*path) && !self.is_of_others(path);
        now.keys().filter(is_new).collect()
    }

    /// Describes the directory for the day when GRUB is to start from it again.
    pub fn describe(&self, sys: &dyn System) -> Dir {
        let inside = self.path.strip_prefix(sys.root()).unwrap_or(&self.path);
        Dir {
            path: Path::new("/").join(inside),
            content: digest(&self.content, self.has_foreign_menu),
            has_menu: self.content.contains_key(Path::new("grub.cfg")),
        }
    }

    fn is_of_others(&self, path: &Path) -> bool {
        self.has_foreign_menu && is_at_top(path)
    }

    /// Puts back single files.
    fn mend(&self, sys: &dyn System, now: &BTreeMap<PathBuf, Sha>) -> Result<()> {
        for path in self.lost(now) {
            let to = self.path.join(path);
            fs::create_dir_all(to.parent().unwrap_or(&self.path))?;
            let restored = with_suffix(&to, ".restored");
            let copy = Cmd::new("cp").args(["-a", "--remove-destination", "--"]);
            sys.run(&copy.arg(self.copy.join(path)).arg(&restored))?;
            ensure!(
                self.content.get(path) == Some(&Sha::of_file(&restored)?),
                "{} is not what was copied to it",
                restored.display()
            );
            fs::rename(&restored, &to)?;
        }
        for path in self.added(now) {
            fs::remove_file(self.path.join(path))?;
        }
        Ok(())
    }

    fn require_in(&self, dir: &Path) -> Result<()> {
        ensure!(
            content(dir)? == self.content,
            "{} is not what was copied to it",
            dir.display()
        );
        Ok(())
    }

    /// Puts back all of it, where it cannot be read.
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

/// Returns the digest of what GRUB's tools put into a directory; `has_foreign_menu`
/// where the files at its top are others' work.
///
/// # Errors
/// When it cannot be read.
pub fn fingerprint(dir: &Path, has_foreign_menu: bool) -> Result<Sha> {
    Ok(digest(&content(dir)?, has_foreign_menu))
}

fn digest(content: &BTreeMap<PathBuf, Sha>, has_foreign_menu: bool) -> Sha {
    let mut text = Vec::new();
    for (path, sha) in content {
        if !(has_foreign_menu && is_at_top(path)) {
            text.extend_from_slice(path.as_os_str().as_bytes());
            text.extend_from_slice(format!("\0{sha}\n").as_bytes());
        }
    }
    Sha::of(&text)
}

fn is_at_top(path: &Path) -> bool {
    path.components().count() == 1
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
