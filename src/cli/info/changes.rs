//! `info --diff`: what changed from one bundle to another.

use anyhow::Result;
use serde::Serialize;

use super::name::Name;
use crate::bundle::Bundle;
use crate::cli::Session;
use crate::cli::output::{print, print_json};
use crate::compare::{By, Comparison, FileChange, What, compare};
use crate::packages::Change;
use crate::progress::Progress;
use crate::signals;
use crate::tree::path::show_whole;

/// Prints what changed from `old` to `new`.
pub fn run(
    session: &Session,
    old: &mut Bundle,
    new: &mut Bundle,
    by: By,
    json: bool,
) -> Result<()> {
    // Ctrl-C must not leave a copied package database behind.
    signals::watch()?;
    let compared = compare(&session.host, old, new, by, &session.ui);
    session.ui.finish();
    let comparison = compared?;
    if json {
        return print_json(&Changes::of(old, new, &comparison));
    }
    print(&text(&comparison))
}

/// Renders the changes for people.
fn text(comparison: &Comparison) -> String {
    let mut text = String::new();
    for package in comparison.packages.iter().flatten() {
        text += &package_line(package);
    }
    for file in &comparison.files {
        text += &file_line(file);
    }
    text + &total(comparison)
}

fn package_line(package: &Change) -> String {
    let name = show_whole(package.name.as_bytes());
    let versions = |versions: &[String]| show_whole(versions.join(", ").as_bytes());
    let (old, new) = (versions(&package.old), versions(&package.new));
    match Sign::of_package(package) {
        Sign::Added => format!("+ {name} {new}\n"),
        Sign::Removed => format!("- {name} {old}\n"),
        Sign::Changed => format!("~ {name} {old} -> {new}\n"),
    }
}

fn file_line(file: &FileChange) -> String {
    let path = show_whole(&file.path);
    match &file.what {
        What::Added => format!("+ /{path}\n"),
        What::Removed => format!("- /{path}\n"),
        What::Changed(aspects) => format!("~ /{path} ({})\n", aspects.join(", ")),
    }
}

/// Renders the last line.
fn total(comparison: &Comparison) -> String {
    let mut parts = Vec::new();
    if let Some(packages) = &comparison.packages {
        let counts = Counts::of(packages.iter().map(Sign::of_package));
        parts.push(format!("packages: {counts}"));
    }
    let counts = Counts::of(comparison.files.iter().map(Sign::of_file));
    let which = match comparison.packages {
        Some(_) => "files of no package",
        None => "files",
    };
    parts.push(format!("{which}: {counts}"));
    if comparison.packages.is_some() {
        parts.push(format!(
            "files of packages: {} differ (--files lists them)",
            comparison.owned_files
        ));
    }
    parts.join("; ") + "\n"
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Sign {
    Added,
    Removed,
    Changed,
}

impl Sign {
    fn of_package(package: &Change) -> Sign {
        match (&package.old[..], &package.new[..]) {
            ([], _) => Sign::Added,
            (_, []) => Sign::Removed,
            _ => Sign::Changed,
        }
    }

    fn of_file(file: &FileChange) -> Sign {
        match file.what {
            What::Added => Sign::Added,
            What::Removed => Sign::Removed,
            What::Changed(_) => Sign::Changed,
        }
    }
}

/// How much came, went and changed.
#[derive(Default, Serialize)]
struct Counts {
    added: usize,
    removed: usize,
    changed: usize,
}

impl Counts {
    fn of(signs: impl Iterator<Item = Sign>) -> Counts {
        let mut counts = Counts::default();
        for sign in signs {
            *match sign {
                Sign::Added => &mut counts.added,
                Sign::Removed => &mut counts.removed,
                Sign::Changed => &mut counts.changed,
            } += 1;
        }
        counts
    }
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Counts {
            added,
            removed,
            changed,
        } = self;
        write!(f, "{added} added, {removed} removed, {changed} changed")
    }
}

/// The changes for programs.
#[derive(Serialize)]
struct Changes<'a> {
    old: Release<'a>,
    new: Release<'a>,
    /// Null where every file was compared.
    packages: Option<Vec<PackageReport<'a>>>,
    files: Vec<FileReport<'a>>,
    totals: Totals,
}

#[derive(Serialize)]
struct Release<'a> {
    product: &'a str,
    version: &'a str,
}

#[derive(Serialize)]
struct PackageReport<'a> {
    change: Sign,
    name: &'a str,
    old: &'a [String],
    new: &'a [String],
}

#[derive(Serialize)]
struct FileReport<'a> {
    change: Sign,
    #[serde(flatten)]
    path: Name,
    differs: &'a [&'static str],
}

#[derive(Serialize)]
struct Totals {
    packages: Option<Counts>,
    files: Counts,
    files_of_packages: usize,
}

impl<'a> Changes<'a> {
    fn of(old: &'a Bundle, new: &'a Bundle, comparison: &'a Comparison) -> Changes<'a> {
        let release = |bundle: &'a Bundle| Release {
            product: &bundle.manifest().product,
            version: &bundle.manifest().version,
        };
        let package = |change: &'a Change| PackageReport {
            change: Sign::of_package(change),
            name: &change.name,
            old: &change.old,
            new: &change.new,
        };
        let file = |change: &'a FileChange| FileReport {
            change: Sign::of_file(change),
            path: Name::of(&change.path),
            differs: match &change.what {
                What::Changed(aspects) => aspects,
                _ => &[],
            },
        };
        let packages = comparison.packages.as_ref();
        Changes {
            old: release(old),
            new: release(new),
            packages: packages.map(|p| p.iter().map(package).collect()),
            files: comparison.files.iter().map(file).collect(),
            totals: Totals {
                packages: packages.map(|p| Counts::of(p.iter().map(Sign::of_package))),
                files: Counts::of(comparison.files.iter().map(Sign::of_file)),
                files_of_packages: comparison.owned_files,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &[u8], what: What) -> FileChange {
        FileChange {
            path: path.to_vec(),
            what,
            is_owned: false,
        }
    }

    #[test]
    fn changes_are_one_line_each_and_a_total() {
        let change = |name: &str, old: &[&str], new: &[&str]| Change {
            name: name.into(),
            old: old.iter().map(|v| (*v).to_owned()).collect(),
            new: new.iter().map(|v| (*v).to_owned()).collect(),
        };
        let mut comparison = Comparison {
            packages: Some(vec![
                change("bash", &["5.1"], &["5.2"]),
                change("kernel", &["5", "6"], &["6", "7"]),
                change("new\u{1b}[2J", &[], &["1"]),
                change("old", &["1"], &[]),
            ]),
            files: vec![
                file(b"etc/a", What::Changed(vec!["content", "mode"])),
                file(b"srv/\xff", What::Added),
                file(b"srv/b", What::Removed),
            ],
            owned_files: 20,
        };
        assert_eq!(
            text(&comparison),
            "~ bash 5.1 -> 5.2\n\
             ~ kernel 5, 6 -> 6, 7\n\
             + new\\x1b[2J 1\n\
             - old 1\n\
             ~ /etc/a (content, mode)\n\
             + /srv/\\xff\n\
             - /srv/b\n\
             packages: 1 added, 1 removed, 2 changed; \
             files of no package: 1 added, 1 removed, 1 changed; \
             files of packages: 20 differ (--files lists them)\n"
        );
        comparison.packages = None;
        comparison.files.clear();
        assert_eq!(text(&comparison), "files: 0 added, 0 removed, 0 changed\n");
    }
}
