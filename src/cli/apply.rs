//! `check` and `apply`.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;

use super::bundles::trust;
use super::{Session, print, print_json, threads};
use crate::bundle::{Keyring, Manifest, Sealed};
use crate::progress::Progress;
use crate::system::{Restart, System};
use crate::upgrade::apply::{self as apply_flow, Input, Options, REVOKED_FILE, TRUSTED_DIR};
use crate::upgrade::machine::Machine;
use crate::upgrade::preflight::{self, Report, Verdict};

/// Run every check of an upgrade; changes nothing
///
/// Without a bundle, only the appliance is checked.
#[derive(Args)]
pub struct CheckArgs {
    /// The bundle
    #[arg(value_name = "FILE.vab")]
    file: Option<PathBuf>,
    /// Accept a bundle without a signature
    #[arg(long)]
    allow_unsigned: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn check(session: &Session, args: &CheckArgs) -> Result<()> {
    session.start_changing("check")?;
    let manifest = match &args.file {
        Some(file) => Some(authentic(session, file, args.allow_unsigned)?),
        None => None,
    };
    let machine = Machine::look(&session.config)?;
    let (report, _) = preflight::check(&session.host, &session.config, &machine, manifest.as_ref());
    session.ui.finish();
    if args.json {
        print_json(&report)?
    } else {
        print(&text(&report))?
    }
    report.require()
}

/// Proves a bundle whole and genuine and returns its manifest.
fn authentic(session: &Session, file: &Path, allow_unsigned: bool) -> Result<Manifest> {
    let keyring = Keyring::load(
        &session.config.at(TRUSTED_DIR),
        &session.config.at(REVOKED_FILE),
    )?;
    let (mut bundle, _) = Sealed::open(file)?.authenticate(trust(&keyring, allow_unsigned))?;
    bundle.verify(threads(None)?, &session.ui)?;
    Ok(bundle.manifest().clone())
}

fn text(report: &Report) -> String {
    let line = |check: &preflight::Check| {
        let verdict = match check.verdict {
            Verdict::Pass => "ok  ",
            Verdict::Warn => "warn",
            Verdict::Fail => "FAIL",
        };
        format!("{verdict}  {:<14} {}\n", check.name, check.message)
    };
    report.checks.iter().map(line).collect()
}

/// Write a bundle to the slot that does not run, and try it at the next boot
///
/// The running system is not touched. The new one has a few tries to come up
/// healthy; else the running one boots again by itself.
#[derive(Args)]
pub struct ApplyArgs {
    /// The bundle; "-" reads it from standard input
    #[arg(value_name = "FILE.vab")]
    file: PathBuf,
    /// Only check, and say what would be done
    #[arg(long)]
    dry_run: bool,
    /// Restart right away when done
    #[arg(long)]
    reboot: bool,
    /// Accept a bundle without a signature
    #[arg(long)]
    allow_unsigned: bool,
    /// Threads that unpack [default: one for each processor]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

pub fn apply(session: &Session, args: ApplyArgs) -> Result<()> {
    let threads = threads(args.threads)?;
    session.start_changing("apply")?;
    let streamed = args.file.as_os_str() == "-";
    if !args.dry_run && !streamed {
        session.agree("Overwrite the slot that does not run?")?;
    }
    let input = if streamed {
        Input::Stream(Box::new(io::stdin()))
    } else {
        Input::File(args.file)
    };
    let options = Options {
        input,
        allow_unsigned: args.allow_unsigned,
        dry_run: args.dry_run,
        threads,
    };
    let outcome = apply_flow::apply(&session.host, &session.config, options, &session.ui)?;
    session.ui.finish();
    let (slot, version) = (outcome.slot, &outcome.version);
    if args.dry_run {
        print(&text(&outcome.report))?;
        return print(&format!(
            "would write version {version} to slot {slot} and try it {} times; {} stays the default\n",
            outcome.tries, outcome.from
        ));
    }
    print(&format!(
        "version {version} is in slot {slot}; the next boot tries it, up to {} times. \
         Until it is confirmed, version {} stays the default\n",
        outcome.tries, outcome.from
    ))?;
    if args.reboot {
        session.host.reboot(Restart::Orderly)
    } else {
        Ok(())
    }
}
