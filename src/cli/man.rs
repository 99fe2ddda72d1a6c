//! `man`: manual pages, made from the definition of the command line.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, Command, CommandFactory};
use clap_mangen::Man;

use super::Cli;
use crate::failure::{Class, Classify};
use crate::system::files;

/// Write the manual pages into a directory, for packages
#[derive(Args)]
pub struct ManArgs {
    /// The directory
    dir: PathBuf,
}

pub fn run(args: &ManArgs) -> Result<()> {
    let mut cli = Cli::command().disable_help_subcommand(true);
    cli.build();
    let verbs = cli.get_subcommands().filter(|verb| !verb.is_hide_set());
    for command in verbs.chain([&cli]) {
        write_page(command, args)
            .with_context(|| format!("writing the manual of {}", command.get_name()))
            .class(Class::Refused)?;
    }
    Ok(())
}

fn write_page(command: &Command, args: &ManArgs) -> Result<()> {
    let page = Man::new(command.clone())
        .section("8")
        .source(concat!("va-upgrade ", env!("CARGO_PKG_VERSION")))
        .manual("System administration");
    let mut text = Vec::new();
    page.render(&mut text)?;
    files::write_atomic(&args.dir.join(page.get_filename()), &text, 0o644)
}
