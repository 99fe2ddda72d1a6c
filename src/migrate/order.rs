//! What the old system asks of the migration environment: one record, written when
//! the move is prepared and read before anything is done.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::disk::Disk;
use crate::sha::Sha;
use crate::system::files;

/// The version of the record.
const FORMAT: u32 = 1;

/// The largest record that is read, in bytes.
const MAX_BYTES: u64 = 64 << 10;

/// What the environment is started for.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The disk is made anew.
    Migrate,
    /// All but that is done, then the old system starts again.
    Rehearse,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::Migrate => "the move to two slots",
            Mode::Rehearse => "a rehearsal of the move to two slots",
        })
    }
}

/// The order.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Order {
    /// The version of this record.
    pub format: u32,
    /// What is to be done.
    pub mode: Mode,
    /// The new system.
    pub bundle: BundleFile,
    /// What of the customer's comes over.
    pub settings: SettingsFile,
    /// The disk that is made anew.
    pub disk: Disk,
    /// What became of it.
    pub log: LogFile,
    /// When it was written, in seconds since 1970.
    pub created: u64,
}

/// The bundle, a file of the old system.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct BundleFile {
    /// The UUID of the file system that holds it, the settings and the log.
    pub file_system: String,
    /// Where it is in that.
    pub path: PathBuf,
    /// Its size.
    pub size_bytes: u64,
    /// Its digest.
    pub sha256: Sha,
}

/// The archive of settings, beside the bundle.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SettingsFile {
    /// Where it is in the bundle's file system.
    pub path: PathBuf,
    /// Its size.
    pub size_bytes: u64,
    /// Its digest.
    pub sha256: Sha,
}

/// Where the environment leaves what became of the order.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct LogFile {
    /// Where it is in the bundle's file system.
    pub path: PathBuf,
}

impl Order {
    /// Starts an order of this version.
    pub const FORMAT: u32 = FORMAT;

    /// Writes the order to `path`, whole.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        files::write_atomic(path, text.as_bytes(), 0o600)
    }

    /// Reads the order in `path`.
    ///
    /// # Errors
    /// When it is not there, too large, of another version or leads out of its file
    /// system.
    pub fn load(path: &Path) -> Result<Order> {
        let read = || -> Result<Order> {
            let mut text = String::new();
            let size = File::open(path)?
                .take(MAX_BYTES + 1)
                .read_to_string(&mut text)? as u64;
            ensure!(size <= MAX_BYTES, "it has more than {MAX_BYTES} bytes");
            Order::parse(&text)
        };
        read().with_context(|| format!("reading {}", path.display()))
    }

    fn parse(text: &str) -> Result<Order> {
        let order: Order = serde_json::from_str(text)?;
        ensure!(
            order.format == FORMAT,
            "it is of version {}, not {FORMAT}",
            order.format
        );
        for path in [&order.bundle.path, &order.settings.path, &order.log.path] {
            ensure!(is_inside(path), "{} leads elsewhere", path.display());
        }
        Ok(order)
    }
}

/// Tells whether `path` is below the directory it is read from.
fn is_inside(path: &Path) -> bool {
    use std::path::Component;
    let mut parts = path.components();
    parts.next() == Some(Component::RootDir)
        && parts.clone().next().is_some()
        && parts.all(|part| matches!(part, Component::Normal(_)))
}

#[cfg(test)]
pub mod tests {
    //! An order as it may be, for these tests and others.

    use super::*;
    use crate::migrate::disk::Table;

    /// Returns an order as it may be.
    pub fn order() -> Order {
        Order {
            format: Order::FORMAT,
            mode: Mode::Rehearse,
            bundle: BundleFile {
                file_system: "0b1c2d3e-0000-4000-8000-000000000001".into(),
                path: "/root/release.vab".into(),
                size_bytes: 1 << 30,
                sha256: Sha::of(b"bundle"),
            },
            settings: SettingsFile {
                path: "/root/release.vab.settings".into(),
                size_bytes: 4096,
                sha256: Sha::of(b"settings"),
            },
            disk: Disk {
                size_bytes: 8 << 30,
                logical_sector_bytes: 512,
                serial: None,
                table: Table::Mbr,
                id: "deadbeef".into(),
            },
            log: LogFile {
                path: "/root/release.vab.log".into(),
            },
            created: 1_700_000_000,
        }
    }

    #[test]
    fn an_order_reads_back_as_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("order.json");
        order().save(&path).unwrap();
        assert_eq!(Order::load(&path).unwrap(), order());
    }

    #[test]
    fn what_is_not_understood_is_not_followed() {
        let text = serde_json::to_string(&order()).unwrap();
        for (from, to, word) in [
            ("\"format\":1", "\"format\":2", "version 2"),
            ("\"mode\"", "\"more\":1,\"mode\"", "more"),
            ("rehearse", "destroy", "destroy"),
            ("\"/root/release.vab\"", "\"/root/../x\"", "elsewhere"),
            ("\"/root/release.vab\"", "\"x\"", "elsewhere"),
            ("\"/root/release.vab.log\"", "\"/\"", "elsewhere"),
            ("\"mbr\"", "\"bsd\"", "bsd"),
        ] {
            let changed = text.replace(from, to);
            assert_ne!(changed, text, "{from}");
            let error = format!("{:#}", Order::parse(&changed).unwrap_err());
            assert!(error.contains(word), "{from}: {error}");
        }
    }
}
