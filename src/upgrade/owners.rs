//! Whose ids the files on the data volume have: those of the committed system.
//!
//! Two systems may know one account under two ids. Where a rule asks for it, the files
//! follow:
//!
//! 1. early in its first start on trial a system notes when that was ([`note_start`]):
//!    what is made later has its own ids;
//! 2. before a trial is confirmed, what has to be done is written down ([`plan`]); it
//!    counts only if that system is then the committed one;
//! 3. once it is confirmed, it is done ([`settle`]): the files go to ids that nobody
//!    has, and on to the new ones. What was cut short is taken up at the next start;
//! 4. when the system before is started again, the way back is gone, early
//!    ([`settle`]).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::accounts::IdMap;
use crate::appliance::machine::Machine;
use crate::appliance::{Appliance, history};
use crate::install::customer::{self, CarriedRecord};
use crate::paths::{OWNERS_FILE, STARTED_FILE};
use crate::sha::Sha;
use crate::sync::owners::{Owned, Pass, Passed, Privileges};
use crate::sync::rules::DataRule;
use crate::system::{Lock, files};
use crate::tree::resolve;

/// The most that is read of the record, in bytes.
const MAX_RECORD_BYTES: u64 = 16 << 20;

/// Which system's ids the files have, and how they get those of the other one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    format: u32,
    /// The system whose ids they have; `None` for one that nothing was carried to.
    of: Option<Sha>,
    /// The system that was committed before.
    other: Option<Sha>,
    /// From the ids of the first to those of the second.
    back: IdMap,
    /// Which files.
    rules: Vec<DataRule>,
    /// What is to be done, or was begun.
    pending: Option<Pending>,
}

/// A change of all ids.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Pending {
    to: Option<Sha>,
    map: IdMap,
    rules: Vec<DataRule>,
    /// When the system that it is for was first started, in nanoseconds since 1970.
    since: u64,
    phase: Phase,
    /// Of the file that was being changed, what that takes from it.
    privileges: Option<Privileges>,
}

/// How far a change of all ids has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Phase {
    /// Nothing was changed yet.
    Planned,
    /// The files go to ids that nobody has; these lead on.
    Away(IdMap, IdMap),
    /// They go to the new ids.
    Home(IdMap),
}

/// Notes when the running system was first started, where files may have to follow
/// its ids.
///
/// # Errors
/// When that cannot be written.
pub fn note_start(appliance: &Appliance) -> Result<()> {
    let root = appliance.at("/");
    let place = resolve::place(&root, Path::new(STARTED_FILE))?;
    let is_moved = customer::carried(&root)?.is_some_and(|carried| !carried.ids.is_empty());
    if !is_moved || place.exists() {
        return Ok(());
    }
    files::write_atomic(&place, now(appliance).to_string().as_bytes(), 0o644)
}

/// Writes down what is to become of the files once the running system, on trial, is
/// the committed one; what cannot be is a warning.
pub fn plan(appliance: &Appliance, _lock: &Lock) {
    if let Err(error) = try_plan(appliance) {
        appliance.progress.warn(&format!(
            "files on the data volume keep the owners that they have: {error:#}"
        ));
    }
}

fn try_plan(appliance: &Appliance) -> Result<()> {
    let root = appliance.at("/");
    let Some(carried) = customer::carried(&root)? else {
        return Ok(());
    };
    let rules = customer::data_rules(&root)?;
    let is_asked = rules.iter().any(DataRule::follows) && !carried.ids.is_empty();
    let Some(data) = history::data_dir(appliance)? else {
        ensure!(!is_asked, "the data volume is not mounted");
        return Ok(());
    };
    let mut ledger = Ledger::open(appliance, &data)?;
    ledger.finish_what_was_begun()?;
    if !is_asked {
        return ledger.forget();
    }
    let has_others = |record: &Record| record.of != carried.from;
    ensure!(
        !ledger.record.as_ref().is_some_and(has_others),
        "they have not those of the system before, as {} says; remove that where it is wrong",
        ledger.path.display()
    );
    let pending = Pending {
        to: Some(carried.system()),
        map: carried.ids,
        rules,
        since: started(appliance)?,
        phase: Phase::Planned,
        privileges: None,
    };
    let record = ledger.record.get_or_insert_with(|| Record {
        format: 1,
        of: carried.from,
        other: None,
        back: IdMap::default(),
        rules: Vec::new(),
        pending: None,
    });
    record.pending = Some(pending);
    ledger.save()
}

