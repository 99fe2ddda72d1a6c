//! The boot state as a GRUB environment block.

use anyhow::{Context, Result, ensure};

use super::grubenv;
use super::phase::{Drill, Phase, Reason};
use super::rules::{State, Trial};
use crate::slot::Slot;

impl State {
    /// Renders the state as one environment block.
    ///
    /// `va_end` comes last: a block without it was cut short.
    pub(super) fn render(&self) -> Result<[u8; grubenv::SIZE_BYTES]> {
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
            ("va_drill", slot(self.drill.map(|drill| drill.slot))),
            ("va_drilled", reason(self.drill.and_then(|d| d.outcome))),
            ("va_root", self.marks[0].name().to_owned()),
            ("va_back", self.marks[1].name().to_owned()),
            ("va_end", "1".to_owned()),
        ])
    }

    /// Parses one copy, by the same rules as the menu in `grub/menu.cfg`.
    pub(super) fn parse(block: &[u8]) -> Result<State> {
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
            "failed" => Phase::Failed,
            _ => Phase::Empty,
        };
        let drill = slot("va_drill").map(|slot| Drill {
            slot,
            outcome: get("va_drilled").parse().ok(),
        });
        let mut state = State {
            committed,
            trial,
            failed,
            note,
            drill,
            marks: [mark("va_root"), mark("va_back")],
        };
        state.forget_drill_of_no_trial();
        Ok(state)
    }
}
