//! `migrate`: a system with one root gets a second one.

use std::path::PathBuf;

use anyhow::Result;

use super::output::{Page, print};
use super::{Question, Session, check, threads};
use crate::migrate::in_place::cancel;
use crate::migrate::{self, Extent, Migrated, Options};
use crate::progress::Progress;
use crate::refuse;
use crate::system::{Restart, System};

/// Give a system with one root the layout of two, and try a bundle at the next boot
///
/// The safest way that fits is chosen and printed. In place, where the volume group
/// has room: a second root is made beside the one there is, which stays as it is and
/// boots again by itself if the new system does not come up. A run that was cut is
/// gone on with by the same command.
#[derive(clap::Args)]
pub struct Args {
    /// The bundle
    #[arg(value_name = "FILE.vab", required_unless_present = "cancel")]
    file: Option<PathBuf>,
    /// Only check, and say what would be done
    #[arg(long)]
    dry_run: bool,
    /// Do all that is possible without changing what boots, and say how it went
    #[arg(long, conflicts_with_all = ["dry_run", "reboot"])]
    rehearse: bool,
    /// Restart right away when done
    #[arg(long, conflicts_with = "dry_run")]
    reboot: bool,
    /// Undo a migration whose new system was not started yet
    #[arg(long, conflicts_with_all = ["file", "dry_run", "rehearse", "reboot"])]
    cancel: bool,
    /// Accept a bundle without a signature
    #[arg(long)]
    allow_unsigned: bool,
    /// Accept a version older than the running one
    #[arg(long)]
    allow_downgrade: bool,
    /// Threads that unpack [default: one for each processor]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    #[command(flatten)]
    question: Question,
}

/// Runs `migrate`; writes volumes, settings and all that `apply` does.
pub fn run(session: &Session, args: Args) -> Result<()> {
    let threads = threads(args.threads)?;
    session.start_changing("migrate")?;
    let Some(bundle) = args.file else {
        return cancel_it(session, &args.question);
    };
    // In place there is nothing to rehearse but the checks: nothing is at stake in it.
    let extent = match args.dry_run || args.rehearse {
        true => Extent::DryRun,
        false => Extent::Whole,
    };
    if extent == Extent::Whole {
        args.question
            .agree(&session.ui, "Give this system a second root?")?;
    }
    let options = Options {
        bundle,
        allow_unsigned: args.allow_unsigned,
        allow_downgrade: args.allow_downgrade,
        extent,
        threads,
    };
    let migrated = migrate::migrate(&session.appliance(), &options)?;
    session.ui.finish();
    tell_choice(&migrated)?;
    let Some(applied) = &migrated.applied else {
        return migrated.require();
    };
    print(&format!(
        "\nversion {} is in slot {}; the next boot tries it, up to {} times. Until it is \
         confirmed, version {} stays the default; `va-upgrade migrate --cancel` undoes all of \
         it before that boot\n",
        applied.version, applied.slot, applied.tries, applied.from
    ))?;
    if args.reboot {
        session.host.reboot(Restart::Orderly)
    } else {
        Ok(())
    }
}

/// Prints the way, why, and every check.
fn tell_choice(migrated: &Migrated) -> Result<()> {
    let mut page = Page::of_stdout();
    for line in migrated.choice.to_string().lines() {
        page.line(line);
    }
    if let Some(report) = &migrated.report {
        page.end_line();
        check::write(&mut page, report, Some(&migrated.version));
    }
    page.print()
}

fn cancel_it(session: &Session, question: &Question) -> Result<()> {
    question.agree(
        &session.ui,
        "Remove the second root and all that belongs to it?",
    )?;
    let cancelled = cancel::cancel(&session.appliance())?;
    session.ui.finish();
    match cancelled {
        Some(plan) => print(&format!(
            "the migration is undone: {}/{} is gone, and this system starts as before it\n",
            plan.group, plan.back.name
        )),
        None => refuse!("there is nothing to cancel: no migration was begun on this system"),
    }
}
