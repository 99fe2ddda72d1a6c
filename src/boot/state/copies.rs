//! The two copies of the boot state on `/boot`, and the default beside them.
//!
//! Both are written in place, `env2` first: `env1` is the one GRUB believes, so
//! its write commits the change. Neither is ever truncated or renamed, because
//! GRUB rewrites the blocks the files already have.

use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result, bail, ensure};

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
            match load_copy(&path) {
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
    /// # Errors
    /// When the copy that the menu believes cannot be written or does not read
    /// back as written: the state of before is then the one that counts. What
    /// fails behind it is in [`Saved::rest`].
    pub fn save(&self, dir: &Path, _lock: &Lock) -> Result<Saved> {
        let block = self.render()?;
        let [first, second] = copies(dir);
        // As the menu does, which asks the second where the first is not valid.
        let believes_second = load_copy(&first).is_err();
        let before = read_copy(&first);
        let second_made = write_copy(&second, &block)?;
        let wrote_first = match write_copy(&first, &block) {
            Err(error) if !believes_second => return Err(take_back(&first, before, error)),
            outcome => outcome,
        };
        let in_place = !second_made || wrote_first.as_ref().is_ok_and(|made| !made);
        let wrote_default = self.save_default(dir);
        let made = |outcome: &Result<bool>| !outcome.as_ref().is_ok_and(|made| !made);
        Ok(Saved {
            is_committed: in_place,
            needs_flush: second_made || made(&wrote_first) || made(&wrote_default),
            rest: wrote_first.and(wrote_default).map(drop),
        })
    }

    /// Writes the default where it is another; returns whether it was.
    fn save_default(&self, dir: &Path) -> Result<bool> {
        let differs = !self.is_default(dir);
        if differs {
            let text = self.render_default();
            files::write_atomic(&dir.join(DEFAULT_FILE), text.as_bytes(), 0o644)?;
        }
        Ok(differs)
    }

    fn is_default(&self, dir: &Path) -> bool {
        let found = fs::read(dir.join(DEFAULT_FILE));
        found.is_ok_and(|found| found == self.render_default().as_bytes())
    }

    fn render_default(&self) -> String {
        format!("set va_slot={}\n", self.committed)
    }

    /// Tells whether the files need no repair: the copies are the same, and the
    /// default names the committed slot.
    pub fn is_whole(&self, dir: &Path) -> bool {
        let [first, second] = copies(dir).map(|path| read_copy(&path).ok());
        first.is_some() && first == second && self.is_default(dir)
    }
}

/// What came of saving a state that the menu will believe.
#[derive(Debug)]
#[must_use]
pub struct Saved {
    /// Whether the menu believes it already; else once `/boot` is flushed.
    pub is_committed: bool,
    /// Whether a file was made or replaced, which GRUB sees only once the
    /// journal of `/boot` is flushed.
    pub needs_flush: bool,
    /// Whether the other copy and the default were written as well.
    pub rest: Result<()>,
}

fn copies(dir: &Path) -> [PathBuf; 2] {
    [dir.join("env1"), dir.join("env2")]
}

fn load_copy(path: &Path) -> Result<State> {
    State::parse(&read_copy(path)?)
}

fn read_copy(path: &Path) -> Result<Vec<u8>> {
    let mut block = Vec::new();
    let limit = grubenv::SIZE_BYTES as u64 + 1;
    File::open(path)?.take(limit).read_to_end(&mut block)?;
    Ok(block)
}

/// Writes one copy; returns whether the file had to be made or replaced.
fn write_copy(path: &Path, block: &[u8; grubenv::SIZE_BYTES]) -> Result<bool> {
    replace_copy(path, block).with_context(|| format!("writing {}", path.display()))
}

/// Writes again what the copy at `path` held `before` a write that failed with
/// `error`: some of it may be on the disk all the same, and count.
fn take_back(path: &Path, before: Result<Vec<u8>>, error: Error) -> Error {
    let write = |block: Vec<u8>| write_copy(path, block.as_slice().try_into()?);
    match before.and_then(write) {
        Ok(_) => error,
        Err(again) => error.context(format!(
            "which boot state counts is not sure, since that of before could not be written \
             again ({again:#}); see `va-upgrade status`"
        )),
    }
}

fn replace_copy(path: &Path, block: &[u8; grubenv::SIZE_BYTES]) -> Result<bool> {
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
