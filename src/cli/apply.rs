//! `apply`: writes a bundle to the inactive slot and puts it on trial.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::output::{Page, print, print_done};
use super::{Question, Session, check, threads};
use crate::input::Patient;
use crate::install::customer;
use crate::progress::Progress;
use crate::system::{Restart, System};
use crate::upgrade::apply::{self as apply_flow, Applied, Input, Options};

/// Write a bundle to the slot that does not run, and try it at the next boot
///
/// The running system is not touched. The new one has a few tries to come up
/// healthy; else the running one boots again by itself.
#[derive(clap::Args)]
pub struct Args {
    /// The bundle: a file, disk or named pipe; "-" reads standard input
    #[arg(value_name = "FILE.vab")]
    file: PathBuf,
    /// Only check, and say what would be done
    #[arg(long)]
    dry_run: bool,
    /// Only write: `va-upgrade activate` has the next boot try it, `discard` drops it
    #[arg(long, conflicts_with = "reboot")]
    stage: bool,
    /// Restart right away when done
    #[arg(long)]
    reboot: bool,
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

/// Runs `apply`; writes the inactive slot, `/boot`, GRUB and the boot state.
pub fn run(session: &Session, args: Args) -> Result<()> {
    let threads = threads(args.threads)?;
    session.start_changing("apply")?;
    let streamed = args.file.as_os_str() == "-";
    if !args.dry_run && !streamed {
        args.question
            .agree(&session.ui, "Overwrite the slot that does not run?")?;
    }
    let input = if streamed {
        // Of the library's own buffer, who waits for more knows nothing.
        let stdin = io::stdin().as_fd().try_clone_to_owned();
        let stdin = File::from(stdin.context("opening standard input")?);
        Input::Stream(Box::new(Patient(stdin)))
    } else {
        Input::File(args.file)
    };
    let options = Options {
        input,
        allow_unsigned: args.allow_unsigned,
        allow_downgrade: args.allow_downgrade,
        dry_run: args.dry_run,
        stage: args.stage,
        threads,
    };
    let outcome = apply_flow::apply(&session.appliance(), options)?;
    session.ui.finish();
    if args.dry_run {
        tell_plan(&outcome, args.stage)?;
        let plan = customer::plan(&session.appliance(), None)?;
        return print(&format!("\nWhat is the customer's:\n\n{}", plan.text()));
    }
    if args.stage {
        print_done(&format!(
            "version {} is in slot {} and waits there; version {} boots until \
             `va-upgrade activate` has the new one tried, `va-upgrade discard` drops it\n",
            outcome.version, outcome.slot, outcome.from
        ));
        return Ok(());
    }
    print_done(&format!(
        "version {} is in slot {}; the next boot tries it, up to {} times. \
         Until it is confirmed, version {} stays the default\n",
        outcome.version, outcome.slot, outcome.tries, outcome.from
    ));
    if args.reboot {
        session.host.reboot(Restart::Orderly)
    } else {
        Ok(())
    }
}

/// Prints what was checked and would be done.
fn tell_plan(outcome: &Applied, is_staged: bool) -> Result<()> {
    let mut page = Page::of_stdout();
    check::write(&mut page, &outcome.report, Some(&outcome.version));
    page.end_line();
    let trial = match is_staged {
        true => "leave it there untried".to_owned(),
        false => format!("try it {} times", outcome.tries),
    };
    page.line(&format!(
        "would write version {} to slot {} and {trial}; {} stays the default",
        outcome.version, outcome.slot, outcome.from
    ));
    page.print()
}
