//! Another kernel of a slot, beside the one that the slot starts.
//!
//! It has a directory of its own in the slot's, `k-<id>`, so that nothing of the
//! kernel that starts is written over, and the slot's entry sources `next.cfg`
//! while the boot state says that it is on trial. Once it has come up, the slot's
//! entry and record are replaced by those that were written beside it, which start
//! it where it is; that is a rename each.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::files::{self as boot_files, BootSet, ENTRY, INITRAMFS, kernel_name};
use super::record::{SlotRecord, Source};
use super::state::Reason;
use super::{entry, journal};
use crate::paths::BOOT;
use crate::slot::Slot;
use crate::system::files::{self, read_yaml};
use crate::system::{Lock, System};

/// What is known of the other kernel: a [`SlotRecord`] of its files.
const RECORD: &str = "next.yaml";

/// What is known of those that did not come up: a list of [`Refused`].
const REFUSED: &str = "refused.yaml";

/// How many of them are remembered.
const MOST_REFUSED: usize = 16;

/// How the names of the directories of kernels begin.
const DIR_PREFIX: &str = "k-";

/// A kernel that was tried and did not come up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Its release.
    pub kernel: String,
    /// What it was copied from.
    pub source: Source,
    /// How its trial ended.
    pub reason: String,
}

/// Returns what is known of the kernel beside the one that `slot` starts.
///
/// # Errors
/// When it is there and cannot be read.
pub fn load(sys: &dyn System, slot: Slot) -> Result<Option<SlotRecord>> {
    read(&boot_files::dir(sys, slot).join(RECORD))
}

/// Returns the kernels of `slot` that did not come up, the last one last.
///
/// # Errors
/// When the list is there and cannot be read.
pub fn refused(sys: &dyn System, slot: Slot) -> Result<Vec<Refused>> {
    let found = read(&boot_files::dir(sys, slot).join(REFUSED))?;
    Ok(match found {
        Some(OneOrMore::More(list)) => list,
        Some(OneOrMore::One(refused)) => vec![refused],
        None => Vec::new(),
    })
}

/// What stands in [`REFUSED`]; an earlier version wrote down the last one only.
#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    More(Vec<Refused>),
    One(Refused),
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    path.exists().then(|| read_yaml(path)).transpose()
}

/// Returns the directory of the kernel that `record` is of.
///
/// # Errors
/// When the record does not say.
pub fn dir(sys: &dyn System, slot: Slot, record: &SlotRecord) -> Result<PathBuf> {
    let [kernel, _] = pair(record)?;
    let place = kernel.split_once('/').map(|(place, _)| place);
    let place = place.context("its record names no directory")?;
    Ok(boot_files::dir(sys, slot).join(place))
}

/// Tells whether the entry of `slot` can start a second kernel.
pub fn is_possible(sys: &dyn System, slot: Slot) -> bool {
    entry_text(sys, slot).contains(&format!("/{}/{}", slot.name(), entry::NEXT))
}

/// Writes the kernel of `set` beside the one that `slot` starts, in place of any
/// other there, and reads it back. Nothing starts it yet.
///
/// # Errors
/// When a file cannot be written or does not read back.
pub fn write(sys: &dyn System, slot: Slot, set: &BootSet, lock: &Lock) -> Result<SlotRecord> {
    withdraw(sys, slot, lock)?;
    let written = write_files(sys, slot, set);
    if written.is_err() {
        // What is half there takes room that others need.
        tidy(sys, slot, lock)?;
    }
    written
}

