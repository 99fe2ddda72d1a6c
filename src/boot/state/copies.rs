//! The two copies of the boot state on `/boot`, and the default beside them.
//!
//! Both are written in place, `env2` first: `env1` is the one GRUB believes, so
//! its write commits the change. Neither is ever truncated or renamed, because
//! GRUB rewrites the blocks the files already have.

use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use super::grubenv;
use super::rules::State;
use crate::system::{Lock, files};

/// The menu's answer when both copies are unreadable.
const DEFAULT_FILE: &str = "default.cfg";

impl State {
    /// Loads the state from `dir` (`/boot/va`); `None` when it was never written.
    ///
    /// # Errors
    /// When copies are there and none of them is valid.
    pub fn load(dir: &Path) -> Result<Option<State>> {
        let paths = copies(dir);
        if paths.iter().all(|path| !path.exists()) {
            return Ok(None);
        }
        let mut damage = Vec::new();
        for path in paths {
            match read_copy(&path).and_then(|block| State::parse(&block)) {
                Ok(state) => return Ok(Some(state)),
                Err(error) => damage.push(format!("{}: {error:#}", path.display())),
            }
        }
        bail!(
            "no copy of the boot state is valid ({}); restart the machine: \
             it boots the slot that was committed, and the state is made anew from it",
            damage.join("; ")
        )
    }

    /// Writes both copies in place and reads them back, then the default for
    /// the day when both are unreadable.
    ///
    /// Returns whether a file was made or replaced, so that GRUB sees it only
    /// once the journal of `/boot` is flushed.
    ///
    /// # Errors
    /// When a copy cannot be written or does not read back as written.
    pub fn save(&self, dir: &Path, _lock: &Lock) -> Result<bool> {
        let block = self.render()?;
        let [first, second] = copies(dir);
        let mut replaced = false;
        for path in [second, first] {
            replaced |=
                write_copy(&path, &block).with_context(|| format!("writing {}", path.display()))?;
        }
        let default = dir.join(DEFAULT_FILE);
        let text = format!("set va_slot={}\n", self.committed);
        if fs::read(&default).ok().as_deref() != Some(text.as_bytes()) {
            files::write_atomic(&default, text.as_bytes(), 0o644)?;
            replaced = true;
        }
        Ok(replaced)
    }

    /// Rewrites the copies when they differ; returns whether they did.
    ///
    /// # Errors
    /// When writing fails.
    pub fn repair(&self, dir: &Path, lock: &Lock) -> Result<bool> {
        let [first, second] = copies(dir).map(|path| read_copy(&path).ok());
        let sound = first.is_some() && first == second;
        if !sound {
            self.save(dir, lock)?;
        }
        Ok(!sound)
    }
}

fn copies(dir: &Path) -> [PathBuf; 2] {
    [dir.join("env1"), dir.join("env2")]
}

fn read_copy(path: &Path) -> Result<Vec<u8>> {
    let mut block = Vec::new();
    let limit = grubenv::SIZE_BYTES as u64 + 1;
    File::open(path)?.take(limit).read_to_end(&mut block)?;
    Ok(block)
}

/// Writes one copy; returns whether the file had to be made or replaced.
fn write_copy(path: &Path, block: &[u8; grubenv::SIZE_BYTES]) -> Result<bool> {
    let whole = path
        .metadata()
        .is_ok_and(|m| m.is_file() && m.len() == grubenv::SIZE_BYTES as u64);
    if whole {
        let file = OpenOptions::new().write(true).open(path)?;
        file.write_all_at(block, 0)?;
        file.sync_data()?;
    } else {
        // It is not one GRUB could use; really written bytes, because GRUB
        // refuses to save into a sparse file.
        files::write_atomic(path, block, 0o644)?;
    }
    ensure!(
        read_copy(path)? == block,
        "it does not read back as written"
    );
    Ok(!whole)
}
