//! What is another in the running system than before its upgrade.
//!
//! Compares what [`write_baseline`](crate::install::boot_files::write_baseline) left
//! beside the boot files. Whether that ends a trial is [`health`](super::health)'s
//! to say: here a person is told.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;

use super::kernel_update;
use super::network_health::{record, told};
use crate::appliance::Appliance;
use crate::appliance::before::{self, Before};
use crate::appliance::cards::{self, Interfaces, Record, naming};
use crate::appliance::machine::Machine;
use crate::appliance::network::{self, Network};
use crate::appliance::services;
use crate::boot::{files as boot_files, next};
use crate::refuse;

/// How a thing differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// It was there.
    Gone,
    /// It was not there.
    New,
    /// It is there, and another.
    Changed,
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// What it is about: `card`, `host name`, `listener`, `mount`, `network`, `unit`.
    pub subject: &'static str,
    /// How it differs.
    pub kind: Kind,
    /// Whether somebody may miss it.
    pub warning: bool,
    /// What differs, in a person's words.
    pub message: String,
}

/// All differences; the JSON form is what `report --json` prints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Changes {
    /// The version of this shape.
    pub format: u32,
    /// When the earlier system was looked at, in seconds since 1970; 0 where an
    /// earlier va-upgrade did not write it down.
    pub before: u64,
    /// The version that ran then; `None` where that was not written down.
    pub from: Option<String>,
    /// The version that runs now.
    pub to: String,
    /// What differs, warnings first.
    pub changes: Vec<Change>,
}

impl Changes {
    fn add(&mut self, subject: &'static str, kind: Kind, warning: bool, message: String) {
        self.changes.push(Change {
            subject,
            kind,
            warning,
            message,
        });
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.warning { "warn" } else { "note" };
        write!(f, "{mark}  {}: {}", self.subject, self.message)
    }
}

/// Returns the directory with what the running system is compared with: that of its
/// slot, or of the kernel that is on trial.
pub(super) fn baseline(appliance: &Appliance, machine: &Machine) -> PathBuf {
    let (sys, slot) = (appliance.sys, machine.booted);
    kernel_update::running_next(appliance, machine)
        .and_then(|record| next::dir(sys, slot, &record).ok())
        .unwrap_or_else(|| boot_files::dir(sys, slot))
}

/// Compares the running system with the one before its upgrade; changes nothing.
///
/// # Errors
/// Class `Refused` where nothing was written down of that; else when a record or the
/// system cannot be read.
pub fn of_running(appliance: &Appliance, machine: &Machine) -> Result<Changes> {
    look(appliance, &baseline(appliance, machine))
}

/// Compares the running system with what was written down in `dir`.
///
/// # Errors
/// Those of [`of_running`].
pub(super) fn look(appliance: &Appliance, dir: &Path) -> Result<Changes> {
    let then = before::load(dir)?;
    let network = record::<Network>(dir, network::FILE)?;
    if then.is_none() && network.is_none() {
        refuse!(
            "nothing was written down before this system came: no upgrade has brought it; after \
             one that did not stay, `va-upgrade status` says where its report is"
        );
    }
    let now = Before::look(appliance)?;
    let mut found = Changes {
        format: 1,
        before: then.as_ref().map_or(0, |then| then.time),
        from: then.as_ref().map(|then| then.version.clone()),
        to: now.version.clone(),
        changes: Vec::new(),
    };
    if let Some(Record { cards }) = record(dir, cards::FILE)? {
        let interfaces = Interfaces::look(appliance)?;
        let wrong = naming::misnamed(&cards, &interfaces);
        if !wrong.is_empty() {
            found.add("card", Kind::Changed, true, told(&wrong));
        }
    }
    if let Some(then) = &network {
        compare_networks(&mut found, then, &Network::look(appliance)?);
    }
    compare_units(appliance, &mut found, record(dir, services::FILE)?)?;
    if let Some(then) = &then {
        compare(&mut found, then, &now);
    }
    found.changes.sort_by_key(|change| !change.warning);
    Ok(found)
}

fn compare_networks(found: &mut Changes, then: &Network, now: &Network) {
    let lacks = then.lacking_in(now);
    for it in lacks.missing {
        found.add("network", Kind::Gone, true, format!("{it} is gone"));
    }
    for it in lacks.moved {
        let text = format!("{it} is gone, as of a cluster whose other machine has it now");
        found.add("network", Kind::Gone, false, text);
    }
    for (mac, addresses) in &now.cards {
        let known = then.cards.get(mac);
        let is_new = |it: &&String| known.is_some_and(|known| !known.contains(it));
        for address in addresses.iter().filter(is_new) {
            let text = format!("address {address} on {mac} is new");
            found.add("network", Kind::New, false, text);
        }
    }
    // Records of earlier versions have none.
    if then.name_servers != now.name_servers && !then.name_servers.is_empty() {
        let list = |servers: &[String]| match servers.is_empty() {
            true => "none".to_owned(),
            false => servers.join(", "),
        };
        let (then, now) = (list(&then.name_servers), list(&now.name_servers));
        let text = format!("name servers are {now}, they were {then}");
        found.add("network", Kind::Changed, true, text);
    }
}

fn compare_units(
    appliance: &Appliance,
    found: &mut Changes,
    then: Option<Vec<String>>,
) -> Result<()> {
    let Some(then) = then else {
        return Ok(());
    };
    let now = services::failed(appliance).context("listing failed units")?;
    for unit in now.iter().filter(|unit| !then.contains(unit)) {
        found.add("unit", Kind::New, true, format!("{unit} has failed"));
    }
    for unit in now.iter().filter(|unit| then.contains(unit)) {
        let text = format!("{unit} has failed, as it had before");
        found.add("unit", Kind::Changed, false, text);
    }
    for unit in then.iter().filter(|unit| !now.contains(unit)) {
        let text = format!("{unit} had failed, and has not now");
        found.add("unit", Kind::Gone, false, text);
    }
    Ok(())
}

fn compare(found: &mut Changes, then: &Before, now: &Before) {
    if then.host_name != now.host_name && !then.host_name.is_empty() {
        let text = format!("it is {:?}, it was {:?}", now.host_name, then.host_name);
        found.add("host name", Kind::Changed, true, text);
    }
    compare_listeners(found, &then.listeners, &now.listeners);
    for (at, mount) in &then.mounts {
        match now.mounts.get(at) {
            None => {
                let text = format!("{at} ({}) is not mounted any more", mount.fs_type);
                found.add("mount", Kind::Gone, true, text);
            }
            Some(now) if mount.writable && !now.writable => {
                let text = format!("{at} cannot be written any more");
                found.add("mount", Kind::Changed, true, text);
            }
            Some(_) => {}
        }
    }
    for (at, mount) in now
        .mounts
        .iter()
        .filter(|it| !then.mounts.contains_key(it.0))
    {
        let text = format!("{at} ({}) is mounted now", mount.fs_type);
        found.add("mount", Kind::New, false, text);
    }
}

fn compare_listeners(found: &mut Changes, then: &BTreeSet<String>, now: &BTreeSet<String>) {
    for port in then.difference(now) {
        let text = format!("nobody listens on {port} any more");
        found.add("listener", Kind::Gone, true, text);
    }
    for port in now.difference(then) {
        let text = format!("somebody listens on {port} now");
        found.add("listener", Kind::New, false, text);
    }
}
