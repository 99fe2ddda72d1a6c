//! `boot`: what the boot services run.

use std::path::PathBuf;

use anyhow::Result;

use super::Session;
use super::output::print_done;
use crate::appliance::machine::Machine;
use crate::install::label;
use crate::migrate::{self, environment, in_ram};
use crate::progress::Progress;
use crate::upgrade::first_start::{self, Verdict};
use crate::upgrade::kernel_update::{self, Adopted, Change};
use crate::upgrade::trial::{self, LOCK_PATIENCE, Outcome};
use crate::upgrade::{deadline, drill, last_word, name_cards, owners};

/// Do what this boot asks for: check and confirm a trial, or mend the boot state
#[derive(clap::Args)]
pub struct Args {
    /// Only wait for the deadline of a trial, and restart if nothing ended it
    #[arg(long)]
    pub deadline: bool,
    /// Only have the newest installed kernel tried with the next restart; RELEASE is the one whose
    /// kernel or initramfs a package has just made
    #[arg(long, value_name = "RELEASE", num_args = 0..=1, require_equals = true,
          conflicts_with = "deadline")]
    pub adopt_kernel: Option<Option<String>>,
    /// RELEASE is being removed
    #[arg(long, requires = "adopt_kernel")]
    pub removed: bool,

    /// Only give the network cards their names, before anything uses them
    #[arg(long, conflicts_with = "deadline")]
    pub name_cards: bool,

    /// Only carry over what was changed in the old system after the upgrade was written
    #[arg(long, conflicts_with = "deadline")]
    pub carry: bool,

    /// Only give the files on the data volume the ids that this system's accounts have, where a
    /// rule asks for it
    #[arg(long, conflicts_with = "deadline")]
    pub owners: bool,

    /// Only set the SELinux labels that the system before could not, in the system at DIR; for
    /// the initramfs
    #[arg(long, value_name = "DIR", conflicts_with = "deadline")]
    pub labels: Option<PathBuf>,

    /// Only do what the order on the old disk says, then restart; for the initramfs of the
    /// migration environment
    #[arg(long, conflicts_with = "deadline")]
    pub migrate: bool,

    /// Only collect the settings once more for the move to two slots that the next start begins
    #[arg(long, conflicts_with = "deadline")]
    pub collect_settings: bool,
}

impl Args {
    /// Tells whether this is done with the defaults where the settings are unusable.
    pub fn needs_no_settings(&self) -> bool {
        self.deadline || self.migrate || self.labels.is_some()
    }
}

/// Runs `boot`; writes the boot state, and may restart the machine.
pub fn run(session: &Session, args: &Args) -> Result<()> {
    session.require_root("boot")?;
    if args.deadline {
        return deadline::watch(&session.appliance());
    }
    if let Some(release) = &args.adopt_kernel {
        let change = Change {
            release: release.as_deref(),
            is_removal: args.removed,
        };
        return adopt_kernel(session, change);
    }
    if args.name_cards {
        return name_cards::run(&session.appliance());
    }
    if args.carry {
        session.host.enter_private_mounts()?;
        let text = match last_word::run(&session.appliance())? {
            true => "what was changed after the upgrade was written is carried over",
            false => "nothing was changed after the upgrade was written",
        };
        print_done(&format!("{text}\n"));
        return Ok(());
    }
    if args.owners {
        let appliance = session.appliance();
        owners::settle(&appliance, &appliance.wait_for_lock(LOCK_PATIENCE)?);
        return Ok(());
    }
    if let Some(root) = &args.labels {
        // Not every initramfs has chroot(8).
        session.host.enter_root(root)?;
        let text = match label::finish(&session.appliance())? {
            true => "all SELinux labels are set",
            false => "no SELinux label is missing",
        };
        print_done(&format!("{text}\n"));
        return Ok(());
    }
    if args.migrate {
        return environment::run(&session.appliance());
    }
    if args.collect_settings {
        let text = match in_ram::collect_once_more(&session.appliance(), &migrate::collect)? {
            true => "the settings are collected once more",
            false => "no move to two slots is prepared",
        };
        print_done(&format!("{text}\n"));
        return Ok(());
    }
    let text = match trial::after_boot(&session.appliance())? {
        Outcome::Ordinary => "an ordinary boot".to_owned(),
        Outcome::Confirmed(slot) => format!("slot {slot} is healthy and committed now"),
        Outcome::Waiting(slot, left) => format!(
            "slot {slot} is healthy; `va-upgrade confirm` keeps it, within {} minutes",
            left.as_secs() / 60
        ),
        Outcome::Restarting(why) => format!("restarting: {why}"),
        Outcome::OtherSlot(slot) => {
            format!("slot {slot} runs, which is not the committed one; see `va-upgrade status`")
        }
        Outcome::TrialFailed(slot, why) => format!("the trial of slot {slot} failed: {why}"),
        Outcome::DrillOver(slot, reason) => drill::record_of(slot, reason),
        Outcome::KernelKept(slot, release) => {
            format!("kernel {release} is the one that slot {slot} starts now")
        }
        Outcome::KernelFailed(slot, release) => {
            format!("kernel {release} did not come up; slot {slot} starts the one before it")
        }
        Outcome::KernelNotTried(slot, release) => {
            format!("kernel {release} was not tried; slot {slot} starts the one before it")
        }
    };
    session.ui.finish();
    print_done(&format!("{text}\n"));
    match first_start::run(&session.appliance())? {
        None => {}
        Some(Verdict::Healthy(version)) => print_done(&format!("version {version} is healthy\n")),
        Some(Verdict::Unhealthy(why)) => print_done(&format!("not healthy: {why}\n")),
    }
    Ok(())
}

/// Has an installed kernel tried, beside the one that the running slot starts.
fn adopt_kernel(session: &Session, change: Change) -> Result<()> {
    let appliance = session.appliance();
    let lock = appliance.wait_for_lock(LOCK_PATIENCE)?;
    let machine = Machine::look(&appliance)?;
    let adopted = kernel_update::adopt(&appliance, &machine, change, &lock)?;
    session.ui.finish();
    if let Adopted::OnTrial(release) = adopted {
        print_done(&format!(
            "kernel {release} is tried with the next restart; the one before it starts again if \
             it does not come up\n"
        ));
    }
    Ok(())
}
