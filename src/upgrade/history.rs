//! The operation history on the data volume: one JSON line per event.
//!
//! Kept beside both systems, so that each knows what the other did. Losing a
//! line never fails an operation.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::config::Config;
use crate::disk::{lvm, mounts};
use crate::progress::Progress;
use crate::slot::Slot;

/// Where on the data volume the history is.
const FILE: &str = "va-upgrade/history.jsonl";

/// Something that happened.
#[derive(Serialize)]
pub struct Event<'a> {
    /// What was done: `apply`, `confirm`, `rollback`, `trial`.
    pub operation: &'a str,
    /// The slot it was about.
    pub slot: Slot,
    /// The version in that slot.
    pub version: &'a str,
    /// How it ended, in a person's words.
    pub outcome: &'a str,
}

/// Adds `event` to the history; a failure is only noted.
pub fn record(config: &Config, event: &Event, progress: &dyn Progress) {
    if let Err(error) = append(config, event) {
        progress.note(&format!("the operation history was not written: {error:#}"));
    }
}

fn append(config: &Config, event: &Event) -> Result<()> {
    #[derive(Serialize)]
    struct Line<'a> {
        time: u64,
        #[serde(flatten)]
        event: &'a Event<'a>,
    }
    let Some(dir) = data_dir(config)? else {
        return Ok(());
    };
    let path = dir.join(FILE);
    fs::create_dir_all(path.parent().context("no parent directory")?)?;
    let time = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    let mut line = serde_json::to_string(&Line { time, event })?;
    line.push('\n');
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .with_context(|| format!("opening {}", path.display()))?;
    file.write_all(line.as_bytes())?;
    file.sync_all()
        .with_context(|| format!("writing {}", path.display()))
}

/// Returns where the data volume is mounted, if it is.
fn data_dir(config: &Config) -> Result<Option<PathBuf>> {
    let table = mounts::read(&config.at("/proc/self/mountinfo"))?;
    let mapper = format!(
        "/dev/mapper/{}",
        lvm::mapper_name(&config.vg, &config.volumes.data)
    );
    let plain = format!("/dev/{}/{}", config.vg, config.volumes.data);
    let found = table
        .iter()
        .find(|m| (m.source == mapper || m.source == plain) && m.writable);
    Ok(found.map(|mount| config.at(&mount.target)))
}
