//! `completions`: shell completion, made from the definition of the command line.

use anyhow::Result;
use clap::CommandFactory;
use clap_complete::Shell;

use super::Cli;
use super::output::print_raw;

/// Print a completion script for a shell
///
/// For bash: va-upgrade completions bash > /etc/bash_completion.d/va-upgrade
#[derive(clap::Args)]
pub struct Args {
    /// The shell: bash, elvish, fish, powershell or zsh
    #[arg(hide_possible_values = true)]
    shell: Shell,
}

/// Runs `completions`.
pub fn run(args: &Args) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "va-upgrade", &mut script);
    print_raw(&script)
}
