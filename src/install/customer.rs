//! The customer's own comes over: what the rules of [`sync`](crate::sync) say.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

use crate::appliance::pristine::{self, Pristine};
use crate::appliance::{Appliance, history, machine};
use crate::sync::carry::{Carried, Carry};
use crate::sync::keep::{self, About};
use crate::sync::plan::{self, Action, Plan};
use crate::sync::rules::Rules;

/// How many notes are told one by one.
const MAX_NOTES: usize = 20;

/// Plans what of the running system would be carried over, to the release whose
/// tree is at `to`, if there is one yet. Changes nothing.
///
/// # Errors
/// When the system or a rule cannot be read.
pub fn plan(appliance: &Appliance, to: Option<&Path>) -> Result<Plan> {
    let from = appliance.at("/");
    let delivered = pristine::delivered(appliance, &from)?;
    let rules = Rules::load(&from, &delivered, to)?;
    plan::plan(&from, &delivered, &rules, &mount_points(appliance)?)
}

/// Carries the customer's own from the system whose tree is at `from`, below which
/// the file systems at `mount_points` do not belong to it, over to the one at `root`.
///
/// What was not carried is kept on the data volume.
///
/// # Errors
/// When something cannot be carried over, or the new system does not take it.
pub fn carry(
    appliance: &Appliance,
    from: &Path,
    mount_points: &[PathBuf],
    root: &Path,
    about: &About,
) -> Result<Carried> {
    let delivered = pristine::delivered(appliance, from)?;
    let image = Pristine::kept(root)?.context("the new system's own settings were not kept")?;
    let rules = Rules::load(from, &delivered, Some(root))?;
    let plan = plan::plan(from, &delivered, &rules, mount_points)?;
    let carry = Carry {
        sys: appliance.sys,
        from,
        delivered: &delivered,
        root,
        image: &image,
        rules: &rules,
    };
    let carried = carry.run(&plan)?;
    tell(appliance, &plan, &carried);
    let kept = match history::data_dir(appliance)? {
        Some(data) => keep::keep(&data, about, from, &image, &plan, &carried).map(Some),
        None => Ok(None),
    };
    match kept {
        Ok(Some(_)) => {}
        Ok(None) => appliance
            .progress
            .warn("the data volume is not mounted, so no report of what was carried over is kept"),
        Err(error) => appliance.progress.warn(&format!(
            "what was not carried over is not kept on the data volume; the old slot still has it: \
             {error:#}"
        )),
    }
    Ok(carried)
}

/// Describes a change of version, now.
pub fn about(from: &str, to: &str) -> About {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    About {
        time: now.unwrap_or_default().as_secs(),
        from: from.to_owned(),
        to: to.to_owned(),
    }
}

/// Lists what is mounted in the running system.
///
/// # Errors
/// When the mount table cannot be read.
pub fn mount_points(appliance: &Appliance) -> Result<Vec<PathBuf>> {
    let mounts = machine::mounts(appliance)?;
    Ok(mounts.into_iter().map(|mount| mount.mount_point).collect())
}

fn tell(appliance: &Appliance, plan: &Plan, carried: &Carried) {
    let mut notes: Vec<String> = carried.notes.clone();
    for clash in &carried.conflicts {
        notes.push(format!(
            "/{}: this system and the new release have both changed {:?}; this system's is kept",
            clash.path.display(),
            clash.key
        ));
    }
    for path in &carried.left {
        notes.push(format!("/{} was not carried over", path.display()));
    }
    let unknown: Vec<String> = plan
        .with(Action::Unknown)
        .map(|item| format!("/{}", item.path.display()))
        .collect();
    if !unknown.is_empty() {
        let shown = unknown
            .iter()
            .take(5)
            .cloned()
            .collect::<Vec<_>>()
            .join(", ");
        notes.push(format!(
            "no rule knows {} files, which stay behind: {shown}{}; `va-upgrade sync plan` lists them",
            unknown.len(),
            if unknown.len() > 5 { ", ..." } else { "" }
        ));
    }
    let more = notes.len().saturating_sub(MAX_NOTES);
    for note in notes.iter().take(MAX_NOTES) {
        appliance.progress.note(note);
    }
    if more > 0 {
        appliance.progress.note(&format!(
            "{more} more notes are in the report on the data volume"
        ));
    }
}
