//! `confirm`: keeps the running system, by hand, or gives its trial more time.

use anyhow::Result;

use super::Session;
use super::output::print_done;
use crate::upgrade::trial;

/// Keep the running system, which is on trial
///
/// Normally done by the boot service, once the system is healthy. Where the settings
/// say `confirm_by: operator`, it is left to a person, who has `confirm_minutes`;
/// then the old system boots again.
#[derive(clap::Args)]
pub struct Args {
    /// Keep nothing yet: give the trial at least so many minutes from now, up to 10080
    #[arg(long, value_name = "MINUTES")]
    extend: Option<u64>,
}

/// Runs `confirm`; writes the boot state, or only a word in `/run`.
pub fn run(session: &Session, args: &Args) -> Result<()> {
    session.start_changing("confirm")?;
    let appliance = session.appliance();
    let lock = appliance.lock()?;
    if let Some(minutes) = args.extend {
        let left = trial::extend(&appliance, minutes, &lock)?;
        print_done(&format!(
            "this trial ends in {} minutes unless it is confirmed\n",
            left.as_secs() / 60
        ));
        return Ok(());
    }
    let newly = trial::confirm(&appliance, &lock)?;
    print_done(if newly {
        "this system is committed now\n"
    } else {
        "this system was committed already\n"
    });
    Ok(())
}