fn write_files(sys: &dyn System, slot: Slot, set: &BootSet) -> Result<SlotRecord> {
    let dir = boot_files::dir(sys, slot);
    let id = Source::of(set.kernel, set.initramfs)?.id();
    let place = format!("{DIR_PREFIX}{id}/");
    let (kernel, initramfs) = (kernel_name(set), INITRAMFS);
    let [kernel, initramfs] = [kernel.as_str(), initramfs].map(|name| format!("{place}{name}"));
    let args = with_word(set.args, &id);
    let text = entry::render_next(slot, set.version, [&kernel, &initramfs], &args)?;
    let names = boot_files::copy_pair(&dir, slot, &place, set)?;
    let record = boot_files::record_of(&dir, &names, set)?;
    ensure!(
        record.source.is_some_and(|source| source.id() == id),
        "the kernel was changed while it was copied"
    );
    prepare(&dir, slot, &place, &record)?;
    files::write_atomic(&dir.join(entry::NEXT), text.as_bytes(), 0o644)?;
    let yaml = serde_yaml::to_string(&record).context("rendering the record of a kernel")?;
    files::write_atomic(&dir.join(RECORD), yaml.as_bytes(), 0o644)?;
    Ok(record)
}

/// Writes into `place` what [`promote`] puts in its place: when it is to be kept,
/// `/boot` may be full.
fn prepare(dir: &Path, slot: Slot, place: &str, record: &SlotRecord) -> Result<()> {
    let prepared = dir.join(place);
    write_entry(&prepared, slot, record)?;
    let mut own = record.clone();
    own.files.push(boot_files::describe(&prepared, ENTRY)?);
    own.save(&prepared)
}

/// Makes the kernel beside it the one that `slot` starts, which takes no room on
/// `/boot`. The old one stays until [`tidy`].
///
/// # Errors
/// When there is none, or a file cannot be renamed.
pub fn promote(sys: &dyn System, slot: Slot, _lock: &Lock) -> Result<()> {
    let next = load(sys, slot)?.context("no other kernel is there")?;
    let (from, to) = (dir(sys, slot, &next)?, boot_files::dir(sys, slot));
    let faults = next.faults(&to, false);
    ensure!(faults.is_empty(), "{}", faults.join("; "));
    for name in [ENTRY, SlotRecord::FILE] {
        let (from, to) = (from.join(name), to.join(name));
        // The machine may have stopped when one of them was in its place.
        if from.exists() {
            fs::rename(&from, &to)
                .with_context(|| format!("renaming {} to {}", from.display(), to.display()))?;
        }
        for path in [&to, &from] {
            files::sync_dir(path.parent().unwrap_or(path))?;
        }
    }
    let own = SlotRecord::load(&to)?.context("the slot has no record")?;
    let is_own =
        own.source == next.source && mentions(&entry_text(sys, slot), slot, &place_of(&from));
    ensure!(is_own, "what was prepared to keep it is gone");
    Ok(())
}

/// Removes the kernel beside it, which did not come up; returns what is to be
/// [remembered](remember) of it.
///
/// # Errors
/// When a file cannot be written or removed.
pub fn refuse(sys: &dyn System, slot: Slot, reason: Reason, lock: &Lock) -> Result<Refused> {
    let next = load(sys, slot)?.context("no other kernel is there")?;
    let refused = Refused {
        kernel: next.kernel.clone(),
        source: next.source.context("its record has no source")?,
        reason: reason.to_string(),
    };
    withdraw(sys, slot, lock)?;
    Ok(refused)
}

/// Writes down what is not to be tried again; what went before gives it room.
///
/// # Errors
/// When the list cannot be written.
pub fn remember(sys: &dyn System, slot: Slot, refused: &Refused, _lock: &Lock) -> Result<()> {
    // A list that cannot be read keeps no new one from being written.
    let mut list = self::refused(sys, slot).unwrap_or_default();
    list.retain(|it| it.source != refused.source);
    list.drain(..list.len().saturating_sub(MOST_REFUSED - 1));
    list.push(refused.clone());
    let yaml = serde_yaml::to_string(&list).context("rendering what is known of kernels")?;
    let path = boot_files::dir(sys, slot).join(REFUSED);
    files::write_atomic(&path, yaml.as_bytes(), 0o644)
}