/// Returns when the running system was first started, in nanoseconds since 1970.
fn started(appliance: &Appliance) -> Result<u64> {
    let text = fs::read_to_string(appliance.at(STARTED_FILE)).unwrap_or_default();
    if let Ok(time) = text.trim().parse() {
        return Ok(time);
    }
    let path = appliance.at("/proc/uptime");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let seconds = text.split('.').next().and_then(|it| it.parse().ok());
    let up = Duration::from_secs(seconds.unwrap_or(0)).as_nanos();
    Ok(now(appliance).saturating_sub(u64::try_from(up).unwrap_or(u64::MAX)))
}

fn now(appliance: &Appliance) -> u64 {
    let now = appliance.sys.now().duration_since(UNIX_EPOCH);
    u64::try_from(now.unwrap_or_default().as_nanos()).unwrap_or(u64::MAX)
}

/// Gives the files the ids of the running system, where that is the committed one and
/// they have another's; what cannot be done is a warning, and tried at the next start.
pub fn settle(appliance: &Appliance, _lock: &Lock) {
    if let Err(error) = try_settle(appliance) {
        appliance.progress.warn(&format!(
            "files on the data volume do not have their owners yet; the next start goes on with \
             it: {error:#}"
        ));
    }
}

fn try_settle(appliance: &Appliance) -> Result<()> {
    let machine = Machine::look(appliance)?;
    let state = machine.state();
    let is_tried = state
        .trial()
        .is_some_and(|trial| trial.slot == machine.booted);
    if is_tried || state.committed() != machine.booted {
        return Ok(());
    }
    let Some(data) = history::data_dir(appliance)? else {
        return Ok(());
    };
    let mut ledger = Ledger::open(appliance, &data)?;
    let Some(record) = &ledger.record else {
        return Ok(());
    };
    let own = customer::carried(&appliance.at("/"))?;
    let own = own.as_ref().map(CarriedRecord::system);
    if let Some(pending) = &record.pending
        && pending.phase == Phase::Planned
        && pending.to != own
    {
        // That trial was not confirmed.
        return ledger.drop_plan();
    }
    ledger.carry_out()?;
    let Some(record) = &mut ledger.record else {
        return Ok(());
    };
    if record.of == own || record.other != own || record.back.is_empty() {
        return Ok(());
    }
    record.pending = Some(Pending {
        to: own,
        map: record.back.clone(),
        rules: record.rules.clone(),
        since: now(appliance),
        phase: Phase::Planned,
        privileges: None,
    });
    ledger.save()?;
    ledger.carry_out()
}

/// The record on the data volume.
struct Ledger<'a> {
    appliance: &'a Appliance<'a>,
    data: &'a Path,
    path: PathBuf,
    record: Option<Record>,
}

impl<'a> Ledger<'a> {
    fn open(appliance: &'a Appliance<'a>, data: &'a Path) -> Result<Ledger<'a>> {
        let path = resolve::place(data, Path::new(OWNERS_FILE))?;
        let read = || -> Result<Option<Record>> {
            match path.symlink_metadata() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                meta => {
                    let meta = meta?;
                    ensure!(meta.is_file(), "it is no file");
                    ensure!(meta.len() <= MAX_RECORD_BYTES, "it is too large");
                }
            }
            let record: Record = serde_json::from_slice(&fs::read(&path)?)?;
            ensure!(record.format == 1, "a newer version has written it");
            Ok(Some(record))
        };
        let record = read().with_context(|| format!("reading {}", path.display()))?;
        Ok(Ledger {
            appliance,
            data,
            path,
            record,
        })
    }

