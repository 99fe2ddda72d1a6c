//! What the customer changed between `apply` and the restart comes over, too.
//!
//! Early in each start of a trial, before anything of the new system reads its
//! settings: the old slot is mounted read-only, and what was carried from it is
//! compared with what is there now. So neither a power cut instead of a shutdown
//! loses a change, nor is anything done while a machine goes down.
//!
//! 1. nothing differs: done, as nearly always;
//! 2. else the whole plan is carried out once more, which is the same as having
//!    carried it later ([`customer`]);
//! 3. what fails ends the trial at once: the old system has the last word.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::rollback::look_into;
use super::trial::{self, LOCK_PATIENCE};
use super::{banner, owners};
use crate::appliance::Appliance;
use crate::appliance::machine::Machine;
use crate::appliance::release::ReleaseRecord;
use crate::boot::files as boot_files;
use crate::boot::state::{Reason, State};
use crate::install::customer;
use crate::sync::plan::Plan;
use crate::system::{Cmd, Restart, Sysrq};

/// How many paths are named to a tool at once.
const MAX_PATHS: usize = 500;

/// Carries over what changed; returns whether anything had. A failure ends the
/// trial and restarts the machine.
///
/// # Errors
/// When the machine cannot be looked at.
pub fn run(appliance: &Appliance) -> Result<bool> {
    let machine = Machine::look(appliance)?;
    let slot = machine.booted;
    let trial = machine.state.as_ref().and_then(State::trial);
    if trial.is_none_or(|trial| trial.slot != slot) {
        return Ok(false);
    }
    banner::renew(appliance);
    if let Err(error) = owners::note_start(appliance) {
        appliance.progress.note(&format!(
            "when this system was first started is not noted: {error:#}"
        ));
    }
    match carry(appliance, &machine) {
        Ok(has_changed) => Ok(has_changed),
        Err(error) => {
            let text = format!("carrying over the last changes: {error:#}");
            let given_up = trial::give_up(appliance, Reason::Health, &text, LOCK_PATIENCE);
            if let Some(given_up) = given_up {
                let sysrq = Sysrq::open(appliance.sys);
                trial::restart(appliance, &given_up, Restart::Orderly, &sysrq);
            }
            Err(error)
        }
    }
}

fn carry(appliance: &Appliance, machine: &Machine) -> Result<bool> {
    let root = appliance.at("/");
    let Some(carried) = customer::carried(&root)? else {
        return Ok(false);
    };
    let other = machine.booted.other();
    let from_version = boot_files::record(appliance.sys, other)?.map(|record| record.version);
    let to_version = ReleaseRecord::of_running(appliance)?.version;
    let about = customer::about(
        appliance,
        from_version.as_deref().unwrap_or("unknown"),
        &to_version,
    );
    let outcome = look_into(appliance, other, |from| -> Result<bool> {
        if customer::fingerprint(appliance, from, &root)? == carried.print {
            return Ok(false);
        }
        let take_effect = |plan: &Plan| take_effect(appliance, &root, plan);
        customer::carry(appliance, from, &[], &root, &about, &take_effect)?;
        Ok(true)
    })?;
    let has_changed = outcome.context("carrying over what was changed after the upgrade")?;
    if has_changed {
        trial::record(
            appliance,
            "trial",
            machine.booted,
            "what was changed after `apply` was carried over",
        );
    }
    Ok(has_changed)
}

/// Has what was read before this step read again, and labels set.
fn take_effect(appliance: &Appliance, root: &Path, plan: &Plan) -> Result<()> {
    let name = fs::read_to_string(root.join("etc/hostname")).unwrap_or_default();
    let name = name.lines().find(|line| !line.starts_with('#'));
    if let Some(name) = name.map(str::trim).filter(|name| !name.is_empty()) {
        let path = appliance.at("/proc/sys/kernel/hostname");
        fs::write(&path, name).with_context(|| format!("writing {}", path.display()))?;
    }
    if appliance.at("/sys/fs/selinux/enforce").exists() {
        let restorecon = Cmd::new("restorecon").args(["-R", "-F", "/etc", "/root", "/home"]);
        appliance.sys.run(&restorecon)?;
        for some in labelled_one_by_one(root, plan).chunks(MAX_PATHS) {
            let restorecon = Cmd::new("restorecon").args(["-F", "--"]).args(some);
            appliance.sys.run(&restorecon)?;
        }
    }
    Ok(())
}

/// Returns what was carried to elsewhere, with the directories above it.
fn labelled_one_by_one(root: &Path, plan: &Plan) -> Vec<PathBuf> {
    let whole = ["", "etc", "root", "home"].map(Path::new);
    let all: BTreeSet<&Path> = plan
        .carried()
        .flat_map(|item| item.path.ancestors())
        .filter(|path| !whole.contains(path))
        .filter(|path| !whole[1..].iter().any(|dir| path.starts_with(dir)))
        .filter(|path| root.join(path).symlink_metadata().is_ok())
        .collect();
    all.into_iter()
        .map(|path| Path::new("/").join(path))
        .collect()
}