/// Removes the kernel beside the one that `slot` starts, if there is one.
///
/// # Errors
/// When a file cannot be written or removed.
pub fn withdraw(sys: &dyn System, slot: Slot, lock: &Lock) -> Result<()> {
    let slot_dir = boot_files::dir(sys, slot);
    // A record that cannot be read is of a kernel that cannot be kept.
    let next = load(sys, slot).ok().flatten();
    if let (Some(next), Some(own)) = (next, SlotRecord::load(&slot_dir)?) {
        let place = place_of(&dir(sys, slot, &next)?);
        let is_own = own.files.iter().any(|file| file.name.starts_with(&place));
        // It was about to become the slot's own when the machine stopped.
        if !is_own && mentions(&entry_text(sys, slot), slot, &place) {
            write_entry(&slot_dir, slot, &own)?;
            journal::flush(sys, &sys.at(BOOT))?;
        }
    }
    tidy(sys, slot, lock)
}

/// Removes the kernels of `slot` that neither its record nor its entry names.
///
/// # Errors
/// When one cannot be removed.
pub fn tidy(sys: &dyn System, slot: Slot, _lock: &Lock) -> Result<()> {
    let dir = boot_files::dir(sys, slot);
    let Some(record) = SlotRecord::load(&dir)? else {
        return Ok(());
    };
    let text = entry_text(sys, slot);
    for name in [entry::NEXT, RECORD] {
        let path = dir.join(name);
        if path.exists() {
            fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
        }
    }
    for found in fs::read_dir(&dir).with_context(|| format!("listing {}", dir.display()))? {
        let found = found?;
        let name = found.file_name().to_string_lossy().into_owned();
        let is_dir = found.file_type()?.is_dir();
        let name = if is_dir { format!("{name}/") } else { name };
        let is_named = record.files.iter().any(|file| match is_dir {
            true => file.name.starts_with(&name),
            false => file.name == name,
        });
        if !is_of_kernel(&name) || is_named || mentions(&text, slot, &name) {
            continue;
        }
        match is_dir {
            true => files::remove_tree(&found.path())?,
            false => fs::remove_file(found.path())
                .with_context(|| format!("removing {}", found.path().display()))?,
        }
    }
    Ok(())
}

/// Tells whether a file, or a directory with a slash behind its name, is what a
/// kernel is started from.
fn is_of_kernel(name: &str) -> bool {
    name.starts_with(DIR_PREFIX)
        || name.starts_with("vmlinuz-")
        || name.starts_with(".vmlinuz-")
        || name == INITRAMFS
}

fn mentions(entry: &str, slot: Slot, name: &str) -> bool {
    entry.contains(&format!("/{}/{name}", slot.name()))
}

/// Returns the name of a directory as it stands before its files.
fn place_of(dir: &Path) -> String {
    format!("{}/", dir.file_name().unwrap_or_default().to_string_lossy())
}

/// Returns the slot's entry; empty where it cannot be read.
fn entry_text(sys: &dyn System, slot: Slot) -> String {
    fs::read_to_string(boot_files::dir(sys, slot).join(ENTRY)).unwrap_or_default()
}

/// Writes into `dir` the entry that starts what `record` is of.
fn write_entry(dir: &Path, slot: Slot, record: &SlotRecord) -> Result<()> {
    let [kernel, initramfs] = pair(record)?;
    let args = match &record.source {
        Some(source) if kernel.contains('/') => with_word(&record.args, &source.id()),
        _ => record.args.clone(),
    };
    let text = entry::render(slot, &record.version, [kernel, initramfs], &args)?;
    files::write_atomic(&dir.join(ENTRY), text.as_bytes(), 0o644)
}

fn with_word(args: &[String], id: &str) -> Vec<String> {
    let mut args = args.to_vec();
    args.push(entry::kernel_word(id));
    args
}

/// Returns the names of kernel and initramfs.
fn pair(record: &SlotRecord) -> Result<[&str; 2]> {
    let names: Vec<&str> = record.files.iter().map(|file| file.name.as_str()).collect();
    match names[..] {
        [kernel, initramfs, ..] => Ok([kernel, initramfs]),
        _ => anyhow::bail!("the record of kernel {} names no files", record.kernel),
    }
}
