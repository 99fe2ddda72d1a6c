//! What a trial leaves on the data volume: the report of what changed, and of one
//! that failed the end of its journal.
//!
//! Each trial has a directory, named after the time at which the system before it
//! was looked at, so that either system finds it. What cannot be kept is a note.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use super::changes::{self, Changes};
use crate::appliance::machine::Machine;
use crate::appliance::{Appliance, before, history};
use crate::boot::files as boot_files;
use crate::paths::TRIALS_DIR;
use crate::slot::Slot;
use crate::system::{Cmd, files};

/// How many lines of the journal are kept.
const JOURNAL_LINES: &str = "2000";

/// The most that is kept of it, in bytes.
const MAX_JOURNAL_BYTES: usize = 1 << 20;

/// How long journalctl(1) may take; a restart waits for it.
const JOURNAL_LIMIT: Duration = Duration::from_secs(20);

/// How many trials are kept.
const KEPT_TRIALS: usize = 10;

/// Keeps what the running trial, whose earlier system was written down in `before`,
/// changed; with the `reason` for which it is given up, its journal too. Warns of
/// ports and mounts that are gone.
pub(super) fn keep(appliance: &Appliance, before: &Path, reason: Option<&str>) {
    let changes = changes::look(appliance, before);
    if reason.is_none()
        && let Ok(changes) = &changes
    {
        warn(appliance, changes);
    }
    let text = text(Some(&changes), reason);
    tell(appliance, write(appliance, before, &text, reason.is_some()));
}

/// Keeps the reason for which the running trial is given up, and its journal. A
/// machine that hangs is not looked at: the restart is due.
pub(super) fn keep_journal(appliance: &Appliance, reason: &str) {
    if let Ok(machine) = Machine::look(appliance) {
        let before = changes::baseline(appliance, &machine);
        let text = text(None, Some(reason));
        tell(appliance, write(appliance, &before, &text, true));
    }
}

fn tell(appliance: &Appliance, outcome: Result<()>) {
    if let Err(error) = outcome {
        appliance
            .progress
            .note(&format!("the trial's report was not kept: {error:#}"));
    }
}

/// Keeps it of the running trial, which is given up for `reason`.
pub(super) fn keep_of_running(appliance: &Appliance, reason: &str) {
    if let Ok(machine) = Machine::look(appliance) {
        keep(
            appliance,
            &changes::baseline(appliance, &machine),
            Some(reason),
        );
    }
}

/// Returns where the trial of `slot` left what it could keep.
pub(super) fn kept(appliance: &Appliance, slot: Slot) -> Option<String> {
    let dir = directory(appliance, &boot_files::dir(appliance.sys, slot)).ok()??;
    let shown = dir.strip_prefix(appliance.at("/")).ok()?;
    dir.is_dir().then(|| format!("/{}", shown.display()))
}

/// Returns the directory of the trial that `before` is about, if the data volume is
/// mounted.
fn directory(appliance: &Appliance, before: &Path) -> Result<Option<PathBuf>> {
    let time = before::load(before)?.map_or(0, |before| before.time);
    let data = history::data_dir(appliance)?;
    Ok(data.map(|data| data.join(TRIALS_DIR).join(time.to_string())))
}

/// Writes `report`, and the journal where one is wanted.
fn write(appliance: &Appliance, before: &Path, report: &str, with_journal: bool) -> Result<()> {
    let Some(dir) = directory(appliance, before)? else {
        return Ok(());
    };
    let parent = dir.parent().context("no parent directory")?;
    fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
    // A journal may tell what others are not to know.
    let made = DirBuilder::new().recursive(true).mode(0o700).create(&dir);
    made.with_context(|| format!("making {}", dir.display()))?;
    put(&dir, "report.txt", report)?;
    if with_journal {
        put(&dir, "journal.txt", &journal(appliance))?;
    }
    prune(parent, &dir)
}

