//! The customer's own comes over: what the rules of [`sync`](crate::sync) say.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::accounts::IdMap;
use crate::appliance::pristine::{self, Pristine};
use crate::appliance::{Appliance, history, machine};
use crate::paths::CARRIED_FILE;
use crate::sha::Sha;
use crate::sync::carry::{Carried, Carry};
use crate::sync::keep::{self, About};
use crate::sync::plan::{self, Action, Plan};
use crate::sync::rules::{DataRule, Rules};
use crate::system::files;
use crate::tree::resolve;

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

/// Reads the rules of the running system; returns how many there are.
///
/// # Errors
/// When one says nothing sane, by its name.
pub fn check_rules(appliance: &Appliance) -> Result<usize> {
    let from = appliance.at("/");
    let delivered = Pristine::kept(&from)?.unwrap_or_default();
    Ok(Rules::load(&from, &delivered, None)?.count())
}

/// Carries the customer's own from the system whose tree is at `from`, below which
/// the file systems at `mount_points` do not belong to it, over to the one at `root`.
///
/// What was not carried is kept on the data volume. It counts as carried once
/// `take_effect` has done with it.
///
/// # Errors
/// When something cannot be carried over, or the new system does not take it.
pub fn carry(
    appliance: &Appliance,
    from: &Path,
    mount_points: &[PathBuf],
    root: &Path,
    about: &About,
    take_effect: &dyn Fn(&Plan) -> Result<()>,
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
        earlier: &self::carried(root)?
            .map(|earlier| earlier.paths)
            .unwrap_or_default(),
    };
    // The customer goes on working: what changes from here on differs from this.
    let print = print_of(from, &plan)?;
    let carried = carry.run(&plan)?;
    take_effect(&plan)?;
    let record = CarriedRecord {
        print,
        // JSON holds no other; they are then not taken back.
        paths: plan
            .carried()
            .map(|item| item.path.clone())
            .filter(|path| path.to_str().is_some())
            .collect(),
        ids: carried.ids.clone(),
        from: self::carried(from)?.as_ref().map(CarriedRecord::system),
    };
    let path = resolve::place(root, Path::new(CARRIED_FILE))?;
    let text = serde_json::to_vec(&record).context("rendering what was carried")?;
    files::write_atomic(&path, &text, 0o600)?;
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

/// What was carried over to a system, kept inside it.
#[derive(Serialize, Deserialize)]
pub struct CarriedRecord {
    /// The [`fingerprint`] of what it came from.
    pub print: Sha,
    /// Which paths, relative to the root.
    pub paths: BTreeSet<PathBuf>,
    /// From the numbers of its accounts to those that they have here.
    #[serde(default)]
    pub ids: IdMap,
    /// The system it came from; `None` where nothing had been carried to that.
    #[serde(default)]
    pub from: Option<Sha>,
}

impl CarriedRecord {
    /// Tells the system from every other one that has been written.
    pub fn system(&self) -> Sha {
        let mut text = format!("{}", self.print).into_bytes();
        for (kind, map) in [("user", &self.ids.users), ("group", &self.ids.groups)] {
            for (old, new) in map {
                text.extend_from_slice(format!(" {kind} {old} {new}").as_bytes());
            }
        }
        Sha::of(&text)
    }
}

/// Returns the rules of the system at `root` for files on the data volume.
///
/// # Errors
/// When one cannot be read.
pub fn data_rules(root: &Path) -> Result<Vec<DataRule>> {
    let delivered = Pristine::kept(root)?.unwrap_or_default();
    let mut rules = Vec::new();
    for rule in Rules::load(root, &delivered, Some(root))?.into_data() {
        // What was added to what the release delivered is listed twice.
        if !rules.contains(&rule) {
            rules.push(rule);
        }
    }
    Ok(rules)
}

/// Returns what was carried over to the system at `root`; `None` where nothing was.
///
/// # Errors
/// When it cannot be read.
pub fn carried(root: &Path) -> Result<Option<CarriedRecord>> {
    let path = resolve::place(root, Path::new(CARRIED_FILE))?;
    match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        read => {
            let text = read.with_context(|| format!("reading {}", path.display()))?;
            let record = serde_json::from_slice(&text);
            record.with_context(|| format!("reading {}", path.display()))
        }
    }
}

/// Returns the fingerprint of what would be carried now, from the system at `from`
/// to the one at `root`. Changes nothing.
///
/// # Errors
/// When either cannot be read.
pub fn fingerprint(appliance: &Appliance, from: &Path, root: &Path) -> Result<Sha> {
    let delivered = pristine::delivered(appliance, from)?;
    let rules = Rules::load(from, &delivered, Some(root))?;
    print_of(from, &plan::plan(from, &delivered, &rules, &[])?)
}

/// Digests what is carried by `plan`, each with what the kernel says of its last
/// change.
fn print_of(from: &Path, plan: &Plan) -> Result<Sha> {
    let mut text = Vec::new();
    for item in plan.carried() {
        text.extend_from_slice(item.path.as_os_str().as_bytes());
        let meta = from.join(&item.path).symlink_metadata().ok();
        let changed = meta.map(|meta| (meta.len(), meta.ctime(), meta.ctime_nsec()));
        writeln!(text, "\0{:?} {changed:?}", item.action)?;
    }
    Ok(Sha::of(&text))
}

/// Describes a change of version, now.
pub fn about(appliance: &Appliance, from: &str, to: &str) -> About {
    About {
        time: appliance.sys.seconds_since_1970(),
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
            "no rule knows {} of this system's files, so they stay behind: {shown}{}; `va-upgrade \
             sync plan` lists them",
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