    fn save(&self) -> Result<()> {
        let text = serde_json::to_vec(&self.record).context("rendering the owners of files")?;
        if let Some(dir) = self.path.parent() {
            fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
        }
        files::write_atomic(&self.path, &text, 0o600)
    }

    /// Leaves nothing to go back by: the files have the ids of either system.
    fn forget(&self) -> Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.with_context(|| format!("removing {}", self.path.display())),
        }
    }

    fn drop_plan(&mut self) -> Result<()> {
        match &mut self.record {
            Some(record) => {
                record.pending = None;
                self.save()
            }
            None => Ok(()),
        }
    }

    /// Finishes a change that was cut short, whichever system runs now.
    fn finish_what_was_begun(&mut self) -> Result<()> {
        let pending = self.record.as_ref().and_then(|it| it.pending.as_ref());
        match pending.is_some_and(|pending| pending.phase != Phase::Planned) {
            true => self.carry_out(),
            false => Ok(()),
        }
    }

    /// Does what is pending, from where it stands.
    fn carry_out(&mut self) -> Result<()> {
        let mut told = Passed::default();
        while let Some(pending) = self.record.as_ref().and_then(|it| it.pending.clone()) {
            let owned = Owned {
                data: self.data,
                rules: &pending.rules,
            };
            match &pending.phase {
                Phase::Planned => {
                    let used = owned.ids()?;
                    let map = pending.map.completed(&used)?;
                    let (away, home) = map.in_two_steps(&used)?;
                    self.change(|it| {
                        it.map = map;
                        it.phase = Phase::Away(away, home);
                    })?;
                }
                Phase::Away(away, home) => {
                    let passed = self.pass(&owned, &pending, away, Some(pending.since))?;
                    told.failed += passed.failed;
                    told.faults.extend(passed.faults);
                    self.change(|it| it.phase = Phase::Home(home.clone()))?;
                }
                Phase::Home(home) => {
                    let passed = self.pass(&owned, &pending, home, None)?;
                    told.changed = passed.changed;
                    told.failed += passed.failed;
                    told.faults.extend(passed.faults);
                    if let Some(record) = &mut self.record {
                        record.other = record.of.take();
                        record.of = pending.to;
                        record.back = pending.map.reversed();
                        record.rules.clone_from(&pending.rules);
                        record.pending = None;
                    }
                    self.save()?;
                    self.tell(&told);
                }
            }
        }
        Ok(())
    }

    fn pass(
        &mut self,
        owned: &Owned,
        pending: &Pending,
        map: &IdMap,
        since: Option<u64>,
    ) -> Result<Passed> {
        if let Some(lost) = &pending.privileges {
            owned.give_back(lost)?;
            self.change(|it| it.privileges = None)?;
        }
        owned.pass(&mut Pass {
            map,
            since,
            keep: &mut |lost| self.change(|it| it.privileges = lost.cloned()),
        })
    }

    /// Changes what is pending, on disk too.
    fn change(&mut self, change: impl FnOnce(&mut Pending)) -> Result<()> {
        if let Some(pending) = self.record.as_mut().and_then(|it| it.pending.as_mut()) {
            change(pending);
        }
        self.save()
    }

    fn tell(&self, passed: &Passed) {
        let progress = self.appliance.progress;
        progress.note(&format!(
            "{} files on the data volume have the ids of this system's accounts now",
            passed.changed
        ));
        if passed.failed > 0 {
            progress.warn(&format!(
                "{} could not be given theirs: {}",
                passed.failed,
                passed.faults.join("; ")
            ));
        }
    }
}
