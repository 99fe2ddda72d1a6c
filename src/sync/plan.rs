//! What will be carried, and by which rule. Changes nothing.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::{Serialize, Serializer};

use super::rules::{Links, Rules, Way};
use crate::appliance::pristine::{Change, Pristine, What, changes};
use crate::tree::glob::Glob;
use crate::tree::path::show_whole;
use crate::tree::walk::walk_running;

/// What is done with a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// The customer's takes the place of the image's.
    Keep,
    /// Both are merged.
    Merge,
    /// A program of the new system makes it.
    Transform,
    /// Its entries are merged with the image's.
    Accounts,
    /// It is deleted, as it was on the old system.
    Delete,
    /// It is left behind.
    Drop,
    /// No rule knows it: it is left behind, and kept on the data volume.
    Unknown,
}

/// One path of the plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Item {
    /// The path, relative to the root.
    #[serde(serialize_with = "as_text")]
    pub path: PathBuf,
    /// How it differs from what was delivered; `None` where it does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub change: Option<What>,
    /// What is done with it.
    pub action: Action,
    /// The name of the rule that decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
}

/// Writes a path as text; bytes that are none are replaced.
pub fn as_text<S: Serializer>(path: &Path, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serializer.collect_str(&path.display())
}

/// Likewise, several.
pub fn as_texts<S: Serializer>(
    paths: &[PathBuf],
    serializer: S,
) -> std::result::Result<S::Ok, S::Error> {
    serializer.collect_seq(paths.iter().map(|path| path.display().to_string()))
}

/// What becomes of everything that the customer changed.
#[derive(Debug, Serialize)]
pub struct Plan {
    /// The version of this shape.
    pub format: u32,
    /// Whether it is known what the files were delivered with.
    pub knows_contents: bool,
    /// Every path, sorted.
    pub items: Vec<Item>,
}

/// Below these directories nothing of the customer's is looked for: what is mounted
/// there, and what the rules drop as a whole anyway.
const NOT_LOOKED_AT: [&str; 13] = [
    "/boot",
    "/lib/modules",
    "/usr/lib/va-upgrade",
    "/usr/lib/modules",
    "/usr/lib/sysimage",
    "/var/cache",
    "/var/log",
    "/var/tmp",
    "/var/lib/apt",
    "/var/lib/dpkg",
    "/var/lib/rpm",
    "/var/lib/dnf",
    "/var/lib/systemd",
];

/// Plans for the system at `root`; nothing below `mount_points` belongs to it.
///
/// # Errors
/// When the tree cannot be read.
pub fn plan(
    root: &Path,
    delivered: &Pristine,
    rules: &Rules,
    mount_points: &[PathBuf],
) -> Result<Plan> {
    let mut ignored = Vec::new();
    for pattern in NOT_LOOKED_AT {
        ignored.push(Glob::new(pattern)?);
    }
    for point in mount_points.iter().filter(|point| *point != Path::new("/")) {
        ignored.push(Glob::new(&escape(point))?);
    }
    let mut items: BTreeMap<PathBuf, Item> = BTreeMap::new();
    for change in changes(delivered, root, &ignored)? {
        let item = decide(root, rules, change);
        items.extend(item.map(|item| (item.path.clone(), item)));
    }
    for path in pinned(root, rules)? {
        items.entry(path.clone()).or_insert_with(|| Item {
            rule: rules.of(&path).map(|rule| rule.name.clone()),
            action: Action::Keep,
            change: None,
            path,
        });
    }
    Ok(Plan {
        format: 1,
        knows_contents: delivered.tree().is_some(),
        items: items.into_values().collect(),
    })
}

/// Writes a path as a pattern that only it matches.
fn escape(path: &Path) -> String {
    let text = path.to_string_lossy();
    let special = |c: char| "*?[]\\".contains(c);
    let escaped = text.chars().flat_map(|c| {
        let backslash = special(c).then_some('\\');
        backslash.into_iter().chain([c])
    });
    escaped.collect()
}

