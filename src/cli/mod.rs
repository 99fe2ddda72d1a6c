//! The command line: the only code that knows clap, indicatif and stdout.

mod activate;
mod apply;
mod boot;
mod build;
mod check;
mod completions;
mod confirm;
mod discard;
mod drill;
mod grow;
mod info;
mod man;
mod migrate;
mod output;
mod repair;
mod report;
mod result;
mod rollback;
mod sign;
mod size;
mod status;
mod sync;
mod trust;
mod ui;
mod unpack;
mod verify;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, anyhow};
use clap::{ArgAction, Args, Parser, Subcommand};

use crate::appliance::Appliance;
use crate::bundle::Manifest;
use crate::config::Config;
use crate::failure::{Class, Classify, class_of};
use crate::refuse;
use crate::signals;
use crate::stderr::{self, printable};
use crate::system::{Host, System};

use ui::{ProgressMode, Ui};

/// Whole-root upgrades for virtual appliances with two roots
///
/// Release engineers `build` a bundle from a machine's disk image. The appliance
/// `apply`s it to the root it does not run from, tries the new system, and keeps
/// it or goes back by itself.
#[derive(Parser)]
#[command(name = "va-upgrade", version, max_term_width = 100, after_long_help = NOTES)]
#[command(disable_help_flag = true, disable_version_flag = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    common: Common,
    /// Print the version
    #[arg(short = 'V', long, action = ArgAction::Version, help_heading = COMMON)]
    version: Option<bool>,
}

/// The heading of what every verb understands.
const COMMON: &str = "Common options";

const NOTES: &str = "\
Progress, on standard error:
  auto   a bar on a terminal, plain lines elsewhere
  bar    a bar
  plain  one line per step, and one each tenth or half minute of it
  json   one JSON object a line: {\"step\", \"title\", \"done\", \"total\", \"rate\", \"left\"}; step is
         a word for programs, title a sentence; the rest is in bytes, bytes a second
         and seconds, null where unknown; or {\"note\"}; last of `build` {\"result\"},
         of whatever fails {\"error\": {\"class\", \"message\"}}
  none   nothing

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
#[command(next_help_heading = COMMON)]
struct Common {
    /// Settings file [default: /etc/va-upgrade/config.yaml]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Show every command that is run
    #[arg(short, long, global = true)]
    verbose: bool,
    /// Say nothing but results and errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// How to show progress: auto, bar, plain, json or none [default: auto]
    #[arg(long, global = true, value_name = "HOW", default_value = "auto")]
    #[arg(hide_default_value = true, hide_possible_values = true)]
    progress: ProgressMode,
    /// Print help: -h in short, --help in full
    #[arg(short, long, global = true, action = ArgAction::Help)]
    help: Option<bool>,
}

/// How a verb that asks before it goes on is answered.
#[derive(Args)]
struct Question {
    /// Go ahead without asking
    #[arg(long)]
    yes: bool,
}

impl Question {
    /// Asks on a terminal; elsewhere, and with `--yes`, goes ahead.
    fn agree(&self, ui: &Ui, question: &str) -> Result<()> {
        if self.yes || !ui.can_ask() || ui.ask(question)? {
            return Ok(());
        }
        refuse!("not done, as you answered")
    }
}

/// The verbs, in the order of their use.
#[derive(Subcommand)]
enum Verb {
    #[command(flatten)]
    Work(Work),
    Completions(completions::Args),
    #[command(hide = true)]
    Man(man::Args),
}

/// The verbs that need the settings.
#[derive(Subcommand)]
enum Work {
    Build(build::Args),
    Sign(sign::Args),
    Info(info::Args),
    Verify(verify::Args),
    Unpack(unpack::Args),
    Check(check::Args),
    Apply(apply::Args),
    Activate(activate::Args),
    Discard(discard::Args),
    Drill(drill::Args),
    Status(status::Args),
    Confirm(confirm::Args),
    Report(report::Args),
    Rollback(rollback::Args),
    Repair(repair::Args),
    Migrate(migrate::Args),
    Grow(grow::Args),
    Sync(sync::Args),
    #[command(hide = true)]
    Boot(boot::Args),
}

/// What a verb runs with.
struct Session {
    config: Config,
    host: Host,
    ui: Ui,
}

/// Runs the command line `args` and returns the exit status.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to stdout with status 0, the rest is status 2.
            let status = u8::try_from(error.exit_code()).unwrap_or(2);
            if error.use_stderr() {
                // What it quotes may be a file's name.
                stderr::say(error.render().to_string().trim_end());
                return ExitCode::from(status);
            }
            return match error.print() {
                Ok(()) => ExitCode::from(status),
                Err(_) => ExitCode::FAILURE,
            };
        }
    };
    let is_json = cli.common.progress == ProgressMode::Json;
    match execute(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let class = match class_of(&error) {
                // What the caller named could not be read to its end; that is no mistake.
                Class::Usage if signals::check().is_err() => Class::Unexpected,
                class => class,
            };
            let message = printable(&format!("{error:#}"));
            if is_json {
                let error = serde_json::json!({ "class": class.name(), "message": message });
                stderr::say_json(&serde_json::json!({ "error": error }));
            } else {
                stderr::say(&format!("error: {message}"));
            }
            ExitCode::from(class as u8)
        }
    }
}

