//! Rules by which the customer's files are carried: data, from three sides.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::appliance::pristine::Pristine;
use crate::input;
use crate::merge::Format;
use crate::tree::glob::Glob;
use crate::tree::resolve;
use crate::yaml;

/// The product's own rules.
const BUILTIN: &str = include_str!("../../packaging/sync.yaml");

/// Where rules of a release or an operator are, relative to the root.
pub const DIR: &str = "etc/va-upgrade/sync.d";

/// The most that is read of one file of rules, in bytes.
const MAX_BYTES: u64 = 256 << 10;
/// The most files of rules of one side.
const MAX_FILES: usize = 100;

/// How a path is carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// The customer's takes the place of the image's.
    Copy,
    /// The same, also where the customer left it as it was delivered.
    Pin,
    /// What the customer and what the release changed are both kept.
    Merge,
    /// Entry by entry, with the other files of accounts.
    Accounts,
    /// By a program of the new system.
    Transform,
    /// Not at all.
    Drop,
}

/// What becomes of a setting that both sides changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnConflict {
    /// The customer's stays, the other one is told of.
    #[default]
    Keep,
    /// The upgrade is refused.
    Refuse,
}

/// What becomes of symbolic links of the customer's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Links {
    /// They are carried like files.
    #[default]
    Keep,
    /// The image's own stays.
    Skip,
}

/// One rule.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Its name, for people.
    pub name: String,
    /// Which paths it is for, as patterns from the root.
    paths: Vec<String>,
    /// How they are carried.
    pub way: Way,
    /// How they are written, for `merge`; told from the name when absent.
    pub format: Option<Format>,
    /// The keys that are carried, for `merge`; all when empty.
    #[serde(default)]
    pub only: Vec<String>,
    /// The program of the new system, for `transform`.
    pub run: Option<PathBuf>,
    /// A command of the new system that finds nothing wrong with what was carried.
    #[serde(default)]
    pub check: Vec<String>,
    /// A command of the new system that makes something of what was carried.
    #[serde(default)]
    pub then: Vec<String>,
    /// What becomes of conflicts.
    #[serde(default)]
    pub on_conflict: OnConflict,
    /// What becomes of links.
    #[serde(default)]
    pub links: Links,
    /// Whether files become root's, for nobody else to read.
    #[serde(default)]
    pub private: bool,
    /// Why, for people.
    pub why: Option<String>,
    #[serde(skip)]
    patterns: Vec<Pattern>,
}

/// A compiled pattern, with what every path begins with that it matches: most paths
/// are for most patterns told apart by that.
#[derive(Clone, Debug)]
struct Pattern {
    start: Vec<u8>,
    glob: Glob,
}

impl Pattern {
    fn new(pattern: &str) -> Result<Pattern> {
        let start = pattern.trim_start_matches('/');
        let start = start
            .split(['*', '?', '[', '\\'])
            .next()
            .unwrap_or_default();
        Ok(Pattern {
            start: start.as_bytes().to_vec(),
            glob: Glob::new(pattern)?,
        })
    }

    fn matches(&self, path: &[u8]) -> bool {
        path.starts_with(&self.start) && self.glob.matches(path)
    }
}

impl Rule {
    /// Tells whether it is for `path`, relative to the root.
    pub fn is_for(&self, path: &Path) -> bool {
        let path = path.as_os_str().as_bytes();
        self.patterns.iter().any(|pattern| pattern.matches(path))
    }

    fn compile(&mut self) -> Result<()> {
        ensure!(!self.paths.is_empty(), "it names no paths");
        ensure!(
            (self.way == Way::Transform) == self.run.is_some(),
            "`run` belongs to `way: transform`, and the other way round"
        );
        for pattern in &self.paths {
            ensure!(
                pattern.starts_with('/'),
                "{pattern:?} does not begin with /"
            );
            self.patterns.push(Pattern::new(pattern)?);
        }
        Ok(())
    }
}

/// What becomes of the ids of files on the data volume once a system is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileIds {
    /// They become those that the accounts have there.
    Follow,
    /// They stay.
    Keep,
}

