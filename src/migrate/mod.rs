//! The flow of `migrate`: a system with one root gets the layout of two slots.
//!
//! 1. the bundle is opened and its signature proved;
//! 2. [`facts`]: what this machine is; a migration that was begun goes on with its
//!    own plan ([`in_place::record`]);
//! 3. [`ladder`]: the safest way that fits, with its reasons;
//! 4. every check of an upgrade that needs no second slot; all of it in one report;
//! 5. the way itself: [`in_place`] or [`in_ram`].
//!
//! Up to step 4 nothing is changed.
//!
//! What fits no way in place is moved in memory: [`in_ram`] prepares it on the old system,
//! with what of that comes over ([`settings`]), has the old GRUB start the migration
//! environment once, and takes all of it back. [`environment`] is what runs there; both
//! speak through the [`order`]. [`rebuild`] makes the disk anew.

pub mod disk;
pub mod environment;
pub mod facts;
pub mod in_place;
pub mod in_ram;
pub mod ladder;
pub mod located;
pub mod order;
pub mod outcome;
pub mod rebuild;
pub mod settings;
#[cfg(test)]
mod tests;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use self::in_place::plan::Plan;
use self::in_place::record::Record;
use self::in_ram::Prospect;
use self::ladder::{Choice, Rung};
use self::order::Mode;
use crate::appliance::Appliance;
use crate::appliance::machine::Machine;
use crate::bundle::{Bundle, Manifest};
use crate::failure::{Class, Classify};
use crate::refuse;
use crate::report::Report;
use crate::upgrade::apply::{self, Applied, Input, Options as ApplyOptions};
use crate::upgrade::preflight::{self, Offer};

/// How far a migration goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Only the checks, and what would be done.
    DryRun,
    /// As far as what boots stays the same. In place, where nothing is at stake, that is
    /// the checks.
    Rehearsal,
    /// All of it, up to the restart.
    Whole,
}

/// What `migrate` is told.
pub struct Options {
    /// The bundle.
    pub bundle: PathBuf,
    /// Whether a bundle without a signature is accepted.
    pub allow_unsigned: bool,
    /// Whether a version older than the running one is accepted.
    pub allow_downgrade: bool,
    /// How far it goes.
    pub extent: Extent,
    /// How many chunks are unpacked at a time.
    pub threads: usize,
}

/// What `migrate` did, or would do.
pub struct Migrated {
    /// The way, and why.
    pub choice: Choice,
    /// The checks of an upgrade; none where no way fits.
    pub report: Option<Report>,
    /// The version in the bundle.
    pub version: String,
    /// What was written in place; `None` where only the checks ran.
    pub applied: Option<Applied>,
    /// What the move in memory takes.
    pub prospect: Option<Prospect>,
    /// What the next start is prepared for.
    pub prepared: Option<Mode>,
}

impl Migrated {
    /// Fails with what is in the way.
    ///
    /// # Errors
    /// Class `Refused`, with every reason.
    pub fn require(&self) -> Result<()> {
        if self.choice.rung == Rung::Neither {
            refuse!("{}", self.choice.obstacles());
        }
        self.report.as_ref().map_or(Ok(()), Report::require)
    }
}

/// Runs the checks, and unless told otherwise, goes the safest way that fits: makes the
/// running system the slot `root`, writes the bundle to `back` and arms its trial; or has
/// the next start make the disk anew.
///
/// # Errors
/// `Refused` and `BadBundle` before anything is changed; `Undone` when a later
/// step failed and everything is as before; `Stuck` when undoing failed.
pub fn migrate(appliance: &Appliance, options: &Options) -> Result<Migrated> {
    let bundle = apply::open(
        appliance,
        Input::File(options.bundle.clone()),
        options.allow_unsigned,
    )?;
    let manifest = bundle.manifest().clone();
    let begun = Record::load(appliance)?;
    let choice = match &begun {
        Some(record) => Choice::begun(record.plan.clone()),
        None => ladder::choose(
            &facts::look(appliance, preflight::slot_bytes(&manifest))?,
            appliance.config,
        ),
    };
    let migrated = Migrated {
        choice,
        report: None,
        version: manifest.version.clone(),
        applied: None,
        prospect: None,
        prepared: None,
    };
    match migrated.choice.rung.clone() {
        Rung::InPlace(plan) => go_in_place(appliance, options, bundle, &plan, begun, migrated),
        Rung::InRam => go_in_ram(appliance, options, &manifest, migrated),
        Rung::Neither if options.extent == Extent::DryRun => Ok(migrated),
        Rung::Neither => migrated.require().map(|()| migrated),
    }
}

