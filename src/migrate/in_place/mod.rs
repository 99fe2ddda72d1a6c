//! The first rung: a second root beside the one there is.
//!
//! 1. `record`: what is there is kept ([`record`]);
//! 2. `swap`: a swap area gives the room that is missing ([`steps`]);
//! 3. `volume`: `back` is made, and the volumes beside the slots;
//! 4. `data`: those get a file system, a mount point and a line in fstab;
//! 5. `names`: the settings name the volume group and the volumes ([`names`]);
//! 6. an ordinary [`apply`](crate::upgrade::apply): boot files adopted, bundle
//!    written to `back`, GRUB, trial.
//!
//! Steps 2 to 5 touch nothing that starts the running system, so whatever the moment
//! of a power cut, it starts as before; step 6 keeps its own promise. Each looks at
//! what is there first, so a run that was cut is gone on with by another. What fails
//! is undone ([`cancel`]).

pub mod cancel;
pub mod names;
pub mod plan;
pub mod record;
mod steps;

use anyhow::{Result, anyhow};

use self::plan::Plan;
use self::record::Record;
use crate::appliance::Appliance;
use crate::disk::mkfs::FsType;
use crate::failure::{Class, class_of, with_class};
use crate::paths::BOOT_DIR;
use crate::progress::Step;
use crate::system::Mounted;
use crate::upgrade::apply::{Applied, Options, apply};
use crate::upgrade::preflight;

/// Programs of the running system that the steps call.
const TOOLS: [&str; 5] = ["lvcreate", "lvremove", "nsenter", "sync", "umount"];

/// Those that are called where a swap area is made smaller.
const SWAP_TOOLS: [&str; 5] = ["lvextend", "lvreduce", "mkswap", "swapoff", "swapon"];

/// Looks for the programs that the steps call.
///
/// # Errors
/// Class `Refused` when one is missing.
pub fn check_programs(named: &Appliance, plan: &Plan) -> Result<((), String)> {
    let mut wanted = TOOLS.to_vec();
    if plan.swap.is_some() {
        wanted.extend(SWAP_TOOLS);
    }
    if !plan.shared.is_empty() {
        wanted.push(FsType::Ext4.program());
    }
    preflight::check_programs(named, &wanted)
}

/// Does all steps, or those that are left of a migration that was `begun`. `named`
/// has the settings of the plan.
///
/// # Errors
/// Everything is as before then, but for class `Stuck`.
pub fn run(
    named: &Appliance,
    plan: &Plan,
    begun: Option<Record>,
    options: Options,
) -> Result<Applied> {
    let lock = named.lock()?;
    let record = match begun {
        Some(record) => {
            // An upgrade is to start from the boot area that was kept, so that this
            // can be put back afterwards, too.
            if named.at(BOOT_DIR).exists() {
                cancel::take_back_upgrade(named, &record, &lock)?;
            }
            record
        }
        None => {
            named.progress.start(Step::Keep, None);
            let lines = steps::fstab_lines(named, plan)?;
            Record::begin(named, plan, lines)?
        }
    };
    let prepared = steps::run(named, &record);
    drop(lock);
    let upgrade = || -> Result<Applied> {
        // So that the history tells of it.
        let data = steps::mount_data(named, plan)?;
        let applied = apply(named, options)?;
        if let Some(Err(error)) = data.map(Mounted::unmount) {
            named.progress.warn(&format!("{error:#}"));
        }
        Ok(applied)
    };
    let failed = match prepared.and_then(|()| upgrade()) {
        Ok(applied) => return Ok(applied),
        Err(error) => error,
    };
    if class_of(&failed) == Class::Stuck {
        return Err(failed);
    }
    let class = match class_of(&failed) {
        Class::Unexpected => Class::Undone,
        class => class,
    };
    match cancel::cancel(named) {
        Ok(_) => Err(with_class(class, failed)),
        Err(undo_error) => Err(with_class(
            Class::Stuck,
            anyhow!(
                "{failed:#}; and undoing failed: {undo_error:#}. This system starts as before; \
                 run `va-upgrade migrate --cancel` once the cause is mended"
            ),
        )),
    }
}
