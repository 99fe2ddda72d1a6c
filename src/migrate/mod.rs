//! The flow of `migrate`: a system with one root gets the layout of two slots.
//!
//! 1. the bundle is opened and its signature proved;
//! 2. [`facts`]: what this machine is; a migration that was begun goes on with its
//!    own plan ([`in_place::record`]);
//! 3. [`ladder`]: the safest way that fits, with its reasons;
//! 4. every check of an upgrade that needs no second slot; all of it in one report;
//! 5. the way itself: [`in_place`].
//!
//! Up to step 4 nothing is changed.
//!
//! What fits no way in place is to be moved in memory, of which the rehearsal is built:
//! [`in_ram`] prepares it on the old system, has the old GRUB start the migration
//! environment once, and takes all of it back; [`environment`] is what runs there. Both
//! speak through the [`order`]. Nothing calls yet what would follow: [`settings`], what
//! of the old system comes over, and [`rebuild`], the disk made anew from memory.

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

use std::path::PathBuf;

use anyhow::Result;

use self::in_place::plan::Plan;
use self::in_place::record::Record;
use self::ladder::{Choice, Rung};
use crate::appliance::Appliance;
use crate::appliance::machine::Machine;
use crate::refuse;
use crate::report::Report;
use crate::upgrade::apply::{self, Applied, Input, Options as ApplyOptions};
use crate::upgrade::preflight::{self, Offer};

/// How far a migration goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Only the checks, and what would be done.
    DryRun,
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
    /// What was written; `None` where only the checks ran.
    pub applied: Option<Applied>,
}

impl Migrated {
    /// Fails with what is in the way.
    ///
    /// # Errors
    /// Class `Refused`, with every reason.
    pub fn require(&self) -> Result<()> {
        if self.choice.rung == Rung::InRam {
            refuse!(
                "this system cannot be migrated in place, and no other way is built in: {}",
                self.choice.obstacles().join("; ")
            );
        }
        self.report.as_ref().map_or(Ok(()), Report::require)
    }
}

/// Runs the checks, and unless told otherwise, makes the running system the slot
/// `root`, writes the bundle to `back` and arms its trial.
///
/// # Errors
/// `Refused` and `BadBundle` before anything is changed; `Undone` when a later
/// step failed and everything is as before; `Stuck` when undoing failed.
pub fn migrate(appliance: &Appliance, options: &Options) -> Result<Migrated> {
    let mut bundle = apply::open(
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
    let mut migrated = Migrated {
        choice,
        report: None,
        version: manifest.version.clone(),
        applied: None,
    };
    let Rung::InPlace(plan) = migrated.choice.rung.clone() else {
        return match options.extent {
            Extent::DryRun => Ok(migrated),
            Extent::Whole => migrated.require().map(|()| migrated),
        };
    };
    let config = plan.config(appliance.config);
    let named = Appliance {
        config: &config,
        ..*appliance
    };
    let offer = Offer {
        manifest: &manifest,
        allow_downgrade: options.allow_downgrade,
    };
    migrated.report = Some(check(&named, &plan, offer)?);
    if options.extent == Extent::DryRun {
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
    migrated.applied = Some(in_place::run(&named, &plan, begun, apply)?);
    Ok(migrated)
}

/// Runs every check that needs no second slot.
fn check(named: &Appliance, plan: &Plan, offer: Offer) -> Result<Report> {
    let machine = Machine::look(named)?;
    let mut report = preflight::check_without_slot(named, &machine, offer);
    report.add("programs", in_place::check_programs(named, plan));
    report.add("names", in_place::names::check(named, &plan.group));
    Ok(report)
}