/// Warns of what nothing else compares.
fn warn(appliance: &Appliance, changes: &Changes) {
    let changes = changes.changes.iter().filter(|change| change.warning);
    for change in changes.filter(|it| {
        [
            "account",
            "certificate",
            "host name",
            "listener",
            "mount",
            "time",
        ]
        .contains(&it.subject)
    }) {
        let text = format!("{}: {}", change.subject, change.message);
        appliance.progress.warn(&text);
    }
}

fn put(dir: &Path, name: &str, text: &str) -> Result<()> {
    files::write_atomic(&dir.join(name), text.as_bytes(), 0o600)
}

/// Returns the end of this boot's journal, or why there is none.
fn journal(appliance: &Appliance) -> String {
    let ask = Cmd::new("journalctl").args(["-b", "--no-pager", "-n", JOURNAL_LINES]);
    match appliance.sys.run(&ask.limit(JOURNAL_LIMIT)) {
        Ok(text) => tail(&text, MAX_JOURNAL_BYTES).to_owned(),
        Err(error) => format!("the journal could not be read: {error:#}\n"),
    }
}

/// Returns the last lines of `text` that have at most `limit` bytes in all.
fn tail(text: &str, limit: usize) -> &str {
    let Some(mut start) = text.len().checked_sub(limit).filter(|start| *start > 0) else {
        return text;
    };
    while !text.is_char_boundary(start) {
        start += 1;
    }
    let rest = &text[start..];
    rest.split_once('\n').map_or(rest, |(_, lines)| lines)
}

/// Renders the report for a person who has nothing but the data volume.
fn text(changes: Option<&Result<Changes>>, reason: Option<&str>) -> String {
    let mut lines = Vec::new();
    lines.push(match reason {
        Some(reason) => format!("given up: {reason}"),
        None => "healthy".to_owned(),
    });
    match changes {
        None => {}
        Some(Ok(changes)) => {
            let from = changes.from.as_deref().unwrap_or("an unknown version");
            lines.push(format!("from {from} to {}", changes.to));
            lines.extend(changes.changes.iter().map(ToString::to_string));
        }
        Some(Err(error)) => lines.push(format!("what changed could not be found out: {error:#}")),
    }
    let lines = lines.iter().map(|line| {
        let shown = |c: char| if c.is_control() { '?' } else { c };
        line.chars().map(shown).collect::<String>() + "\n"
    });
    lines.collect()
}

/// Removes the oldest of the directories in `dir` that are ours, but not `newest`,
/// whose name comes from a clock that may have been set back.
fn prune(dir: &Path, newest: &Path) -> Result<()> {
    let mut times = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("listing {}", dir.display()))? {
        let entry = entry?;
        let time = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u64>().ok());
        if let Some(time) = time.filter(|_| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            times.push((time, entry.path()));
        }
    }
    times.retain(|(_, path)| path != newest);
    times.sort();
    let surplus = times.len().saturating_sub(KEPT_TRIALS - 1);
    for (_, path) in &times[..surplus] {
        files::remove_tree(path)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_of_a_journal_is_whole_lines_of_its_end() {
        assert_eq!(tail("one\ntwo\n", 100), "one\ntwo\n");
        assert_eq!(tail("one\ntwo\nthree\n", 10), "three\n");
        assert_eq!(tail("\u{e9}\u{e9}\u{e9}", 3), "\u{e9}");
    }

    #[test]
    fn the_oldest_reports_go_and_nothing_else_does() {
        let dir = tempfile::tempdir().unwrap();
        for time in 1..=12 {
            fs::create_dir(dir.path().join(time.to_string())).unwrap();
        }
        fs::create_dir(dir.path().join("a person's")).unwrap();
        prune(dir.path(), &dir.path().join("12")).unwrap();
        let there = |name: &str| dir.path().join(name).exists();
        assert!(!there("1") && !there("2") && there("3") && there("12"));
        assert!(there("a person's"));

        // The clock stands in 1970 again.
        fs::create_dir(dir.path().join("2")).unwrap();
        prune(dir.path(), &dir.path().join("2")).unwrap();
        assert!(there("2") && !there("3") && there("4"));
    }
}
