//! The rules: from which state a slot may go to which. Pure values.

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;

use super::phase::{Drill, Phase, Reason};
use crate::slot::Slot;

/// A slot that is tried before it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Trial {
    /// The slot on trial.
    pub slot: Slot,
    /// How many starts it has left.
    pub tries_left: u8,
}

/// The boot state of the appliance.
///
/// A trial of the committed slot itself is that of another kernel of its system:
/// the menu counts it like any other, and the slot's entry starts that kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    pub(super) committed: Slot,
    pub(super) trial: Option<Trial>,
    pub(super) failed: Option<(Slot, Reason)>,
    /// Why the running trial is about to end, noted before its reboot.
    pub(super) note: Option<Reason>,
    /// The drill that is armed, or the last one and how it ended.
    pub(super) drill: Option<Drill>,
    pub(super) marks: [Phase; 2],
}

impl State {
    /// Returns the state of an appliance that runs `booted` and knows no other system.
    pub fn adopt(booted: Slot) -> State {
        let mut state = State {
            committed: booted,
            trial: None,
            failed: None,
            note: None,
            drill: None,
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
        self.trial.filter(|trial| trial.slot != self.committed)
    }

    /// Returns the trial of another kernel of the committed slot, if any.
    pub fn kernel_trial(&self) -> Option<Trial> {
        self.trial.filter(|trial| trial.slot == self.committed)
    }

    /// Returns the slot whose last trial failed, and why. Known until the slot
    /// holds another system; meanwhile it may be empty.
    pub fn failed(&self) -> Option<(Slot, Reason)> {
        let of_trial = self.failed.filter(|(slot, _)| !self.is_drilled(*slot));
        of_trial.filter(|(slot, _)| *slot != self.committed)
    }

    /// Returns why the trial of another kernel of the committed slot failed; known
    /// until [`State::end_kernel_trial`].
    pub fn kernel_failed(&self) -> Option<Reason> {
        let of_committed = self.failed.filter(|(slot, _)| *slot == self.committed);
        of_committed.map(|(_, reason)| reason)
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
        let mark = self.marks[slot as usize];
        let has_system = !matches!(mark, Phase::Empty | Phase::Writing);
        if self.is_drilled(slot) {
            mark
        } else if self.trial().is_some_and(|t| t.slot == slot) {
            Phase::Trial
        } else if self.committed == slot {
            Phase::Committed
        } else if has_system && self.failed.is_some_and(|(failed, _)| failed == slot) {
            Phase::Failed
        } else {
            mark
        }
    }

    fn mark(&mut self, slot: Slot, phase: Phase) {
        self.marks[slot as usize] = phase;
    }

    /// Declares the content of `slot` invalid before its first byte is written.
    ///
    /// Changes memory only.
    ///
    /// # Errors
    /// When the slot is committed or on trial.
    pub fn start_writing(&mut self, slot: Slot) -> Result<()> {
        let phase = self.phase(slot);
        ensure!(
            !matches!(phase, Phase::Committed | Phase::Trial),
            "slot {slot} is {phase}; it cannot be overwritten"
        );
        ensure!(
            !self.is_armed_drill(),
            "slot {slot} is drilled; it cannot be overwritten"
        );
        self.forget_drill();
        self.note = None;
        self.mark(slot, Phase::Writing);
        Ok(())
    }

    /// Declares the content of `slot` whole and read back.
    ///
    /// Changes memory only.
    ///
    /// # Errors
    /// When the slot was not being written.
    pub fn finish_writing(&mut self, slot: Slot) -> Result<()> {
        let phase = self.phase(slot);
        ensure!(
            phase == Phase::Writing,
            "slot {slot} is {phase}, not being written"
        );
        self.failed = self.failed.filter(|(failed, _)| *failed != slot);
        self.mark(slot, Phase::Ready);
        Ok(())
    }

    /// Declares that `slot` holds nothing usable.
    ///
    /// Changes memory only.
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
    /// Changes memory only.
    ///
    /// # Errors
    /// When the slot is not ready.
    pub fn start_trial(&mut self, slot: Slot, tries: u8) -> Result<()> {
        let phase = self.phase(slot);
        ensure!(
            phase == Phase::Ready,
            "slot {slot} is {phase}, not ready for a trial"
        );
        ensure!(!self.is_armed_drill(), "slot {slot} is drilled");
        self.forget_drill();
        self.trial = Some(Trial {
            slot,
            tries_left: tries,
        });
        self.note = None;
        Ok(())
    }

    /// Puts another kernel of the committed slot on trial for `tries` starts.
    ///
    /// Of a slot that failed before, only that is remembered: the menu writes
    /// the reason of this trial where its reason stands.
    ///
    /// Changes memory only.
    ///
    /// # Errors
    /// When a slot is on trial.
    pub fn start_kernel_trial(&mut self, tries: u8) -> Result<()> {
        if let Some(trial) = self.trial() {
            bail!("slot {} is on trial", trial.slot);
        }
        self.end_drill();
        if let Some((slot, _)) = self.failed().filter(|f| self.phase(f.0) == Phase::Failed) {
            self.mark(slot, Phase::Failed);
        }
        self.failed = None;
        self.note = None;
        self.trial = Some(Trial {
            slot: self.committed,
            tries_left: tries,
        });
        Ok(())
    }

    /// Ends the trial of another kernel, also one that has failed, without a trace.
    ///
    /// Changes memory only.
    pub fn end_kernel_trial(&mut self) {
        if self.kernel_trial().is_some() {
            self.note = None;
        }
        self.trial = self.trial();
        self.failed = self.failed();
    }

    /// Takes a slot off its trial, or its drill; it stays ready, or what it was.
    ///
    /// Changes memory only.
    ///
    /// # Errors
    /// When no slot is on trial.
    pub fn cancel_trial(&mut self) -> Result<()> {
        let trial = self.trial().context("no slot is on trial")?;
        self.trial = None;
        self.note = None;
        match self.is_drilled(trial.slot) {
            true => self.drill = None,
            false => self.mark(trial.slot, Phase::Ready),
        }
        Ok(())
    }

    /// Ends a trial, of a slot or of a kernel, as failed.
    ///
    /// Changes memory only.
    ///
    /// # Errors
    /// When nothing is on trial.
    pub fn fail_trial(&mut self, reason: Reason) -> Result<()> {
        let trial = self.trial.take().context("no slot is on trial")?;
        self.failed = Some((trial.slot, reason));
        self.note = None;
        Ok(())
    }

    /// Declares that `slot`, which holds a system and is neither committed nor
    /// on trial, failed.
    ///
    /// Changes memory only.
    pub fn fail(&mut self, slot: Slot, reason: Reason) {
        self.failed = Some((slot, reason));
        self.mark(slot, Phase::Ready);
    }

    /// Notes why the running trial is about to be restarted. A deadline, which
    /// says less, takes the place of no other reason.
    ///
    /// Changes memory only.
    ///
    /// # Errors
    /// When no slot is on trial.
    pub fn note_reason(&mut self, reason: Reason) -> Result<()> {
        ensure!(self.trial.is_some(), "no slot is on trial");
        if reason != Reason::Deadline || self.note.is_none() {
            self.note = Some(reason);
        }
        Ok(())
    }

    /// Takes the running trial's other tries away: its slot is not started again.
    ///
    /// Changes memory only.
    pub fn spend_tries(&mut self) {
        if let Some(trial) = &mut self.trial {
            trial.tries_left = 0;
        }
    }

    /// Makes the slot on trial the committed one; ends that of a kernel well.
    ///
    /// Changes memory only.
    ///
    /// # Errors
    /// When nothing is on trial, or it is a drill.
    pub fn confirm(&mut self) -> Result<()> {
        ensure!(!self.is_armed_drill(), "a drill is never confirmed");
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
    /// Changes memory only.
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
        ensure!(!self.is_armed_drill(), "slot {slot} is drilled");
        self.forget_drill();
        // On the other slot they would be taken for those of this one.
        self.end_kernel_trial();
        self.mark(self.committed, Phase::Good);
        self.committed = slot;
        Ok(())
    }
}