fn execute(cli: Cli) -> Result<()> {
    match cli.verb {
        Verb::Work(work) => work.run(&cli.common),
        Verb::Completions(args) => completions::run(&args),
        Verb::Man(args) => man::run(&args),
    }
}

impl Work {
    fn run(self, common: &Common) -> Result<()> {
        let session = Session {
            config: self.load_config(common.config.as_deref())?,
            host: Host::new(common.verbose),
            ui: Ui::new(common.progress, common.quiet),
        };
        match self {
            Work::Build(args) => build::run(&session, args),
            Work::Sign(args) => sign::run(&session, &args),
            Work::Info(args) => info::run(&session, &args),
            Work::Verify(args) => verify::run(&session, &args),
            Work::Unpack(args) => unpack::run(&session, &args),
            Work::Check(args) => check::run(&session, &args),
            Work::Apply(args) => apply::run(&session, args),
            Work::Activate(args) => activate::run(&session, &args),
            Work::Discard(args) => discard::run(&session, &args),
            Work::Drill(args) => drill::run(&session, &args),
            Work::Status(args) => status::run(&session, &args),
            Work::Confirm(args) => confirm::run(&session, &args),
            Work::Report(args) => report::run(&session, &args),
            Work::Rollback(args) => rollback::run(&session, &args),
            Work::Repair(_) => repair::run(&session),
            Work::Migrate(args) => migrate::run(&session, args),
            Work::Grow(args) => grow::run(&session, &args),
            Work::Sync(args) => sync::run(&session, &args),
            Work::Boot(args) => boot::run(&session, &args),
        }
    }

    /// Loads the settings. The watcher of a trial's deadline goes on with the
    /// defaults where they are unusable: it is the last net. Labels and the migration
    /// environment need none.
    fn load_config(&self, file: Option<&Path>) -> Result<Config> {
        match Config::load(file) {
            Err(error) if matches!(self, Work::Boot(args) if args.needs_no_settings()) => {
                stderr::say(&format!("warning: {error:#}; going on with the defaults"));
                Ok(Config::default())
            }
            outcome => outcome,
        }
    }
}

impl Session {
    /// Returns this machine as an appliance.
    fn appliance(&self) -> Appliance<'_> {
        Appliance {
            sys: &self.host,
            config: &self.config,
            progress: &self.ui,
        }
    }

    /// Returns where the absolute path `path` of this machine is found.
    fn at(&self, path: &str) -> PathBuf {
        let host: &dyn System = &self.host;
        host.at(path)
    }

    /// Refuses without root rights, then shields the machine from half-done
    /// work: signals wait for the next safe place, mounts die with the process.
    fn start_changing(&self, what: &str) -> Result<()> {
        self.require_root(what)?;
        self.host.enter_private_mounts()?;
        signals::watch()
    }

    fn is_root(&self) -> bool {
        nix::unistd::geteuid().is_root()
    }

    fn require_root(&self, what: &str) -> Result<()> {
        if !self.is_root() {
            refuse!("`va-upgrade {what}` needs root rights; run it with sudo");
        }
        Ok(())
    }
}

/// Returns how many threads to work with: as told, else one for each processor.
fn threads(wanted: Option<usize>) -> Result<usize> {
    match wanted {
        Some(0) => Err(anyhow!("--threads 0 is not possible; give at least 1")).class(Class::Usage),
        Some(threads) => Ok(threads.min(256)),
        None => Ok(std::thread::available_parallelism().map_or(1, usize::from)),
    }
}

/// Names a bundle by its product and version.
fn title(manifest: &Manifest) -> String {
    format!("{} {}", manifest.product, manifest.version)
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
