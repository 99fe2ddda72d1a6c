//! The first start of a system on a disk that was made anew.
//!
//! It is checked like a trial, but there is no other system: nothing is restarted and
//! nothing is taken back. 1. the log of the migration is copied from the disk's log area
//! to the data volume; 2. the health is checked against what the old system was; 3. where
//! it is well, the word for the first start goes, and with it all that follows; 4. where
//! it is not, the console and every login say so, at each start until it is well.

use std::fs::{self, OpenOptions};
use std::io::Write;

use anyhow::{Context, Result, anyhow};

use super::health::{self, Baseline, Tried};
use super::trial::record;
use crate::appliance::Appliance;
use crate::appliance::first_start::FirstStart;
use crate::appliance::history;
use crate::appliance::machine::{self, Machine};
use crate::boot::files as boot_files;
use crate::disk::log_area;
use crate::paths::{CONSOLE, FIRST_START_FILE, ISSUE_FILE, MIGRATIONS_DIR, MOTD_FILE};
use crate::progress::Step;
use crate::system::files;

/// What the first start turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The system of this version is healthy.
    Healthy(String),
    /// It is not, for this reason; a person must act.
    Unhealthy(String),
}

/// Checks the running system where it has not been found healthy since its disk was
/// made anew; `None` anywhere else.
///
/// # Errors
/// When the machine cannot be looked at.
pub fn run(appliance: &Appliance) -> Result<Option<Verdict>> {
    let Some(first) = FirstStart::load(appliance)? else {
        return Ok(None);
    };
    let machine = Machine::look(appliance)?;
    if let Err(error) = keep_log(appliance) {
        appliance
            .progress
            .warn(&format!("the log of the migration is not kept: {error:#}"));
    }
    appliance
        .progress
        .start(Step::CheckHealth(machine.booted), None);
    let before = Baseline {
        dir: boot_files::dir(appliance.sys, machine.booted),
        tried: Tried::System,
    };
    let healthy = match &first.lacks {
        None => health::check(appliance, &before),
        Some(why) => Err(anyhow!(
            "nothing of the customer's came over ({why}); it is in {MIGRATIONS_DIR}/{}.settings.tar \
             on the data volume. When it is put right, remove {FIRST_START_FILE}",
            first.run
        )),
    };
    Ok(Some(match healthy {
        Ok(()) => {
            FirstStart::take_away(appliance)?;
            for path in [ISSUE_FILE, MOTD_FILE] {
                let _ = fs::remove_file(appliance.at(path));
            }
            let outcome = format!("moved from {} to two slots, healthy", first.from);
            record(appliance, "migrate", machine.booted, &outcome);
            Verdict::Healthy(first.to)
        }
        Err(error) => {
            let reason = format!("{error:#}");
            record(appliance, "migrate", machine.booted, &reason);
            tell_everybody(appliance, &first, &reason);
            Verdict::Unhealthy(reason)
        }
    }))
}

/// Copies the log from the disk to the data volume, where that is mounted.
fn keep_log(appliance: &Appliance) -> Result<()> {
    let Some(data) = history::data_dir(appliance)? else {
        return Ok(());
    };
    let disk = machine::boot_disk(appliance)?;
    let lines = log_area::read(&appliance.at(disk))?;
    let Some(first) = lines.first() else {
        return Ok(());
    };
    let dir = data.join(MIGRATIONS_DIR);
    fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
    let text: String = lines
        .iter()
        .map(|line| format!("{} {}\n", line.time, line.text))
        .collect();
    let path = dir.join(format!("{}.log", first.run));
    files::write_atomic(&path, text.as_bytes(), 0o600)
}

/// Says on the console and in front of every login what is wrong.
fn tell_everybody(appliance: &Appliance, first: &FirstStart, reason: &str) {
    let reason: String = reason
        .chars()
        // agetty(8) takes what follows a backslash for something to fill in.
        .map(|c| if c.is_control() || c == '\\' { ' ' } else { c })
        .collect();
    let text = format!(
        "\nThis appliance was moved from {} to {} and is not healthy:\n  {reason}\nThere is no \
         other system to go back to. See `va-upgrade status`; after a repair, restart.\n\n",
        first.from, first.to
    );
    appliance.progress.warn(&reason);
    for path in [ISSUE_FILE, MOTD_FILE] {
        if let Err(error) = write_banner(appliance, path, &text) {
            appliance.progress.warn(&format!("{error:#}"));
        }
    }
    let console = OpenOptions::new().append(true).open(appliance.at(CONSOLE));
    // A machine without a console has nobody in front of it.
    let _ = console.and_then(|mut console| console.write_all(text.as_bytes()));
}

fn write_banner(appliance: &Appliance, path: &str, text: &str) -> Result<()> {
    let path = appliance.at(path);
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    }
    files::write_atomic(&path, text.as_bytes(), 0o644)
}
