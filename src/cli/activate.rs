//! `activate`: puts on trial what `apply --stage` wrote.

use anyhow::Result;

use super::Session;
use super::output::print_done;
use crate::appliance::machine::Machine;
use crate::progress::Progress;
use crate::system::{Restart, System};
use crate::upgrade::stage;

/// Have the next boot try the system that `apply --stage` wrote
///
/// Looks first whether it would boot: its boot files are compared byte for byte, its
/// file system is mounted, and both must be of one version. Run twice, it
/// changes nothing more.
#[derive(clap::Args)]
pub struct Args {
    /// Restart right away
    #[arg(long)]
    reboot: bool,
}

/// Runs `activate`; writes the boot state.
pub fn run(session: &Session, args: &Args) -> Result<()> {
    session.start_changing("activate")?;
    let appliance = session.appliance();
    let lock = appliance.lock()?;
    let machine = Machine::look(&appliance)?;
    let outcome = stage::activate(&appliance, &machine, &lock)?;
    session.ui.finish();
    let already = if outcome.was_armed { "already " } else { "" };
    print_done(&format!(
        "version {} in slot {} is {already}on trial: the next boot tries it, up to {} times\n",
        outcome.version, outcome.slot, outcome.tries
    ));
    if args.reboot {
        session.host.reboot(Restart::Orderly)
    } else {
        Ok(())
    }
}
