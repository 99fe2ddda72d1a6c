//! The appliance's settings.

pub mod amount;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result, bail, ensure};
use serde::Deserialize;

use self::amount::Amount;
use crate::failure::{Class, Classify};
use crate::input;
use crate::linux::device_mapper;
use crate::paths::CONFIG_FILE;
use crate::report::Policy;
use crate::slot::Slot;
use crate::yaml::{self, Shape};

/// The largest settings file accepted.
const MAX_BYTES: u64 = 256 << 10;

/// What `report` compares.
pub const REPORTED: [&str; 12] = [
    "account",
    "card",
    "certificate",
    "host name",
    "listener",
    "mount",
    "mtu",
    "name server",
    "network",
    "route",
    "time",
    "unit",
];

/// What `/etc/va-upgrade/config.yaml` may say; docs/interface.md tells the defaults.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The product of an appliance that has no release record yet.
    pub product: Option<String>,
    /// The version of an appliance that has no release record yet.
    pub version: Option<String>,
    /// The LVM volume group.
    pub vg: String,
    /// The logical volumes in it.
    pub volumes: Volumes,
    /// The disk GRUB starts from; found from the volume group when absent.
    pub disk: Option<PathBuf>,
    /// How often a trial slot may be started before it counts as failed, 1 to 9.
    pub tries: u8,
    /// Seconds a trial slot has from its start until it must be confirmed.
    pub deadline_seconds: u64,
    /// Seconds one health check may take.
    pub health_seconds: u64,
    /// What becomes of what a check before an upgrade finds wrong, by its name.
    pub checks: BTreeMap<String, Policy>,
    /// What becomes of what is worse in a trial than before, by subject of `report`.
    pub report: BTreeMap<String, Policy>,
    /// Files with a certificate whose validity `report` looks at, beside those that
    /// the settings of well-known servers name.
    pub certificates: Vec<PathBuf>,
    /// Days before its end from which on a certificate is warned of.
    pub certificate_days: u64,
    /// Who keeps a trial that is healthy.
    pub confirm_by: ConfirmBy,
    /// Minutes a person has to confirm a healthy trial, 1 to 10080.
    pub confirm_minutes: u64,
    /// How large the volumes are that `migrate` makes.
    pub layout: Layout,
    /// What each volume takes of free disk space when it is asked to, by its name.
    pub grow: BTreeMap<String, Amount>,
}

/// The sizes of what `migrate` makes; a volume of no size is not made. Shares are of
/// what the volume group has.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct Layout {
    /// The partition `/boot`, in bytes.
    pub boot: Amount,
    /// Each of the two slots, where the disk is made anew; more where a release needs it.
    pub slots: Amount,
    /// Data shared by both systems.
    pub data: Amount,
    /// Container images.
    pub image: Amount,
}

impl Default for Layout {
    fn default() -> Layout {
        Layout {
            boot: Amount::Bytes(1 << 30),
            slots: Amount::Percent(25),
            data: Amount::Bytes(512 << 20),
            image: Amount::Bytes(0),
        }
    }
}

/// Who confirms a trial once it is healthy.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum ConfirmBy {
    /// The boot service.
    #[default]
    Service,
    /// A person.
    Operator,
}

/// The names of the logical volumes.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct Volumes {
    /// The slot `root`.
    pub root: String,
    /// The slot `back`.
    pub back: String,
    /// Data shared by both systems.
    pub data: String,
    /// Container images.
    pub image: String,
}

impl Default for Volumes {
    fn default() -> Volumes {
        Volumes {
            root: "root".into(),
            back: "back".into(),
            data: "data".into(),
            image: "image".into(),
        }
    }
}

impl Default for Config {
    fn default() -> Config {
        Config {
            product: None,
            version: None,
            vg: "VA".into(),
            volumes: Volumes::default(),
            disk: None,
            tries: 3,
            deadline_seconds: 600,
            health_seconds: 60,
            checks: BTreeMap::new(),
            report: BTreeMap::new(),
            certificates: Vec::new(),
            certificate_days: 14,
            confirm_by: ConfirmBy::Service,
            confirm_minutes: 30,
            layout: Layout::default(),
            grow: BTreeMap::new(),
        }
    }
}

impl Config {
    /// Loads the settings from `file`, or from the default place, which may be absent.
    ///
    /// # Errors
    /// Class [`Class::Usage`] when the file cannot be read or says something unknown.
    pub fn load(file: Option<&Path>) -> Result<Config> {
        let path = file.unwrap_or(Path::new(CONFIG_FILE));
        let is_absent = |error: &Error| {
            let cause = error.downcast_ref::<io::Error>();
            cause.is_some_and(|e| e.kind() == io::ErrorKind::NotFound)
        };
        let text = match input::read_text(path, MAX_BYTES) {
            Err(error) if file.is_none() && is_absent(&error) => return Ok(Config::default()),
            other => other
                .with_context(|| format!("reading {}", path.display()))
                .class(Class::Usage)?,
        };
        Config::parse(&text)
            .with_context(|| format!("reading {}", path.display()))
            .class(Class::Usage)
    }

