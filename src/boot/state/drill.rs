//! The rules of a drill: a trial that is made to fail, so that the way back is
//! proved. Pure values.
//!
//! To GRUB a drill is a trial of one try. What tells it from one is a variable of
//! ours, which GRUB keeps: it saves its own into the block that it finds. The
//! slot's mark is not touched, so once the drill is over the state is what it was.

use anyhow::{Result, ensure};

use super::phase::{Drill, Phase};
use super::rules::{State, Trial};
use crate::slot::Slot;

impl State {
    /// Returns the drill that is armed, or else the last one; known until another
    /// system is written or put on trial, or the default changes.
    pub fn drill(&self) -> Option<Drill> {
        self.drill
    }

    /// Tells whether a drill's start or its end, which nobody wrote down yet, is
    /// waited for.
    pub fn is_drilling(&self) -> bool {
        self.drill.is_some_and(|drill| drill.outcome.is_none())
    }

    /// Tells whether the trial is a drill.
    pub(super) fn is_armed_drill(&self) -> bool {
        self.is_drilling() && self.trial.is_some()
    }

    /// Tells whether what the menu knows of `slot` is that of a drill.
    pub(super) fn is_drilled(&self, slot: Slot) -> bool {
        self.is_drilling() && self.drill.is_some_and(|drill| drill.slot == slot)
    }

    /// Has the next boot start `slot`, once, in order to leave it again.
    ///
    /// Changes memory only.
    ///
    /// # Errors
    /// When the slot does not hold a system that would boot, or something is on
    /// trial or a trial's end not written down yet.
    pub fn start_drill(&mut self, slot: Slot) -> Result<()> {
        let phase = self.phase(slot);
        ensure!(
            matches!(phase, Phase::Good | Phase::Ready),
            "slot {slot} is {phase}; a drill needs a system that would boot"
        );
        ensure!(
            self.trial.is_none() && self.failed.is_none(),
            "a trial is not over yet"
        );
        self.note = None;
        self.drill = Some(Drill {
            slot,
            outcome: None,
        });
        self.trial = Some(Trial {
            slot,
            tries_left: 1,
        });
        Ok(())
    }

    /// Writes down how a drill ended, and forgets the trial that it was to the menu;
    /// returns it, or `None` where none has ended.
    ///
    /// Changes memory only.
    pub fn end_drill(&mut self) -> Option<Drill> {
        let slot = self.drill.filter(|drill| drill.outcome.is_none())?.slot;
        let (_, reason) = self.failed.filter(|(failed, _)| *failed == slot)?;
        (self.failed, self.note) = (None, None);
        self.drill = Some(Drill {
            slot,
            outcome: Some(reason),
        });
        self.drill
    }

    /// Forgets a drill that is over, with all that the menu wrote of it.
    pub(super) fn forget_drill(&mut self) {
        self.end_drill();
        self.drill = None;
    }

    /// Forgets a drill that the menu knows nothing of: a program that knows no
    /// drills has written the state meanwhile.
    pub(super) fn forget_drill_of_no_trial(&mut self) {
        let Some(Drill { slot, .. }) = self.drill.filter(|drill| drill.outcome.is_none()) else {
            return;
        };
        let is_tried = self.trial.is_some_and(|trial| trial.slot == slot);
        let has_ended = self.failed.is_some_and(|(failed, _)| failed == slot);
        if slot == self.committed || !(is_tried || has_ended) {
            self.drill = None;
        }
    }
}