/// A rule for directories of the data volume, with all that is in them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataRule {
    /// The directories, from the root of the volume.
    data: Vec<PathBuf>,
    /// What becomes of the ids.
    ids: FileIds,
    /// Why, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

impl DataRule {
    /// Tells whether the ids become those of the accounts.
    pub fn follows(&self) -> bool {
        self.ids == FileIds::Follow
    }

    /// Lists the directories, relative to the volume.
    pub fn dirs(&self) -> impl Iterator<Item = &Path> {
        self.data
            .iter()
            .map(|dir| dir.strip_prefix("/").unwrap_or(dir))
    }

    /// Tells whether it is for `path`, relative to the volume.
    pub fn is_for(&self, path: &Path) -> bool {
        self.dirs().any(|dir| path.starts_with(dir))
    }

    fn check(&self) -> Result<()> {
        ensure!(!self.data.is_empty(), "it names no directories");
        for dir in &self.data {
            let is_plain = dir
                .components()
                .all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
            ensure!(
                dir.is_absolute() && is_plain,
                "{} is no path from the root of the data volume",
                dir.display()
            );
        }
        Ok(())
    }
}

/// All rules of one upgrade; the first one for a path counts.
pub struct Rules {
    rules: Vec<Rule>,
    data: Vec<DataRule>,
}

impl Rules {
    /// Joins the rules of the running system at `from` that are not as its release
    /// delivered them, those of the new release at `to`, and the product's own.
    ///
    /// # Errors
    /// When one cannot be read, by the name of its file.
    pub fn load(from: &Path, delivered: &Pristine, to: Option<&Path>) -> Result<Rules> {
        let mut all = Rules {
            rules: Vec::new(),
            data: Vec::new(),
        };
        for path in files(from)? {
            let own = Path::new(DIR).join(path.file_name().unwrap_or_default());
            let text = read(&path)?;
            if delivered.content(&own)?.as_deref() != Some(text.as_bytes()) {
                all.extend(&path.display().to_string(), &text)?;
            }
        }
        for path in to.map_or_else(|| Ok(Vec::new()), files)? {
            all.extend(&path.display().to_string(), &read(&path)?)?;
        }
        all.extend("the built-in rules", BUILTIN)?;
        Ok(all)
    }

    /// Parses the text of a file of rules; `label` names it in messages.
    fn extend(&mut self, label: &str, text: &str) -> Result<()> {
        let found: Option<Vec<serde_yaml::Value>> =
            yaml::parse(text).with_context(|| format!("reading {label}"))?;
        for value in found.unwrap_or_default() {
            if value.get("data").is_some() {
                let rule: DataRule =
                    serde_yaml::from_value(value).with_context(|| format!("reading {label}"))?;
                rule.check()
                    .with_context(|| format!("reading a rule for data of {label}"))?;
                self.data.push(rule);
                continue;
            }
            let mut rule: Rule =
                serde_yaml::from_value(value).with_context(|| format!("reading {label}"))?;
            let name = rule.name.clone();
            rule.compile()
                .with_context(|| format!("reading rule {name:?} of {label}"))?;
            self.rules.push(rule);
        }
        Ok(())
    }

    /// Returns how many there are.
    pub fn count(&self) -> usize {
        self.rules.len() + self.data.len()
    }

    /// Returns those for the data volume; the first one for a path counts.
    pub fn into_data(self) -> Vec<DataRule> {
        self.data
    }

    /// Returns the rule for `path`, relative to the root.
    pub fn of(&self, path: &Path) -> Option<&Rule> {
        self.rules.iter().find(|rule| rule.is_for(path))
    }

    /// Returns the rule called `name`.
    pub fn named(&self, name: &str) -> Option<&Rule> {
        self.rules.iter().find(|rule| rule.name == name)
    }
}

