//! `drill`: a trial made to fail, to prove the way back.

use anyhow::Result;

use super::output::print_done;
use super::{Question, Session};
use crate::appliance::machine::Machine;
use crate::progress::Progress;
use crate::system::{Restart, System};
use crate::upgrade::drill;

/// Have the next boot try the other system and come back, to prove the way back
///
/// The other slot must hold a system that would boot. The next restart starts it once;
/// its boot service restarts at once, as after a trial that failed, and this system
/// boots again. Services of the other system may run for a moment. Both slots are
/// then what they were; `va-upgrade status` says how it went. `va-upgrade discard`
/// cancels a drill before the restart.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    question: Question,
    /// Restart right away
    #[arg(long)]
    reboot: bool,
}

/// Runs `drill`; writes the boot state.
pub fn run(session: &Session, args: &Args) -> Result<()> {
    session.start_changing("drill")?;
    args.question.agree(
        &session.ui,
        "Have the next restart start the other system and come back?",
    )?;
    let appliance = session.appliance();
    let lock = appliance.lock()?;
    let machine = Machine::look(&appliance)?;
    let armed = drill::arm(&appliance, &machine, &lock)?;
    session.ui.finish();
    let already = if armed.was_armed { "already " } else { "" };
    print_done(&format!(
        "a drill is {already}armed: the next boot starts version {} in slot {} once, and the one \
         after it slot {} again\n",
        armed.version,
        armed.slot,
        armed.slot.other()
    ));
    if args.reboot {
        session.host.reboot(Restart::Orderly)
    } else {
        Ok(())
    }
}