fn go_in_place(
    appliance: &Appliance,
    options: &Options,
    mut bundle: Bundle,
    plan: &Plan,
    begun: Option<Record>,
    mut migrated: Migrated,
) -> Result<Migrated> {
    let manifest = bundle.manifest().clone();
    let config = plan.config(appliance.config);
    let named = Appliance {
        config: &config,
        ..*appliance
    };
    migrated.report = Some(check(&named, plan, options.offer(&manifest))?);
    if options.extent != Extent::Whole {
        return Ok(migrated);
    }
    migrated.require()?;
    bundle.verify(options.threads, appliance.progress)?;
    drop(bundle);
    let apply = ApplyOptions {
        input: Input::File(options.bundle.clone()),
        allow_unsigned: options.allow_unsigned,
        allow_downgrade: options.allow_downgrade,
        dry_run: false,
        stage: false,
        threads: options.threads,
    };
    migrated.applied = Some(in_place::run(&named, plan, begun, apply)?);
    Ok(migrated)
}

fn go_in_ram(
    appliance: &Appliance,
    options: &Options,
    manifest: &Manifest,
    mut migrated: Migrated,
) -> Result<Migrated> {
    let mut report = preflight::check_single_root(appliance, options.offer(manifest));
    if options.extent != Extent::DryRun {
        report.require()?;
    }
    let mode = match options.extent {
        Extent::Whole => Mode::Migrate,
        Extent::DryRun | Extent::Rehearsal => Mode::Rehearse,
    };
    let bundle = fs::canonicalize(&options.bundle)
        .with_context(|| format!("looking up {}", options.bundle.display()))
        .class(Class::Refused)?;
    let ways = in_ram::Options {
        bundle: &bundle,
        mode,
        threads: options.threads,
        collect: &collect,
    };
    let neither = || {
        format!(
            "this system cannot be migrated in place ({}), and not in memory either",
            migrated.choice.obstacles()
        )
    };
    if options.extent == Extent::DryRun {
        let found = in_ram::check(appliance, &ways).with_context(neither);
        let found = found.map(|prospect| (prospect, "this machine can be moved".to_owned()));
        migrated.prospect = report.add("move in memory", found);
    } else {
        migrated.prospect = Some(in_ram::prepare(appliance, &ways).with_context(neither)?);
        migrated.prepared = Some(mode);
    }
    migrated.report = Some(report);
    Ok(migrated)
}

/// Collects what is the customer's for a move in memory, without the files `left_out`.
///
/// # Errors
/// Those of [`settings::collect`].
pub fn collect(appliance: &Appliance, to: &Path, left_out: &[&Path]) -> Result<()> {
    settings::collect(appliance, to, left_out).map(drop)
}

impl Options {
    fn offer<'a>(&self, manifest: &'a Manifest) -> Offer<'a> {
        Offer {
            manifest,
            allow_downgrade: self.allow_downgrade,
        }
    }
}

/// Runs every check that needs no second slot.
fn check(named: &Appliance, plan: &Plan, offer: Offer) -> Result<Report> {
    let machine = Machine::look(named)?;
    let mut report = preflight::check_without_slot(named, &machine, offer);
    report.add("programs", in_place::check_programs(named, plan));
    report.add("names", in_place::names::check(named, &plan.group));
    Ok(report)
}
