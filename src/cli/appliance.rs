//! `status`, `confirm`, `rollback` and the boot service.

use anyhow::Result;
use clap::Args;

use super::{Session, print, print_json};
use crate::progress::Progress;
use crate::system::{Lock, Restart, System};
use crate::upgrade::machine::Machine;
use crate::upgrade::{rollback as rollback_flow, status as status_flow, trial};

/// Show the slots, their versions, what boots next and why
#[derive(Args)]
pub struct StatusArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn status(session: &Session, args: &StatusArgs) -> Result<()> {
    let machine = Machine::look(&session.config)?;
    let status = status_flow::status(&session.config, &machine)?;
    if args.json {
        print_json(&status)
    } else {
        print(&status.text())
    }
}

/// Keep the running system, which is on trial
///
/// Normally done by the boot service, once the system is healthy.
#[derive(Args)]
pub struct ConfirmArgs {}

pub fn confirm(session: &Session) -> Result<()> {
    session.start_changing("confirm")?;
    let _lock = Lock::take(&session.config.at(trial::LOCK_FILE))?;
    let newly = trial::confirm(&session.host, &session.config, &session.ui)?;
    print(if newly {
        "this system is committed now\n"
    } else {
        "this system was committed already\n"
    })
}

/// Make the other slot boot, if it would
///
/// While a slot is on trial, this ends the trial.
#[derive(Args)]
pub struct RollbackArgs {
    /// Restart right away
    #[arg(long)]
    reboot: bool,
}

pub fn rollback(session: &Session, args: &RollbackArgs) -> Result<()> {
    session.start_changing("rollback")?;
    session.agree("Make the other slot the one that boots?")?;
    let _lock = Lock::take(&session.config.at(trial::LOCK_FILE))?;
    let machine = Machine::look(&session.config)?;
    let outcome = rollback_flow::rollback(&session.host, &session.config, &machine, &session.ui)?;
    session.ui.finish();
    let cancelled = if outcome.cancelled_trial {
        "; the trial is cancelled"
    } else {
        ""
    };
    let next = if outcome.next == machine.booted {
        "stays"
    } else {
        "boots next"
    };
    print(&format!(
        "slot {} with version {} {next}{cancelled}\n",
        outcome.next, outcome.version
    ))?;
    if args.reboot {
        session.host.reboot(Restart::Orderly)
    } else {
        Ok(())
    }
}

/// Do what this boot asks for: check and confirm a trial, or mend the boot state
#[derive(Args)]
pub struct BootArgs {
    /// Only wait for the deadline of a trial, and restart if nothing ended it
    #[arg(long)]
    pub(super) deadline: bool,
}

pub fn boot(session: &Session, args: &BootArgs) -> Result<()> {
    session.require_root("boot")?;
    if args.deadline {
        return trial::watch_deadline(&session.host, &session.config, &session.ui);
    }
    let text = match trial::after_boot(&session.host, &session.config, &session.ui)? {
        trial::Outcome::Ordinary => "an ordinary boot".to_owned(),
        trial::Outcome::Confirmed(slot) => format!("slot {slot} is healthy and committed now"),
        trial::Outcome::Restarting(why) => format!("restarting: {why}"),
        trial::Outcome::OtherSlot(slot) => {
            format!("slot {slot} runs, which is not the committed one; see `va-upgrade status`")
        }
        trial::Outcome::TrialFailed(slot, why) => format!("the trial of slot {slot} failed: {why}"),
    };
    session.ui.finish();
    print(&format!("{text}\n"))
}
