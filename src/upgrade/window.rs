//! How long the running trial may go on: its deadline, or what was granted since.
//!
//! A later end is a word in `/run`, in seconds since the kernel started: the
//! watcher of the [`deadline`](super::deadline) needs neither storage nor a clock
//! that is right to see it.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};

use crate::appliance::Appliance;
use crate::failure::{Class, with_class};
use crate::paths::TRIAL_UNTIL_FILE;
use crate::system::files;

/// The longest time that can be granted at once, in minutes: a week.
pub const MAX_MINUTES: u64 = 7 * 24 * 60;

/// Returns how long the running trial still has.
///
/// # Errors
/// When the kernel's clock cannot be read.
pub fn left(appliance: &Appliance) -> Result<Duration> {
    let end = granted(appliance).max(Some(appliance.config.deadline_seconds));
    let uptime = uptime_seconds(&appliance.at("/proc/uptime"))?;
    Ok(Duration::from_secs(
        end.unwrap_or_default().saturating_sub(uptime),
    ))
}

/// Tells whether the trial was granted more than its deadline.
pub(super) fn is_granted(appliance: &Appliance) -> bool {
    granted(appliance).is_some()
}

/// Lets the running trial go on for at least so many minutes from now; returns how
/// long it has then. Never takes time away.
///
/// # Errors
/// Class `Usage` when it is no time that can be granted; else when the word
/// cannot be left.
pub fn grant(appliance: &Appliance, minutes: u64) -> Result<Duration> {
    if !(1..=MAX_MINUTES).contains(&minutes) {
        let error = anyhow!("{minutes} minutes cannot be given; 1 to {MAX_MINUTES} can");
        return Err(with_class(Class::Usage, error));
    }
    let uptime = uptime_seconds(&appliance.at("/proc/uptime"))?;
    let end = granted(appliance).max(Some(uptime + minutes * 60));
    let text = format!("{}\n", end.unwrap_or_default());
    files::write_atomic(&appliance.at(TRIAL_UNTIL_FILE), text.as_bytes(), 0o644)?;
    left(appliance)
}

/// Reads the word in `/run`; one that is no number counts for nothing, and no
/// trial has more than the longest time from now.
fn granted(appliance: &Appliance) -> Option<u64> {
    let text = fs::read_to_string(appliance.at(TRIAL_UNTIL_FILE)).ok()?;
    let end: u64 = text.trim().parse().ok()?;
    let uptime = uptime_seconds(&appliance.at("/proc/uptime")).ok()?;
    Some(end.min(uptime + MAX_MINUTES * 60))
}

fn uptime_seconds(path: &Path) -> Result<u64> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let seconds = text
        .split(['.', ' '])
        .next()
        .and_then(|word| word.parse().ok());
    seconds.with_context(|| format!("{} says {text:?}", path.display()))
}
