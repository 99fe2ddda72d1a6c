//! The boot state: which slot is committed, on trial, or failed, and its
//! record on disk.
//!
//! The record is two copies of a GRUB environment block on `/boot`, `env1` and
//! `env2`. GRUB counts a trial down in them; user space writes everything else.
//! A third file, `default.cfg`, names the committed slot for the menu to boot
//! when neither copy is readable.
//! Both are written in place, `env2` first: `env1` is the one GRUB believes, so
//! its write commits the change. Neither is ever truncated or renamed, because
//! GRUB rewrites the blocks the files already have.

mod grubenv;

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde::Serialize;

use crate::slot::Slot;
use crate::system::files;

/// The menu's answer when both copies are unreadable.
const DEFAULT_FILE: &str = "default.cfg";

/// What a slot is, as `status` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Holds no system.
    Empty,
    /// Is being written, or was when the machine stopped.
    Writing,
    /// Holds a whole system that has never been on trial.
    Ready,
    /// Boots next, a counted number of times, until confirmed.
    Trial,
    /// The default.
    Committed,
    /// Was committed once and can be again.
    Good,
    /// Did not come up, or not healthy.
    Failed,
}

impl Phase {
    fn name(self) -> &'static str {
        match self {
            Phase::Empty => "empty",
            Phase::Writing => "writing",
            Phase::Ready => "ready",
            Phase::Trial => "trial",
            Phase::Committed => "committed",
            Phase::Good => "good",
            Phase::Failed => "failed",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Why a trial ended on the old slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Reason {
    /// It used up its tries without saying why.
    Exhausted,
    /// A health check failed.
    Health,
    /// Nothing confirmed it in time.
    Deadline,
    /// GRUB could not store the count, so the trial was never started.
    Nowrite,
    /// Both copies of the boot state were unreadable.
    Noenv,
}

impl Reason {
    fn name(self) -> &'static str {
        match self {
            Reason::Exhausted => "exhausted",
            Reason::Health => "health",
            Reason::Deadline => "deadline",
            Reason::Nowrite => "nowrite",
            Reason::Noenv => "noenv",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Reason {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Reason> {
        let all = [
            Reason::Exhausted,
            Reason::Health,
            Reason::Deadline,
            Reason::Nowrite,
            Reason::Noenv,
        ];
        all.into_iter()
            .find(|r| r.name() == text)
            .ok_or_else(|| anyhow!("unknown reason {text:?}"))
    }
}

/// A slot that is tried before it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Trial {
    /// The slot on trial.
    pub slot: Slot,
    /// How many starts it has left.
    pub tries_left: u8,
}

/// The boot state of the appliance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    committed: Slot,
    trial: Option<Trial>,
    failed: Option<(Slot, Reason)>,
    /// Why the running trial is about to end, noted before its reboot.
    note: Option<Reason>,
    marks: [Phase; 2],
}

impl State {
    /// Returns the state of an appliance that runs `booted` and knows no other system.
    pub fn adopt(booted: Slot) -> State {
        let mut state = State {
            committed: booted,
            trial: None,
            failed: None,
            note: None,
            marks: [Phase::Empty; 2],
        };
        state.mark(booted, Phase::Good);
        state
    }

    /// Returns the default slot.
    pub fn committed(&self) -> Slot {
        self.committed
    }

    /// Returns the slot on trial, if any.
    pub fn trial(&self) -> Option<Trial> {
        self.trial
    }

    /// Returns the slot whose last trial failed, and why.
    pub fn failed(&self) -> Option<(Slot, Reason)> {
        self.failed
    }

    /// Returns the slot that the next boot starts.
    pub fn next(&self) -> Slot {
        match self.trial {
            Some(trial) if trial.tries_left > 0 => trial.slot,
            _ => self.committed,
        }
    }

    /// Returns what `slot` is.
    pub fn phase(&self, slot: Slot) -> Phase {
        if self.trial.is_some_and(|t| t.slot == slot) {
            Phase::Trial
        } else if self.committed == slot {
            Phase::Committed
        } else if self.failed.is_some_and(|(failed, _)| failed == slot) {
            Phase::Failed
        } else {
            self.marks[slot as usize]
        }
    }

    fn mark(&mut self, slot: Slot, phase: Phase) {
        self.marks[slot as usize] = phase;
    }

    /// Declares the content of `slot` invalid before its first byte is written.
    ///
    /// # Errors
    /// When the slot is committed or on trial.
    pub fn start_writing(&mut self, slot: Slot) -> Result<()> {
        let phase = self.phase(slot);
        ensure!(
            !matches!(phase, Phase::Committed | Phase::Trial),
            "slot {slot} is {phase}; it cannot be overwritten"
        );
        self.failed = self.failed.filter(|(failed, _)| *failed != slot);
        self.note = None;
        self.mark(slot, Phase::Writing);
        Ok(())
    }

    /// Declares the content of `slot` whole and read back.
    ///
    /// # Errors
    /// When the slot was not being written.
    pub fn finish_writing(&mut self, slot: Slot) -> Result<()> {
        let phase = self.phase(slot);
        ensure!(
            phase == Phase::Writing,
            "slot {slot} is {phase}, not being written"
        );
        self.mark(slot, Phase::Ready);
        Ok(())
    }

    /// Declares that `slot` holds nothing usable.
    ///
    /// # Errors
    /// When the slot is committed or on trial.
    pub fn clear(&mut self, slot: Slot) -> Result<()> {
        self.start_writing(slot)?;
        self.mark(slot, Phase::Empty);
        Ok(())
    }

    /// Puts a ready slot on trial for `tries` starts.
    ///
    /// # Errors
    /// When the slot is not ready.
    pub fn start_trial(&mut self, slot: Slot, tries: u8) -> Result<()> {
        let phase = self.phase(slot);
        ensure!(
            phase == Phase::Ready,
            "slot {slot} is {phase}, not ready for a trial"
        );
        self.trial = Some(Trial {
            slot,
            tries_left: tries,
        });
        self.note = None;
        Ok(())
    }

    /// Takes a slot off its trial; it stays ready.
    ///
    /// # Errors
    /// When no slot is on trial.
    pub fn cancel_trial(&mut self) -> Result<()> {
        let trial = self.trial.take().context("no slot is on trial")?;
        self.mark(trial.slot, Phase::Ready);
        self.note = None;
        Ok(())
    }

    /// Ends a trial as failed.
    ///
    /// # Errors
    /// When no slot is on trial.
    pub fn fail_trial(&mut self, reason: Reason) -> Result<()> {
        let trial = self.trial.take().context("no slot is on trial")?;
        self.failed = Some((trial.slot, reason));
        self.note = None;
        Ok(())
    }

    /// Declares that `slot`, which is neither committed nor on trial, failed.
    pub fn fail(&mut self, slot: Slot, reason: Reason) {
        self.failed = Some((slot, reason));
    }

    /// Notes why the running trial is about to be restarted.
    ///
    /// # Errors
    /// When no slot is on trial.
    pub fn note_reason(&mut self, reason: Reason) -> Result<()> {
        ensure!(self.trial.is_some(), "no slot is on trial");
        self.note = Some(reason);
        Ok(())
    }

    /// Makes the slot on trial the committed one.
    ///
    /// # Errors
    /// When no slot is on trial.
    pub fn confirm(&mut self) -> Result<()> {
        let trial = self.trial.take().context("no slot is on trial")?;
        self.note = None;
        self.failed = None;
        self.mark(self.committed, Phase::Good);
        self.mark(trial.slot, Phase::Good);
        self.committed = trial.slot;
        Ok(())
    }

    /// Makes a good slot the committed one, without a trial.
    ///
    /// # Errors
    /// When the slot is neither good nor committed.
    pub fn commit(&mut self, slot: Slot) -> Result<()> {
        if slot == self.committed {
            return Ok(());
        }
        let phase = self.phase(slot);
        ensure!(
            phase == Phase::Good,
            "slot {slot} is {phase}; only a slot that has been committed before can be"
        );
        self.mark(self.committed, Phase::Good);
        self.committed = slot;
        Ok(())
    }

    /// Renders the state as one environment block.
    ///
    /// `va_end` comes last: a block without it was cut short.
    fn render(&self) -> Result<[u8; grubenv::SIZE_BYTES]> {
        let slot = |slot: Option<Slot>| slot.map(|s| s.name().to_owned()).unwrap_or_default();
        let reason =
            |reason: Option<Reason>| reason.map(|r| r.name().to_owned()).unwrap_or_default();
        grubenv::render(&[
            ("va_commit", self.committed.name().to_owned()),
            ("va_trial", slot(self.trial.map(|t| t.slot))),
            (
                "va_left",
                self.trial.map_or(0, |t| t.tries_left).to_string(),
            ),
            ("va_failed", slot(self.failed.map(|(s, _)| s))),
            ("va_why", reason(self.failed.map(|(_, r)| r))),
            ("va_note", reason(self.note)),
            ("va_root", self.marks[0].name().to_owned()),
            ("va_back", self.marks[1].name().to_owned()),
            ("va_end", "1".to_owned()),
        ])
    }

    /// Parses one copy, by the same rules as the menu in `grub/menu.cfg`.
    fn parse(block: &[u8]) -> Result<State> {
        let variables = grubenv::parse(block)?;
        let get = |name: &str| {
            let found = variables.iter().find(|(n, _)| n == name);
            found.map(|(_, value)| value.as_str()).unwrap_or_default()
        };
        ensure!(get("va_end") == "1", "its end mark is missing");
        let committed = get("va_commit").parse().context("va_commit")?;
        let slot = |name: &str| get(name).parse::<Slot>().ok();
        let trial = slot("va_trial").map(|slot| Trial {
            slot,
            tries_left: get("va_left").parse().unwrap_or(0),
        });
        let note = get("va_note").parse::<Reason>().ok();
        // GRUB leaves its own word for the last boot in va_why; what user
        // space noted before the reboot says more than "exhausted".
        let why = get("va_why").parse::<Reason>().ok();
        let failed = slot("va_failed").map(|slot| match why {
            Some(Reason::Exhausted) | None => (slot, note.unwrap_or(Reason::Exhausted)),
            Some(reason) => (slot, reason),
        });
        let mark = |name: &str| match get(name) {
            "good" => Phase::Good,
            "ready" => Phase::Ready,
            "writing" => Phase::Writing,
            _ => Phase::Empty,
        };
        Ok(State {
            committed,
            trial,
            failed,
            note,
            marks: [mark("va_root"), mark("va_back")],
        })
    }

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
    pub fn save(&self, dir: &Path) -> Result<bool> {
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
    pub fn repair(&self, dir: &Path) -> Result<bool> {
        let [first, second] = copies(dir).map(|path| read_copy(&path).ok());
        let sound = first.is_some() && first == second;
        if !sound {
            self.save(dir)?;
        }
        Ok(!sound)
    }
}

fn copies(dir: &Path) -> [std::path::PathBuf; 2] {
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

#[cfg(test)]
mod tests;
