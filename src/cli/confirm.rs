//! `confirm`: keeps the running system, by hand.

use anyhow::Result;

use super::Session;
use super::output::print;
use crate::upgrade::trial;

/// Keep the running system, which is on trial
///
/// Normally done by the boot service, once the system is healthy.
#[derive(clap::Args)]
pub struct Args {}

/// Runs `confirm`; writes the boot state.
pub fn run(session: &Session) -> Result<()> {
    session.start_changing("confirm")?;
    let appliance = session.appliance();
    let lock = appliance.lock()?;
    let newly = trial::confirm(&appliance, &lock)?;
    print(if newly {
        "this system is committed now\n"
    } else {
        "this system was committed already\n"
    })
}
