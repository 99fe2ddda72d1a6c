//! The operation history on the data volume: one JSON line per event.
//!
//! Kept beside both systems, so that each knows what the other did. Losing a
//! line never fails an operation.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::Serialize;

use super::context::Appliance;
use super::machine;
use crate::config::Config;
use crate::linux::device_mapper;
use crate::paths::HISTORY_FILE;
use crate::slot::Slot;

/// Something that happened.
#[derive(Serialize)]
pub struct Event<'a> {
    /// What was done: `apply`, `activate`, `boot`, `confirm`, `discard`, `drill`, `kernel`,
    /// `migrate`, `repair`, `rollback`, `trial`.
    pub operation: &'a str,
    /// The slot it was about.
    pub slot: Slot,
    /// The version in that slot.
    pub version: &'a str,
    /// The step it ended in, when it failed in one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<&'a str>,
    /// How it ended, in a person's words.
    pub outcome: &'a str,
}

/// Adds `event` to the history; a failure is only noted.
pub fn record(appliance: &Appliance, event: &Event) {
    if let Err(error) = append(appliance, event) {
        appliance
            .progress
            .note(&format!("the operation history was not written: {error:#}"));
    }
}

fn append(appliance: &Appliance, event: &Event) -> Result<()> {
    #[derive(Serialize)]
    struct Line<'a> {
        time: u64,
        #[serde(flatten)]
        event: &'a Event<'a>,
    }
    let Some(dir) = data_dir(appliance)? else {
        return Ok(());
    };
    let path = dir.join(HISTORY_FILE);
    fs::create_dir_all(path.parent().context("no parent directory")?)?;
    let time = appliance.sys.seconds_since_1970();
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
///
/// # Errors
/// When the mount table cannot be read.
pub fn data_dir(appliance: &Appliance) -> Result<Option<PathBuf>> {
    let Config { vg, volumes, .. } = appliance.config;
    let is_data = |source: &str| {
        device_mapper::is_in_group(source, vg) && device_mapper::is_called(source, &volumes.data)
    };
    let table = machine::mounts(appliance)?;
    let found = table.iter().find(|m| m.writable && is_data(&m.source));
    Ok(found.map(|mount| appliance.at(&mount.mount_point)))
}
