//! What is written down about a system: its release record inside the slot and
//! its slot record on `/boot`.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::config::Config;
use crate::system::files;

/// Where a slot's release record is, inside the slot.
pub const RELEASE_FILE: &str = "/etc/va-upgrade/release.yaml";

/// The largest record that is read, in bytes.
const MAX_BYTES: u64 = 64 << 10;

/// A slot's product and version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseRecord {
    /// The product; `None` when it was never said.
    pub product: Option<String>,
    /// The version.
    pub version: String,
}

impl ReleaseRecord {
    /// Returns the running system's product and version: from its record, else
    /// from the settings, else the version from os-release.
    ///
    /// # Errors
    /// When a record is there and cannot be read.
    pub fn of_running(config: &Config) -> Result<ReleaseRecord> {
        let path = config.at(RELEASE_FILE);
        if path.exists() {
            return read_yaml(&path);
        }
        let version = match &config.version {
            Some(version) => version.clone(),
            None => os_version(config).context("finding the version of the running system")?,
        };
        Ok(ReleaseRecord {
            product: config.product.clone(),
            version,
        })
    }
}

fn os_version(config: &Config) -> Result<String> {
    let text = ["/etc/os-release", "/usr/lib/os-release"]
        .iter()
        .find_map(|path| fs::read_to_string(config.at(path)).ok())
        .context("there is no os-release; set version in config.yaml")?;
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_ID="));
    let version = value.map(|v| v.trim_matches(['"', '\''])).unwrap_or("0");
    Ok(version.to_owned())
}

/// What a slot's directory on `/boot` holds, and of which system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotRecord {
    /// The version of the system in the slot.
    pub version: String,
    /// The kernel's release, as `uname -r` prints it.
    pub kernel: String,
    /// The boot files with their digests.
    pub files: Vec<BootFile>,
}

/// A file in a slot's directory on `/boot`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootFile {
    /// Its name in the directory.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its SHA-256, in hexadecimal.
    pub sha256: String,
}

impl SlotRecord {
    /// The record's name in a slot's directory on `/boot`.
    pub const FILE: &'static str = "slot.yaml";

    /// Loads the record in `dir`; `None` when there is none.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub fn load(dir: &Path) -> Result<Option<SlotRecord>> {
        let path = dir.join(SlotRecord::FILE);
        if path.exists() {
            read_yaml(&path).map(Some)
        } else {
            Ok(None)
        }
    }

    /// Writes the record into `dir`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, dir: &Path) -> Result<()> {
        let text = serde_yaml::to_string(self).context("rendering a slot record")?;
        files::write_atomic(&dir.join(SlotRecord::FILE), text.as_bytes(), 0o644)
    }

    /// Returns what is wrong with the files in `dir`, compared with the record:
    /// their presence and size, and with `deep` their digests.
    pub fn faults(&self, dir: &Path, deep: bool) -> Vec<String> {
        let mut faults = Vec::new();
        for file in &self.files {
            let path = dir.join(&file.name);
            match path.metadata() {
                Err(error) => faults.push(format!("{}: {error}", path.display())),
                Ok(meta) if meta.len() != file.size => {
                    faults.push(format!(
                        "{} has {} bytes, not {}",
                        path.display(),
                        meta.len(),
                        file.size
                    ));
                }
                Ok(_) if deep && sha256_file(&path).ok().as_deref() != Some(&file.sha256) => {
                    faults.push(format!("{} is not what was written", path.display()));
                }
                Ok(_) => {}
            }
        }
        faults
    }
}

/// Reads a small YAML record.
///
/// # Errors
/// When it is not there, too large or not of the wanted shape.
pub fn read_yaml<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    let read = || -> Result<T> {
        let size = path.metadata()?.len();
        anyhow::ensure!(
            size <= MAX_BYTES,
            "it has {size} bytes, a record has at most {MAX_BYTES}"
        );
        Ok(serde_yaml::from_str(&fs::read_to_string(path)?)?)
    };
    read().with_context(|| format!("reading {}", path.display()))
}

/// Returns the SHA-256 of a file, in hexadecimal.
///
/// # Errors
/// When it cannot be read.
pub fn sha256_file(path: &Path) -> Result<String> {
    let mut hasher = Sha256::new();
    let mut file = fs::File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        let n = std::io::Read::read(&mut file, &mut buffer)
            .with_context(|| format!("reading {}", path.display()))?;
        if n == 0 {
            break;
        }
        hasher.update(&buffer[..n]);
    }
    Ok(hex(&hasher.finalize()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_short_or_changed_boot_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("vmlinuz"), "kernel").unwrap();
        let sha256 = sha256_file(&dir.path().join("vmlinuz")).unwrap();
        let file = BootFile {
            name: "vmlinuz".into(),
            size: 6,
            sha256,
        };
        let record = SlotRecord {
            version: "1".into(),
            kernel: "6".into(),
            files: vec![file],
        };
        record.save(dir.path()).unwrap();
        assert_eq!(SlotRecord::load(dir.path()).unwrap(), Some(record.clone()));
        assert!(record.faults(dir.path(), true).is_empty());
        fs::write(dir.path().join("vmlinuz"), "kernal").unwrap();
        assert!(record.faults(dir.path(), false).is_empty());
        assert_eq!(record.faults(dir.path(), true).len(), 1);
        fs::remove_file(dir.path().join("vmlinuz")).unwrap();
        assert!(record.faults(dir.path(), false)[0].contains("vmlinuz"));
    }

    #[test]
    fn an_appliance_without_a_record_is_known_by_its_settings_or_os_release() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("etc/va-upgrade")).unwrap();
        fs::write(
            dir.path().join("etc/os-release"),
            "ID=centos\nVERSION_ID=\"7\"\n",
        )
        .unwrap();
        let config = Config::default().with_sysroot(dir.path());
        let unknown = ReleaseRecord {
            product: None,
            version: "7".into(),
        };
        assert_eq!(ReleaseRecord::of_running(&config).unwrap(), unknown);
        fs::write(config.at(RELEASE_FILE), "product: acme\nversion: 9.4.1\n").unwrap();
        let known = ReleaseRecord {
            product: Some("acme".into()),
            version: "9.4.1".into(),
        };
        assert_eq!(ReleaseRecord::of_running(&config).unwrap(), known);
    }
}
