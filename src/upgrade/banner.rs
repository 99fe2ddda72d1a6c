//! What whoever logs in is told: that the system is on trial, or that one did not stay.
//!
//! The text is in `/run`, so that it goes with each restart and no system's settings
//! change; [`login`](crate::install::login) has it shown.

use std::fs;
use std::io;

use anyhow::{Context, Result};

use super::evidence;
use super::trial_over::is_marked_over;
use crate::appliance::Appliance;
use crate::appliance::machine::Machine;
use crate::appliance::release::ReleaseRecord;
use crate::boot::files as boot_files;
use crate::boot::state::State;
use crate::config::ConfirmBy;
use crate::paths::BANNER_FILE;
use crate::slot::Slot;
use crate::system::files;

/// Makes the text what the boot state says, or takes it away; a failure is only noted.
pub fn renew(appliance: &Appliance) {
    if let Err(error) = try_renew(appliance) {
        appliance.progress.note(&format!(
            "what is told to whoever logs in may be old: {error:#}"
        ));
    }
}

fn try_renew(appliance: &Appliance) -> Result<()> {
    let path = appliance.at(BANNER_FILE);
    let machine = Machine::look(appliance)?;
    let text = match &machine.state {
        Some(state) => text(appliance, machine.booted, state)?,
        None => None,
    };
    let Some(text) = text else {
        return match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.with_context(|| format!("removing {}", path.display())),
        };
    };
    files::write_atomic(&path, shown(&text).as_bytes(), 0o644)
}

fn text(appliance: &Appliance, booted: Slot, state: &State) -> Result<Option<String>> {
    let version = |slot| {
        let record = boot_files::record(appliance.sys, slot).ok().flatten();
        record.map_or_else(|| "unknown".to_owned(), |record| record.version)
    };
    let is_tried = state.trial().is_some_and(|trial| trial.slot == booted);
    if is_tried && !state.is_drilling() && !is_marked_over(appliance) {
        let keeper = match appliance.config.confirm_by {
            ConfirmBy::Service => "It is kept once it has proved healthy",
            ConfirmBy::Operator => "It is kept by `va-upgrade confirm`",
        };
        return Ok(Some(format!(
            "Version {}, in slot {booted}, is on trial.\n{keeper}; else version {} starts again.\n\
             `va-upgrade status` tells more.\n",
            version(booted),
            version(booted.other())
        )));
    }
    let failed = state.failed().filter(|_| booted == state.committed());
    let Some((slot, reason)) = failed else {
        return Ok(None);
    };
    let kept = match evidence::kept(appliance, slot) {
        Some(dir) => format!("Its report is in {dir}.\n"),
        None => String::new(),
    };
    Ok(Some(format!(
        "The upgrade to version {} did not stay ({reason}).\nThis is version {} again.\n{kept}\
         `va-upgrade status` tells more.\n",
        version(slot),
        ReleaseRecord::of_running(appliance)?.version
    )))
}

/// Makes it fit for a terminal, and for agetty(8), to which a backslash is a command.
fn shown(text: &str) -> String {
    let fit = |c: char| {
        if c != '\n' && (c.is_control() || c == '\\') {
            '?'
        } else {
            c
        }
    };
    let body: String = text.chars().map(fit).collect();
    format!("\n{body}\n")
}
