//! The proof of "old system or new, never neither": an appliance's whole life is
//! recorded write by write, and the disk is judged at every moment of it.
//!
//! - [`record`]: the life, in a machine whose disk keeps a log of its writes
//! - [`write_log`]: that log
//! - [`disk_state`]: a disk at a moment, without copying it
//! - [`volumes`], [`journal`], [`grub_view`]: what firmware, GRUB, LVM and the kernel would read
//! - [`judge`]: the verdict on one disk
//! - [`replay`]: every moment, with losses
//! - [`proof_of_judge`]: whether the judge can be believed
//!
//! Shown so far: the judge notices a changed byte in every structure. The whole life has
//! not been judged from end to end yet.

mod disk_state;
mod grub_view;
mod journal;
mod judge;
mod proof_of_judge;
mod record;
mod replay;
mod volumes;
mod write_log;

use std::collections::BTreeSet;
use std::env;
use std::rc::Rc;

use anyhow::{Context, Result, ensure};

use crate::lab::tell::say;
use disk_state::Recording;
use judge::{Judge, Verdict};
use record::Place;
use replay::{Found, Replay};

/// The losses of writes are drawn from this.
const SEED: u64 = 0x7661_7570;

#[test]
#[ignore = "starts virtual machines"]
fn prove_that_every_moment_starts_the_old_system_or_the_new_one() -> Result<()> {
    if env::var_os("VA_UPGRADE_RECORDED").is_none() {
        record::record()?;
    }
    let place = Place::new();
    let marks = place.marks()?;
    let recording = Rc::new(Recording::open(&place.base(), &place.log())?);
    let judge = learn(&recording, &marks)?;
    let committed = marks.iter().find(|mark| mark.slots.len() == 2);
    let committed = committed.context("nothing was upgraded")?;
    let disk = Replay::new(&recording, &judge, SEED)?
        .disk_at(recording.log.entries_before(committed.log_bytes))?;
    proof_of_judge::notices_harm(&judge, &disk, "root")?;
    if let Ok(count) = env::var("VA_UPGRADE_STARTS") {
        let count = count.parse().context("VA_UPGRADE_STARTS")?;
        proof_of_judge::agrees_with_machines(&recording, &judge, &marks, count)?;
    }
    let mut replay = Replay::new(&recording, &judge, SEED)?;
    say("operation | writes | flushes | states | distinct | verdicts | neither");
    let mut neither = Vec::new();
    for pair in marks.windows(2) {
        let [before, after] = pair else { continue };
        let Some(operation) = &after.operation else {
            continue;
        };
        let at = |log_bytes| recording.log.entries_before(log_bytes);
        let found = replay.judge_all(at(before.log_bytes)..at(after.log_bytes))?;
        say(&row(operation, &found));
        neither.extend(
            found
                .neither
                .iter()
                .map(|what| format!("{operation}: {what}")),
        );
        let versions: BTreeSet<&str> = found.verdicts.keys().map(|v| v.version.as_str()).collect();
        let allowed: BTreeSet<&str> = [before, after]
            .iter()
            .flat_map(|mark| mark.slots.iter().map(|(_, version)| version.as_str()))
            .collect();
        ensure!(
            versions.is_subset(&allowed),
            "{operation} starts {versions:?}, of {allowed:?}"
        );
    }
    say(&format!("{} distinct states in all", judge.distinct()));
    ensure!(
        neither.is_empty(),
        "{} states start neither system:\n{}",
        neither.len(),
        neither[..neither.len().min(40)].join("\n")
    );
    Ok(())
}

/// Lets a judge look at every moment at which the machine is known to start.
fn learn(recording: &Rc<Recording>, marks: &[record::Mark]) -> Result<Judge> {
    let mut judge = Judge::default();
    for mark in marks {
        // A judge that learns holds no replay, so each mark is reached anew.
        let blank = Judge::default();
        let mut replay = Replay::new(recording, &blank, SEED)?;
        let disk = replay.disk_at(recording.log.entries_before(mark.log_bytes))?;
        let slots: Vec<(&str, &str)> = mark
            .slots
            .iter()
            .map(|(slot, version)| (slot.as_str(), version.as_str()))
            .collect();
        judge.learn(&disk, &slots, mark.is_foreign)?;
    }
    Ok(judge)
}

fn row(operation: &str, found: &Found) -> String {
    let name = |verdict: &Verdict| match verdict.is_trial {
        true => format!("{} on trial", verdict.version),
        false => verdict.version.clone(),
    };
    let verdicts: Vec<String> = found
        .verdicts
        .iter()
        .map(|(verdict, count)| format!("{} {count}", name(verdict)))
        .collect();
    format!(
        "{operation} | {} | {} | {} | {} | {} | {}",
        found.writes,
        found.flushes,
        found.states,
        found.distinct,
        verdicts.join(", "),
        found.neither.len()
    )
}
