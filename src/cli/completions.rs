//! `completions`: shell completion, made from the definition of the command line.

use anyhow::Result;
use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Cli, print};

/// Print a completion script for a shell
///
/// For bash: va-upgrade completions bash > /etc/bash_completion.d/va-upgrade
#[derive(Args)]
pub struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

pub fn run(args: &CompletionsArgs) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "va-upgrade", &mut script);
    print(&String::from_utf8_lossy(&script))
}
