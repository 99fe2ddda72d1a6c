//! `discard`: drops a new system before its first start.

use anyhow::Result;

use super::output::print_done;
use super::{Question, Session};
use crate::appliance::machine::Machine;
use crate::progress::Progress;
use crate::upgrade::stage;

/// Drop the new system before the restart that would try it
///
/// Cancels the trial that `apply` or `activate` armed, or gives up what
/// `apply --stage` wrote. The slot is empty then: what was in it before the upgrade
/// is gone since `apply`. GRUB is again the one of before, unless it was changed
/// meanwhile. A drill is only cancelled. The running system stays the default. Once the new one
/// runs, `va-upgrade rollback --reboot` goes back.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    question: Question,
}

/// Runs `discard`; writes the boot state and the boot sector, and removes the slot's
/// boot files.
pub fn run(session: &Session, args: &Args) -> Result<()> {
    session.start_changing("discard")?;
    let appliance = session.appliance();
    let seen = Machine::look(&appliance).ok().and_then(|seen| seen.state);
    let question = match seen.is_some_and(|state| state.is_drilling()) {
        true => "Cancel the drill?",
        false => "Drop the system in the slot that does not run?",
    };
    args.question.agree(&session.ui, question)?;
    let lock = appliance.lock()?;
    let machine = Machine::look(&appliance)?;
    let outcome = stage::discard(&appliance, &machine, &lock)?;
    session.ui.finish();
    let Some(dropped) = outcome else {
        print_done("nothing is staged or on trial\n");
        return Ok(());
    };
    let version = dropped.version.as_deref().unwrap_or("unknown");
    if dropped.was_drill {
        print_done(&format!(
            "the drill of version {version} in slot {} is cancelled; the slot is what it was\n",
            dropped.slot
        ));
        return Ok(());
    }
    let cancelled = match dropped.was_armed {
        true => "; the trial is cancelled",
        false => "",
    };
    let grub = match dropped.is_grub_back {
        true => "; GRUB is the one of before",
        false => "",
    };
    print_done(&format!(
        "version {version} in slot {} is dropped{cancelled}{grub}\n",
        dropped.slot
    ));
    Ok(())
}