fn files(root: &Path) -> Result<Vec<PathBuf>> {
    let Some(dir) = resolve::resolve(root, Path::new(DIR))?.map(|dir| root.join(dir)) else {
        return Ok(Vec::new());
    };
    let listed = fs::read_dir(&dir).with_context(|| format!("listing {}", dir.display()))?;
    let mut paths = Vec::new();
    for entry in listed {
        let path = entry?.path();
        let is_rules = path
            .extension()
            .is_some_and(|extension| extension == "yaml");
        if is_rules && path.is_file() {
            paths.push(path);
        }
    }
    let count = paths.len();
    ensure!(
        count <= MAX_FILES,
        "{} holds {count} files of rules, more than {MAX_FILES}",
        dir.display()
    );
    paths.sort();
    Ok(paths)
}

fn read(path: &Path) -> Result<String> {
    let read = || -> Result<String> {
        let (text, _) = input::read_file(path, MAX_BYTES)?;
        Ok(text)
    };
    read().with_context(|| format!("reading {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(label: &str, text: &str) -> Result<Rules> {
        let mut rules = Rules {
            rules: Vec::new(),
            data: Vec::new(),
        };
        rules.extend(label, text).map(|()| rules)
    }

    fn builtin() -> Rules {
        parse("the built-in rules", BUILTIN).unwrap()
    }

    #[test]
    fn the_built_in_rules_know_what_an_appliance_has() {
        let rules = builtin();
        for (path, rule) in [
            ("etc/hostname", "identity"),
            ("etc/ssh/ssh_host_ed25519_key", "host-keys"),
            ("etc/ssh/ssh_host_ed25519_key.pub", "identity"),
            ("etc/ssh/sshd_config", "sshd"),
            ("etc/ssh/sshd_config.d/50-own.conf", "sshd"),
            ("etc/shadow", "accounts"),
            ("etc/shadow-", "volatile"),
            ("home/admin/.ssh/authorized_keys", "homes"),
            ("root/.ssh/authorized_keys", "homes"),
            (
                "etc/NetworkManager/system-connections/lan.nmconnection",
                "network",
            ),
            ("etc/sysconfig/network-scripts/ifcfg-eth0", "network"),
            ("etc/systemd/network/10-va-eth0.link", "own-files"),
            ("etc/pam.d/sshd", "old-system"),
            ("etc/lvm/lvm.conf", "old-system"),
            ("etc/cron.d/backup", "schedules"),
            ("etc/crontab", "schedules"),
            ("var/log/messages", "volatile"),
            ("etc/pki/tls/private/server.key", "certificates"),
        ] {
            let found = rules.of(Path::new(path)).map(|rule| &rule.name[..]);
            assert_eq!(found, Some(rule), "{path}");
        }
        assert!(rules.of(Path::new("etc/app/own.conf")).is_none());
    }

    #[test]
    fn a_rule_that_says_nothing_sane_is_refused_with_its_name() {
        for (text, words) in [
            ("- {name: a, way: copy, paths: []}", "it names no paths"),
            (
                "- {name: a, way: copy, paths: [etc/x]}",
                "does not begin with /",
            ),
            ("- {name: a, way: transform, paths: [/x]}", "`run` belongs"),
            ("- {name: a, way: move, paths: [/x]}", "unknown variant"),
            ("- {name: a, way: copy, paths: [/x], z: 1}", "unknown field"),
            ("- {data: [/x]}", "ids"),
            ("- {data: [], ids: follow}", "it names no directories"),
            ("- {data: [/x/../y], ids: follow}", "no path from the root"),
            ("- {data: [x], ids: follow}", "no path from the root"),
        ] {
            let error = format!("{:#}", parse("own.yaml", text).err().unwrap());
            assert!(
                error.contains("own.yaml") && error.contains(words),
                "{error}"
            );
        }
        assert_eq!(parse("own.yaml", "").unwrap().count(), 0);
        let text = "- {data: [/srv/app, /home], ids: follow, why: people}\n";
        let data = parse("own.yaml", text).unwrap().into_data();
        assert!(data[0].is_for(Path::new("srv/app/x")) && !data[0].is_for(Path::new("srv/apple")));
    }
}