    /// Parses the text of a settings file; an empty one gives the defaults.
    ///
    /// # Errors
    /// When a field is unknown or out of its range.
    pub fn parse(text: &str) -> Result<Config> {
        let config: Config = match yaml::shape(text)? {
            Shape::Empty => Config::default(),
            Shape::Mapping => yaml::parse(text)?,
            // What was not expected would be quoted, a secret given by mistake.
            Shape::Sequence | Shape::Scalar => {
                bail!("it holds no settings; it needs lines such as `tries: 3`")
            }
        };
        ensure!(
            (1..=9).contains(&config.tries),
            "tries is {}, not 1 to 9",
            config.tries
        );
        ensure!(
            config.deadline_seconds >= 10,
            "deadline_seconds is {}, below 10",
            config.deadline_seconds
        );
        ensure!(
            config.health_seconds >= 1,
            "health_seconds is 0; give a check at least 1 second"
        );
        for subject in config.report.keys() {
            ensure!(
                REPORTED.contains(&&subject[..]),
                "report names {subject:?}, which is none of {}",
                REPORTED.join(", ")
            );
        }
        ensure!(
            config.certificate_days <= 3650,
            "certificate_days is {}, more than 3650",
            config.certificate_days
        );
        ensure!(
            (1..=10_080).contains(&config.confirm_minutes),
            "confirm_minutes is {}, not 1 to 10080",
            config.confirm_minutes
        );
        let Volumes {
            root,
            back,
            data,
            image,
        } = &config.volumes;
        let names = [&config.vg, root, back, data, image];
        for name in names.into_iter().chain(config.grow.keys()) {
            // lvm(8): names of groups and volumes.
            let legal = |c: char| c.is_ascii_alphanumeric() || "+_.-".contains(c);
            ensure!(
                !name.is_empty()
                    && !name.starts_with('-')
                    && !name.starts_with('.')
                    && name.chars().all(legal),
                "{name:?} is not a name LVM allows"
            );
        }
        ensure!(root != back, "both slots are the volume {root:?}");
        Ok(config)
    }

    /// Returns the name of the volume that is `slot`.
    pub fn volume(&self, slot: Slot) -> &str {
        match slot {
            Slot::Root => &self.volumes.root,
            Slot::Back => &self.volumes.back,
        }
    }

    /// Returns the device of a slot as commands and `status` name it.
    pub fn device(&self, slot: Slot) -> PathBuf {
        PathBuf::from(format!("/dev/{}/{}", self.vg, self.volume(slot)))
    }

    /// Returns the device of a slot as the kernel and fstab name it.
    pub fn mapped_device(&self, slot: Slot) -> PathBuf {
        device_mapper::path(&self.vg, self.volume(slot))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_example_is_the_default() {
        let example = include_str!("../packaging/config.yaml");
        assert_eq!(Config::parse(example).unwrap(), Config::default());
        let uncommented: String = example
            .lines()
            .filter_map(|l| l.strip_prefix('#'))
            .filter(|l| !l.starts_with(' '))
            .fold(String::new(), |text, line| text + line + "\n");
        assert_eq!(Config::parse(&uncommented).unwrap(), Config::default());
    }

    #[test]
    fn what_holds_no_settings_is_refused_and_not_quoted() {
        for text in [
            "hunter2",
            "- hunter2",
            "-----BEGIN PRIVATE KEY-----\nhunter2",
        ] {
            let error = format!("{:#}", Config::parse(text).unwrap_err());
            assert!(!error.contains("hunter2"), "{error}");
        }
        assert_eq!(Config::parse("# none\n").unwrap(), Config::default());
    }

    #[test]
    fn unknown_fields_and_bad_values_are_refused_by_name() {
        for (text, word) in [
            ("vgs: X", "vgs"),
            ("tries: 0", "tries"),
            ("vg: 'a/b'", "a/b"),
            ("deadline_seconds: 1", "deadline_seconds"),
            ("confirm_by: nobody", "nobody"),
            ("confirm_minutes: 0", "confirm_minutes"),
            ("report: {weather: warn}", "weather"),
            ("certificate_days: 9999", "certificate_days"),
            ("volumes: {root: x, back: x}", "both slots"),
            ("grow: {data: 5}", "5M"),
            ("grow: {'a/b': 50%}", "a/b"),
            ("layout: {data: 0%}", "0%"),
            ("layout: {slots: 0%}", "0%"),
            ("layout: {swap: 1G}", "swap"),
        ] {
            let error = format!("{:#}", Config::parse(text).unwrap_err());
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
