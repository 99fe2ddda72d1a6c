//! `rollback`: makes the other slot boot, by hand.

use anyhow::Result;

use super::output::print_done;
use super::{Question, Session};
use crate::appliance::machine::Machine;
use crate::progress::Progress;
use crate::system::{Restart, System};
use crate::upgrade::rollback as rollback_flow;

/// Make the other slot boot, if it would
///
/// While a slot is on trial, this ends the trial.
#[derive(clap::Args)]
pub struct Args {
    /// Restart right away
    #[arg(long)]
    reboot: bool,
    #[command(flatten)]
    question: Question,
}

/// Runs `rollback`; writes the boot state.
pub fn run(session: &Session, args: &Args) -> Result<()> {
    session.start_changing("rollback")?;
    args.question
        .agree(&session.ui, "Make the other slot the one that boots?")?;
    let appliance = session.appliance();
    let lock = appliance.lock()?;
    let machine = Machine::look(&appliance)?;
    let outcome = rollback_flow::rollback(&appliance, &machine, &lock)?;
    session.ui.finish();
    let cancelled = match (outcome.was_drill, outcome.cancelled_trial) {
        (true, _) => "; the drill is cancelled",
        (false, true) => "; the trial is cancelled",
        (false, false) => "",
    };
    let next = if outcome.next == machine.booted {
        "stays"
    } else {
        "boots next"
    };
    print_done(&format!(
        "slot {} with version {} {next}{cancelled}\n",
        outcome.next, outcome.version
    ));
    if args.reboot {
        session.host.reboot(Restart::Orderly)
    } else {
        Ok(())
    }
}
