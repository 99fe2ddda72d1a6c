//! The command line: the only code that knows clap, indicatif and stdout.

mod appliance;
mod apply;
mod bundles;
mod changes;
mod completions;
mod info;
mod listing;
mod man;
mod ui;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};

use crate::config::Config;
use crate::failure::{Class, Classify, class_of};
use crate::refuse;
use crate::system::{Host, signals};

use ui::{ProgressMode, Ui};

/// Whole-root upgrades for virtual appliances with two roots
///
/// Release engineers `build` a bundle from a machine's disk image. The appliance
/// `apply`s it to the root it does not run from, tries the new system, and keeps
/// it or goes back by itself.
#[derive(Parser)]
#[command(name = "va-upgrade", version, max_term_width = 100, after_long_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    global: Global,
}

const EXIT_CODES: &str = "\
Exit status:
  0  done
  1  unexpected failure; the running slot is untouched and still the default
  2  wrong usage
  3  refused by a check; nothing was changed
  4  the bundle is damaged, not signed by a trusted key, or for another product
  5  failed while writing the inactive slot or GRUB; undone
  6  another va-upgrade is at work
  7  undoing failed; the message says what to do";

/// What every verb understands.
#[derive(Args)]
struct Global {
    /// Settings file [default: /etc/va-upgrade/config.yaml]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Show every command that is run
    #[arg(short, long, global = true)]
    verbose: bool,
    /// Say nothing but results and errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// How to show progress
    #[arg(long, global = true, value_name = "HOW", default_value = "auto")]
    progress: ProgressMode,
    /// Answer every question with yes
    #[arg(long, global = true)]
    yes: bool,
}

#[derive(Subcommand)]
enum Verb {
    Build(bundles::BuildArgs),
    Sign(bundles::SignArgs),
    Info(info::InfoArgs),
    Verify(bundles::VerifyArgs),
    Unpack(bundles::UnpackArgs),
    Check(apply::CheckArgs),
    Apply(apply::ApplyArgs),
    Status(appliance::StatusArgs),
    Confirm(appliance::ConfirmArgs),
    Rollback(appliance::RollbackArgs),
    Completions(completions::CompletionsArgs),
    #[command(hide = true)]
    Man(man::ManArgs),
    #[command(hide = true)]
    Boot(appliance::BootArgs),
}

/// What a verb runs with.
struct Session {
    config: Config,
    host: Host,
    ui: Ui,
    yes: bool,
}

/// Runs the command line `args` and returns the exit status.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to stdout with status 0, the rest is status 2.
            let status = u8::try_from(error.exit_code()).unwrap_or(2);
            return match error.print() {
                Ok(()) => ExitCode::from(status),
                Err(_) => ExitCode::FAILURE,
            };
        }
    };
    match execute(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(class_of(&error) as u8)
        }
    }
}

fn execute(cli: Cli) -> Result<()> {
    let Cli { verb, global } = cli;
    match &verb {
        Verb::Completions(args) => return completions::run(args),
        Verb::Man(args) => return man::run(args),
        _ => {}
    }
    let session = Session {
        config: load_config(&verb, global.config.as_deref())?,
        host: Host::new(global.verbose),
        ui: Ui::new(global.progress, global.quiet),
        yes: global.yes,
    };
    match verb {
        Verb::Build(args) => bundles::build(&session, args),
        Verb::Sign(args) => bundles::sign(&args),
        Verb::Info(args) => info::info(&session, &args),
        Verb::Verify(args) => bundles::verify(&session, &args),
        Verb::Unpack(args) => bundles::unpack(&session, &args),
        Verb::Check(args) => apply::check(&session, &args),
        Verb::Apply(args) => apply::apply(&session, args),
        Verb::Status(args) => appliance::status(&session, &args),
        Verb::Confirm(_) => appliance::confirm(&session),
        Verb::Rollback(args) => appliance::rollback(&session, &args),
        Verb::Boot(args) => appliance::boot(&session, &args),
        Verb::Completions(_) | Verb::Man(_) => Ok(()),
    }
}

/// Loads the settings. The watcher of a trial's deadline goes on with the
/// defaults where they are unusable: it is the last net.
fn load_config(verb: &Verb, file: Option<&Path>) -> Result<Config> {
    match Config::load(file) {
        Err(error) if matches!(verb, Verb::Boot(args) if args.deadline) => {
            eprintln!("warning: {error:#}; going on with the defaults");
            Ok(Config::default())
        }
        outcome => outcome,
    }
}

impl Session {
    /// Refuses without root rights, then shields the machine from half-done
    /// work: signals wait for the next safe place, mounts die with the process.
    fn start_changing(&self, what: &str) -> Result<()> {
        self.require_root(what)?;
        self.host.enter_private_mounts()?;
        signals::watch()
    }

    fn require_root(&self, what: &str) -> Result<()> {
        if !nix::unistd::geteuid().is_root() {
            refuse!("`va-upgrade {what}` needs root rights; run it with sudo");
        }
        Ok(())
    }

    /// Asks on a terminal; elsewhere, and with `--yes`, goes ahead.
    fn agree(&self, question: &str) -> Result<()> {
        if self.yes || !self.ui.can_ask() || self.ui.ask(question)? {
            return Ok(());
        }
        refuse!("not done, as you answered")
    }
}

/// Prints `value` as JSON, for programs.
fn print_json(value: &impl serde::Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).context("rendering JSON")?;
    print(&format!("{text}\n"))
}

/// Prints a result; a reader that went away early is no error.
fn print(text: &str) -> Result<()> {
    use std::io::Write;
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(error).context("writing to standard output")
        }
        _ => Ok(()),
    }
}

/// Returns how many threads to work with: as told, else one for each processor.
fn threads(wanted: Option<usize>) -> Result<usize> {
    match wanted {
        Some(0) => Err(anyhow::anyhow!(
            "--threads 0 is not possible; give at least 1"
        ))
        .class(Class::Usage),
        Some(threads) => Ok(threads.min(256)),
        None => Ok(std::thread::available_parallelism().map_or(1, usize::from)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_verb_and_flag_is_explained() {
        for verb in Cli::command().get_subcommands() {
            assert!(
                verb.get_about().is_some(),
                "{} has no summary",
                verb.get_name()
            );
            for arg in verb.get_arguments() {
                assert!(
                    arg.get_help().is_some(),
                    "{} {} has no help",
                    verb.get_name(),
                    arg.get_id()
                );
            }
        }
    }
}