fn decide(root: &Path, rules: &Rules, change: Change) -> Option<Item> {
    let place = root.join(&change.path);
    let is_dir = place.symlink_metadata().is_ok_and(|meta| meta.is_dir());
    let rule = rules.of(&change.path);
    let action = match (rule.map(|rule| rule.way), change.what) {
        // What is in it is listed by itself.
        (None, _) if is_dir => return None,
        // Of a program that was deleted there is nothing to keep.
        (None, What::Deleted) if !change.path.starts_with("etc") => return None,
        (None, _) => Action::Unknown,
        (Some(Way::Drop), _) => Action::Drop,
        (Some(Way::Accounts), _) => Action::Accounts,
        (Some(_), What::Deleted) => Action::Delete,
        _ if rule.is_some_and(|rule| rule.links == Links::Skip) && place.is_symlink() => {
            Action::Drop
        }
        (Some(Way::Merge), _) if place.is_file() && !place.is_symlink() => Action::Merge,
        (Some(Way::Transform), _) if place.is_file() && !place.is_symlink() => Action::Transform,
        (Some(_), _) => Action::Keep,
    };
    Some(Item {
        rule: rule.map(|rule| rule.name.clone()),
        path: change.path,
        change: Some(change.what),
        action,
    })
}

/// Lists the settings that stay the customer's although they are as delivered.
fn pinned(root: &Path, rules: &Rules) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let etc = root.join("etc");
    walk_running(&etc, &[], &mut |entry| {
        let path = Path::new("etc").join(std::ffi::OsStr::from_bytes(entry.path));
        let is_pinned = |rule: &super::rules::Rule| {
            let is_skipped = rule.links == Links::Skip && root.join(&path).is_symlink();
            rule.way == Way::Pin && !is_skipped
        };
        if rules.of(&path).is_some_and(is_pinned) {
            found.push(path);
        }
        Ok(())
    })?;
    Ok(found)
}

impl Plan {
    /// Lists the paths with which `action` is done.
    pub fn with(&self, action: Action) -> impl Iterator<Item = &Item> {
        self.items.iter().filter(move |item| item.action == action)
    }

    /// Lists what comes over.
    pub fn carried(&self) -> impl Iterator<Item = &Item> {
        let is_left = |action| matches!(action, Action::Drop | Action::Unknown);
        self.items.iter().filter(move |item| !is_left(item.action))
    }

    /// Renders the plan for people: a line for each rule with some of its paths, and
    /// one for each path that no rule knows, as long as these fit on a screen.
    pub fn text(&self) -> String {
        const OF_A_RULE: usize = 4;
        const UNKNOWN: usize = 20;
        let mut groups: BTreeMap<(Action, &str), Vec<&Path>> = BTreeMap::new();
        for item in &self.items {
            let rule = item.rule.as_deref().unwrap_or("no rule");
            groups
                .entry((item.action, rule))
                .or_default()
                .push(&item.path);
        }
        let mut text = String::new();
        for ((action, rule), paths) in groups.iter().filter(|((a, _), _)| *a != Action::Drop) {
            let (most, between) = match action {
                Action::Unknown => (UNKNOWN, "\n                            "),
                _ => (OF_A_RULE, ", "),
            };
            let shown = paths.iter().take(most);
            let mut names: Vec<String> = shown
                .map(|path| format!("/{}", show_whole(path.as_os_str().as_bytes())))
                .collect();
            if let Some(more @ 1..) = paths.len().checked_sub(most) {
                names.push(format!("and {more} more (--json lists all)"));
            }
            let word = action.word();
            let _ = writeln!(text, "{word:<9}  {rule:<15}  {}", names.join(between));
        }
        if !self.knows_contents {
            text += "This system never came from a bundle: what was delivered is known by name only, \
                     so the customer's value wins where both have one.\n";
        }
        text
    }
}

impl Action {
    /// Returns the word for it.
    pub fn word(self) -> &'static str {
        match self {
            Action::Keep => "keep",
            Action::Merge => "merge",
            Action::Transform => "transform",
            Action::Accounts => "accounts",
            Action::Delete => "delete",
            Action::Drop => "drop",
            Action::Unknown => "unknown",
        }
    }
}
