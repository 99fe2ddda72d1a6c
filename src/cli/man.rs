//! `man`: manual pages, made from the definition of the command line.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Command, CommandFactory};
use clap_mangen::Man;

use super::Cli;
use crate::failure::{Class, Classify};
use crate::system::files;

/// Write the manual pages into a directory, for packages
#[derive(clap::Args)]
pub struct Args {
    /// The directory
    dir: PathBuf,
}

/// Runs `man`; writes the pages.
pub fn run(args: &Args) -> Result<()> {
    let mut cli = Cli::command().disable_help_subcommand(true);
    cli.build();
    let verbs = cli.get_subcommands().filter(|verb| !verb.is_hide_set());
    for command in verbs.chain([&cli]) {
        write_page(command, &args.dir)
            .with_context(|| format!("writing the manual of {}", command.get_name()))
            .class(Class::Refused)?;
    }
    Ok(())
}

fn write_page(command: &Command, dir: &Path) -> Result<()> {
    let page = Man::new(command.clone())
        .section("8")
        .source(concat!("va-upgrade ", env!("CARGO_PKG_VERSION")))
        .manual("System administration");
    let mut text = Vec::new();
    page.render(&mut text)?;
    files::write_atomic(&dir.join(page.get_filename()), &text, 0o644)
}
