//! `boot`: what the boot services run.

use anyhow::Result;

use super::Session;
use super::output::print;
use crate::install::label;
use crate::progress::Progress;
use crate::upgrade::deadline;
use crate::upgrade::trial::{self, Outcome};

/// Do what this boot asks for: check and confirm a trial, or mend the boot state
#[derive(clap::Args)]
pub struct Args {
    /// Only wait for the deadline of a trial, and restart if nothing ended it
    #[arg(long)]
    pub deadline: bool,
    /// Only set the SELinux labels that the system before could not; for the initramfs
    #[arg(long, conflicts_with = "deadline")]
    pub labels: bool,
}

/// Runs `boot`; writes the boot state, and may restart the machine.
pub fn run(session: &Session, args: &Args) -> Result<()> {
    session.require_root("boot")?;
    if args.deadline {
        return deadline::watch(&session.appliance());
    }
    if args.labels {
        let text = match label::finish(&session.appliance())? {
            true => "all SELinux labels are set",
            false => "no SELinux label is missing",
        };
        return print(&format!("{text}\n"));
    }
    let text = match trial::after_boot(&session.appliance())? {
        Outcome::Ordinary => "an ordinary boot".to_owned(),
        Outcome::Confirmed(slot) => format!("slot {slot} is healthy and committed now"),
        Outcome::Restarting(why) => format!("restarting: {why}"),
        Outcome::OtherSlot(slot) => {
            format!("slot {slot} runs, which is not the committed one; see `va-upgrade status`")
        }
        Outcome::TrialFailed(slot, why) => format!("the trial of slot {slot} failed: {why}"),
    };
    session.ui.finish();
    print(&format!("{text}\n"))
}
