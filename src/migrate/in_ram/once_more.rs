//! The settings, collected once more when the old system goes down: what was changed
//! since the move was prepared comes over, too.
//!
//! A [unit](super::unit) has this done. The archive gets a name of its own, then the order
//! is replaced whole. An order that a cut has left with an archive of another digest
//! comes to nothing, and what fails takes the move back: the old system starts as ever.

use std::path::Path;

use anyhow::{Context, Result};

use super::last::{Last, last};
use super::place::{self, Here, ORDER};
use super::prepare::{Collect, collect_to};
use super::{need, one_shot};
use crate::appliance::Appliance;
use crate::migrate::order::Order;
use crate::migrate::outcome::{Failure, Memory, Outcome};
use crate::upgrade::trial::LOCK_PATIENCE;

/// Collects for the order that is prepared; returns whether there is one.
///
/// # Errors
/// When that fails; the move is taken back then, and the old system starts.
pub fn collect_once_more(appliance: &Appliance, collect: &Collect) -> Result<bool> {
    let _lock = appliance.wait_for_lock(LOCK_PATIENCE)?;
    if !matches!(last(appliance)?, Some(Last::Prepared(_))) {
        return Ok(false);
    }
    for dir in place::ours(appliance) {
        let Some(here) = Here::load(&dir)? else {
            continue;
        };
        if let Err(error) = renew(appliance, &dir, &here, collect) {
            take_back(appliance, &dir, &here, &format!("{error:#}"))?;
            return Err(error.context("the move to two slots is taken back"));
        }
    }
    Ok(true)
}

/// Replaces the archive that the order in `dir` names.
fn renew(appliance: &Appliance, dir: &Path, here: &Here, collect: &Collect) -> Result<()> {
    let mut order = Order::load(&dir.join(ORDER))?;
    place::remove_file(&appliance.at(&here.last_settings))?;
    let name = here.last_settings.file_name().context("no name")?;
    let inside = order.settings.path.with_file_name(name);
    order.settings = collect_to(appliance, here, &here.last_settings, inside, collect)?;
    let (bundle, settings) = (order.bundle.size_bytes, order.settings.size_bytes);
    need::check(
        appliance,
        need::bytes(bundle, settings, order.disk.size_bytes),
    )?;
    order.save(&dir.join(ORDER))
}

fn take_back(appliance: &Appliance, dir: &Path, here: &Here, why: &str) -> Result<()> {
    let grub = dir.parent().context("our directory is in no other")?;
    one_shot::disarm(grub)?;
    place::flush(appliance)?;
    let outcome = Outcome {
        format: Outcome::FORMAT,
        mode: Order::load(&dir.join(ORDER))?.mode,
        failure: Some(Failure {
            code: "M00".to_owned(),
            step: "settings".to_owned(),
            reason: format!("collecting the settings when the system went down: {why}"),
        }),
        steps: Vec::new(),
        memory: Memory::default(),
        lines: Vec::new(),
    };
    outcome.save(&appliance.at(&here.log))
}
