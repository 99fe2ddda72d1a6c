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
use super::network_health::{other_sizes, record, told};
use crate::accounts::Entry;
use crate::appliance::Appliance;
use crate::appliance::assets::{self, Assets};
use crate::appliance::before::{self, Before};
use crate::appliance::cards::{self, Interfaces, Record, naming};
use crate::appliance::machine::Machine;
use crate::appliance::network::{self, Network};
use crate::appliance::services;
use crate::boot::{files as boot_files, next};
use crate::linux::x509::Validity;
use crate::refuse;
use crate::report::Policy;

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
    /// What it is about, one of [`REPORTED`](crate::config::REPORTED).
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

/// Lists what is worse than before and may not be, by what `report` in the
/// configuration enforces.
///
/// # Errors
/// When a record or the system cannot be read.
pub(super) fn intolerable(appliance: &Appliance, dir: &Path) -> Result<Vec<String>> {
    let policies = &appliance.config.report;
    let is_enforced = |subject: &str| policies.get(subject) == Some(&Policy::Enforce);
    if !policies.keys().any(|subject| is_enforced(subject)) || before::load(dir)?.is_none() {
        return Ok(Vec::new());
    }
    let changes = look(appliance, dir)?.changes.into_iter();
    let worse = changes.filter(|change| change.warning && is_enforced(change.subject));
    Ok(worse
        .map(|change| format!("{}: {}", change.subject, change.message))
        .collect())
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
        for text in other_sizes(&cards, &interfaces) {
            found.add("mtu", Kind::Changed, true, text);
        }
    }
    if let Some(then) = &network {
        compare_networks(&mut found, then, &Network::look(appliance)?);
    }
    compare_units(appliance, &mut found, record(dir, services::FILE)?)?;
    if let Some(then) = &then {
        compare(&mut found, then, &now);
    }
    if let Some(then) = record::<Assets>(dir, assets::FILE)? {
        let days = appliance.config.certificate_days;
        let moment = Moment {
            now: now.time,
            soon: now.time + days * 86_400,
        };
        compare_assets(&mut found, &then, &Assets::look(appliance), &moment);
    }
    let policies = &appliance.config.report;
    for change in found.changes.iter_mut().filter(|change| change.warning) {
        change.warning = policies.get(change.subject) != Some(&Policy::Observe);
    }
    found.changes.sort_by_key(|change| !change.warning);
    Ok(found)
}

fn compare_networks(found: &mut Changes, then: &Network, now: &Network) {
    let lacks = then.lacking_in(now);
    for it in lacks.missing {
        found.add("network", Kind::Gone, true, format!("{it} is gone"));
    }
    for (subject, it) in lacks.settings {
        found.add(subject, Kind::Gone, true, format!("{it} is gone"));
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
    let is_known = !then.name_servers.is_empty() && !now.name_servers.is_empty();
    if is_known && then.name_servers != now.name_servers {
        let (then, now) = (then.name_servers.join(", "), now.name_servers.join(", "));
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

/// What a certificate's end is compared with, in seconds since 1970.
struct Moment {
    now: u64,
    soon: u64,
}

fn compare_assets(found: &mut Changes, then: &Assets, now: &Assets, moment: &Moment) {
    if then.is_synchronized == Some(true) && now.is_synchronized == Some(false) {
        let text = "the clock is not synchronized any more".to_owned();
        found.add("time", Kind::Changed, true, text);
    }
    if let (Some(then), Some(now)) = (&then.accounts, &now.accounts) {
        for (name, entry) in then {
            match (entry, now.get(name)) {
                (_, None) => {
                    let text = format!("nobody can log in as {name} any more");
                    found.add("account", Kind::Gone, true, text);
                }
                (Entry::Password, Some(Entry::Other)) => {
                    let text = format!("{name} has no password any more");
                    found.add("account", Kind::Changed, true, text);
                }
                _ => {}
            }
        }
        for name in now.keys().filter(|name| !then.contains_key(*name)) {
            let text = format!("{name} can log in now");
            found.add("account", Kind::New, false, text);
        }
    }
    for (path, then) in &then.certificates {
        compare_certificate(found, path, *then, now.certificates.get(path), moment);
    }
}

fn compare_certificate(
    found: &mut Changes,
    path: &Path,
    then: Option<Validity>,
    now: Option<&Option<Validity>>,
    moment: &Moment,
) {
    let (path, subject) = (path.display(), "certificate");
    // What could not be read before need not be now.
    let Some(then) = then else { return };
    let Some(now) = now else {
        let text = format!("no setting names {path} any more");
        return found.add(subject, Kind::Gone, false, text);
    };
    let Some(now) = now else {
        let text = format!("{path} holds none any more");
        return found.add(subject, Kind::Gone, true, text);
    };
    if now.from > moment.now {
        let text = format!("{path} is not valid yet, by this machine's clock");
        return found.add(subject, Kind::Changed, true, text);
    }
    if now.until > moment.soon {
        return;
    }
    // One that comes to its end would have done so on the old system, too.
    let is_worse = now.until < then.until;
    let text = match now.until.checked_sub(moment.now) {
        None | Some(0) => format!("{path} is valid no more"),
        Some(left) => format!("{path} is valid for {} days only", left / 86_400),
    };
    found.add(subject, Kind::Changed, is_worse, text);
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
