//! The packages a tree consists of, as its package database tells.
//!
//! Parses text and asks tools; knows nothing of bundles. Whatever a database
//! says is another machine's word: it is shown, never acted upon.

pub mod dpkg;
pub mod rpm;

use std::collections::{BTreeMap, BTreeSet};

/// One installed package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    /// Its name, without the architecture.
    pub name: String,
    /// Its version, with epoch and release.
    pub version: String,
    /// What it is built for.
    pub architecture: String,
}

/// What fits every architecture.
const NEUTRAL: [&str; 3] = ["all", "noarch", "(none)"];

/// The packages of a tree by name, each with its versions.
///
/// A name has its architecture behind it where that is not the one that most
/// packages have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Packages(BTreeMap<String, BTreeSet<String>>);

impl Packages {
    /// Sorts a list of packages.
    pub fn new(list: Vec<Package>) -> Packages {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for package in &list {
            if !NEUTRAL.contains(&&package.architecture[..]) {
                *counts.entry(&package.architecture).or_default() += 1;
            }
        }
        let most = counts.into_iter().max_by_key(|(_, count)| *count);
        let native = most.map(|(architecture, _)| architecture.to_owned());
        let mut packages = Packages::default();
        for package in list {
            let architecture = package.architecture;
            let is_usual =
                NEUTRAL.contains(&&architecture[..]) || native.as_ref() == Some(&architecture);
            let name = match is_usual {
                true => package.name,
                false => format!("{}:{architecture}", package.name),
            };
            packages.0.entry(name).or_default().insert(package.version);
        }
        packages
    }

    /// Tells whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A package that is not the same in two trees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its name.
    pub name: String,
    /// The versions in the older tree; none where it is new.
    pub old: Vec<String>,
    /// The versions in the newer tree; none where it is gone.
    pub new: Vec<String>,
}

/// Lists what differs between two trees, by name.
pub fn compare(old: &Packages, new: &Packages) -> Vec<Change> {
    let names: BTreeSet<&String> = old.0.keys().chain(new.0.keys()).collect();
    let versions = |packages: &Packages, name: &String| -> Vec<String> {
        let versions = packages.0.get(name);
        versions.map_or_else(Vec::new, |v| v.iter().cloned().collect())
    };
    let changes = names.into_iter().map(|name| Change {
        name: name.clone(),
        old: versions(old, name),
        new: versions(new, name),
    });
    changes.filter(|change| change.old != change.new).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packages(list: &[(&str, &str, &str)]) -> Packages {
        let package = |(name, version, architecture): &(&str, &str, &str)| Package {
            name: (*name).into(),
            version: (*version).into(),
            architecture: (*architecture).into(),
        };
        Packages::new(list.iter().map(package).collect())
    }

    #[test]
    fn packages_come_go_and_change_sorted_by_name() {
        let old = packages(&[
            ("zlib", "1", "amd64"),
            ("gone", "2", "all"),
            ("same", "3", "amd64"),
            ("kernel", "5", "amd64"),
            ("kernel", "6", "amd64"),
        ]);
        let new = packages(&[
            ("zlib", "1.1", "amd64"),
            ("same", "3", "amd64"),
            ("added", "4", "amd64"),
            ("kernel", "6", "amd64"),
            ("kernel", "7", "amd64"),
        ]);
        let change = |name: &str, old: &[&str], new: &[&str]| Change {
            name: name.into(),
            old: old.iter().map(|v| (*v).to_owned()).collect(),
            new: new.iter().map(|v| (*v).to_owned()).collect(),
        };
        assert_eq!(
            compare(&old, &new),
            [
                change("added", &[], &["4"]),
                change("gone", &["2"], &[]),
                change("kernel", &["5", "6"], &["6", "7"]),
                change("zlib", &["1"], &["1.1"]),
            ]
        );
        assert_eq!(compare(&old, &old), []);
    }

    #[test]
    fn only_an_unusual_architecture_is_named() {
        let all = packages(&[
            ("libc6", "1", "amd64"),
            ("libc6", "1", "i386"),
            ("dpkg", "1", "amd64"),
            ("tzdata", "1", "all"),
            ("gpg-pubkey", "1", "(none)"),
        ]);
        let names: Vec<&String> = all.0.keys().collect();
        assert_eq!(
            names,
            ["dpkg", "gpg-pubkey", "libc6", "libc6:i386", "tzdata"]
        );
    }
}
