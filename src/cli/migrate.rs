//! `migrate`: a system with one root gets a second one.

use std::path::PathBuf;

use anyhow::Result;

use super::output::{Page, print};
use super::{Question, Session, check, threads};
use crate::migrate::in_place::cancel;
use crate::migrate::ladder::{Choice, Rung};
use crate::migrate::order::Mode;
use crate::migrate::{self, Extent, Migrated, Options, in_ram};
use crate::progress::Progress;
use crate::refuse;
use crate::system::{Restart, System};

/// Give a system with one root the layout of two, and try a bundle at the next boot
///
/// The safest way that fits is chosen and printed. In place, where the volume group
/// has room: a second root is made beside the one there is, which stays as it is and
/// boots again by itself if the new system does not come up. A run that was cut is
/// gone on with by the same command.
///
/// In memory, where it has none: the next boot takes the bundle and what is the
/// customer's into memory and makes the whole disk anew; the bundle must have been built
/// with --environment. --rehearse has the next boot do all of that up to the first write
/// to the disk, and this system boot again; `va-upgrade status` then says how it went.
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
    let extent = match (args.dry_run, args.rehearse) {
        (true, _) => Extent::DryRun,
        (_, true) => Extent::Rehearsal,
        _ => Extent::Whole,
    };
    let mut options = Options {
        bundle,
        allow_unsigned: args.allow_unsigned,
        allow_downgrade: args.allow_downgrade,
        extent: Extent::DryRun,
        threads,
    };
    let foreseen = migrate::migrate(&session.appliance(), &options)?;
    session.ui.finish();
    if extent == Extent::DryRun {
        tell_choice(&foreseen)?;
        return foreseen.require();
    }
    foreseen.require()?;
    tell_choice(&foreseen)?;
    if extent == Extent::Whole {
        args.question
            .agree(&session.ui, question(&foreseen.choice))?;
    }
    options.extent = extent;
    let migrated = migrate::migrate(&session.appliance(), &options)?;
    session.ui.finish();
    print(&done(&migrated))?;
    if args.reboot {
        session.host.reboot(Restart::Orderly)
    } else {
        Ok(())
    }
}

/// Asks by what is at stake.
fn question(choice: &Choice) -> &'static str {
    match choice.rung {
        Rung::InRam => "Have the next boot make the whole disk anew?",
        Rung::InPlace(_) | Rung::Neither => "Give this system a second root?",
    }
}

/// Says what was done, and how it goes on.
fn done(migrated: &Migrated) -> String {
    if let Some(applied) = &migrated.applied {
        return format!(
            "\nversion {} is in slot {}; the next boot tries it, up to {} times. Until it is \
             confirmed, version {} stays the default; `va-upgrade migrate --cancel` undoes all of \
             it before that boot\n",
            applied.version, applied.slot, applied.tries, applied.from
        );
    }
    let version = &migrated.version;
    match migrated.prepared {
        Some(Mode::Migrate) => format!(
            "\nthe next boot moves this machine to version {version}; `va-upgrade migrate --cancel` \
             undoes all of it before that boot\n"
        ),
        Some(Mode::Rehearse) => format!(
            "\nthe next boot rehearses the move to version {version}, then this system boots again; \
             `va-upgrade status` says how it went, `va-upgrade migrate --cancel` removes it\n"
        ),
        None => String::new(),
    }
}

/// Prints the way, why, and every check.
fn tell_choice(migrated: &Migrated) -> Result<()> {
    let mut page = Page::of_stdout();
    for line in migrated.choice.to_string().lines() {
        page.line(line);
    }
    if let Some(prospect) = &migrated.prospect {
        page.line(&format!(
            "  {} is made anew; it takes {} MiB of memory; {} MiB of settings come over, which \
             `va-upgrade sync plan` lists",
            prospect.disk.display(),
            prospect.need_bytes.div_ceil(1 << 20),
            prospect.settings_bytes.div_ceil(1 << 20)
        ));
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
        "Take back all that was done for the migration?",
    )?;
    let cancelled = cancel::cancel(&session.appliance())?;
    let in_ram = cancelled.is_none() && in_ram::cancel(&session.appliance())?;
    session.ui.finish();
    match cancelled {
        Some(plan) => print(&format!(
            "the migration is undone: {}/{} is gone, and this system starts as before it\n",
            plan.group, plan.back.name
        )),
        None if in_ram => print("the migration is undone: this system starts as before it\n"),
        None => refuse!("there is nothing to cancel: no migration was begun on this system"),
    }
}
