//! `sync`: what of the customer's is carried over, and what was kept of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::output::{print, print_json};
use super::{Question, Session};
use crate::appliance::history;
use crate::install::customer;
use crate::progress::Progress;
use crate::refuse;
use crate::sha::Sha;
use crate::stderr::printable;
use crate::sync::keep::{self, Kept};
use crate::system::files;

/// Show what an upgrade carries over of the customer's system, and what was kept
///
/// Rules say by path how a thing is carried; docs/sync.md tells how to write one.
/// What no rule knows stays behind, and is kept on the data volume.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
    /// Print JSON, of `plan` and `log`; it has every path
    #[arg(long, global = true)]
    json: bool,
}

#[derive(clap::Subcommand)]
enum Verb {
    /// List what would be carried over, by which rule, and what no rule knows
    Plan,
    /// List the sets that were kept, or the files of one
    Log {
        /// The number of a set
        number: Option<u32>,
    },
    /// Compare the files of two sets
    Diff {
        /// The number of the older one
        a: u32,
        /// The number of the newer one
        b: u32,
    },
    /// Put the customer's files of a set back into the running system
    Restore {
        /// The number of the set
        number: u32,
        /// Only the file at this path
        path: Option<PathBuf>,
        #[command(flatten)]
        question: Question,
    },
}

/// Runs `sync`; only `restore` writes.
pub fn run(session: &Session, args: &Args) -> Result<()> {
    match &args.verb {
        Verb::Plan => plan(session, args.json),
        Verb::Log { number } => log(session, *number, args.json),
        Verb::Diff { a, b } => diff(session, *a, *b),
        Verb::Restore {
            number,
            path,
            question,
        } => restore(session, *number, path.as_deref(), question),
    }
}

fn plan(session: &Session, json: bool) -> Result<()> {
    session.require_root("sync plan")?;
    let appliance = session.appliance();
    let plan = customer::plan(&appliance, None)?;
    session.ui.finish();
    match json {
        true => print_json(&plan),
        false if plan.items.is_empty() => print("nothing differs from what was delivered\n"),
        false => print(&lines(&plan.text())),
    }
}

/// Makes text from outside fit for a terminal, line by line.
fn lines(text: &str) -> String {
    text.lines().map(|line| printable(line) + "\n").collect()
}

fn sets(session: &Session) -> Result<Vec<Kept>> {
    match history::data_dir(&session.appliance())? {
        Some(data) => keep::list(&data),
        None => refuse!("the data volume, which has the kept sets, is not mounted"),
    }
}

fn set(session: &Session, number: u32) -> Result<Kept> {
    let mut sets = sets(session)?;
    match sets.iter().position(|set| set.number == number) {
        Some(at) => Ok(sets.swap_remove(at)),
        None => {
            refuse!("there is no set {number}; `va-upgrade sync log` lists those that there are")
        }
    }
}

fn log(session: &Session, number: Option<u32>, json: bool) -> Result<()> {
    session.require_root("sync log")?;
    if let Some(number) = number {
        let files = keep::files_of(&set(session, number)?)?;
        if json {
            return print_json(&files);
        }
        let text: String = files
            .iter()
            .map(|file| format!("{}\n", file.display()))
            .collect();
        return print(&lines(&text));
    }
    let sets = sets(session)?;
    if json {
        return print_json(&sets);
    }
    if sets.is_empty() {
        return print("no set has been kept yet\n");
    }
    let text: String = sets
        .iter()
        .map(|set| {
            let about = &set.about;
            let age = age(session.appliance().sys.seconds_since_1970(), about.time);
            format!(
                "{:<4} {} -> {}, {age} ago\n",
                set.number, about.from, about.to
            )
        })
        .collect();
    print(&lines(&text))
}

fn age(now: u64, time: u64) -> String {
    match now.saturating_sub(time) {
        seconds @ 0..=119 => format!("{seconds} seconds"),
        seconds @ 120..=7199 => format!("{} minutes", seconds / 60),
        seconds @ 7200..=172_799 => format!("{} hours", seconds / 3600),
        seconds => format!("{} days", seconds / 86400),
    }
}

fn diff(session: &Session, a: u32, b: u32) -> Result<()> {
    session.require_root("sync diff")?;
    let digests = |number| -> Result<BTreeMap<PathBuf, Sha>> {
        let set = set(session, number)?;
        let wanted = keep::files_of(&set)?;
        let mut all = files::digests(&set.dir).context("reading the set")?;
        all.retain(|path, _| wanted.contains(path));
        Ok(all)
    };
    let (old, new) = (digests(a)?, digests(b)?);
    let mut text = String::new();
    let paths: std::collections::BTreeSet<&PathBuf> = old.keys().chain(new.keys()).collect();
    for path in paths {
        let sign = match (old.get(path), new.get(path)) {
            (Some(old), Some(new)) if old == new => continue,
            (Some(_), Some(_)) => '~',
            (Some(_), None) => '-',
            _ => '+',
        };
        text += &format!("{sign} {}\n", path.display());
    }
    if text.is_empty() {
        text = format!("sets {a} and {b} hold the same files\n");
    }
    print(&lines(&text))
}

fn restore(session: &Session, number: u32, path: Option<&Path>, question: &Question) -> Result<()> {
    session.start_changing("sync restore")?;
    let appliance = session.appliance();
    let set = set(session, number)?;
    let what = path.map_or_else(|| "all files".to_owned(), |path| path.display().to_string());
    let asked = format!("Put {what} of set {number} back into the running system?");
    question.agree(&session.ui, &asked)?;
    let _lock = appliance.lock()?;
    let restored = keep::restore(&set, &appliance.at("/"), path)?;
    session.ui.finish();
    let text: String = restored
        .iter()
        .map(|path| format!("/{}\n", path.display()))
        .collect();
    print(&lines(&text))
}
