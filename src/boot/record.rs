//! What is written down about a slot's directory on `/boot`.

use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::sha::Sha;
use crate::system::files::{self, read_yaml};

/// What a slot's directory on `/boot` holds, and of which system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotRecord {
    /// The version of the system in the slot.
    pub version: String,
    /// The kernel's release, as `uname -r` prints it.
    pub kernel: String,
    /// The boot files with their digests, the kernel and the initramfs first.
    pub files: Vec<BootFile>,
    /// The kernel's arguments; none in the record of an older program.
    #[serde(default)]
    pub args: Vec<String>,
    /// What kernel and initramfs were copied from; unknown in such a record.
    #[serde(default)]
    pub source: Option<Source>,
}

/// A kernel and its initramfs as the system's packages made them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// The SHA-256 of the kernel.
    pub kernel: Sha,
    /// The SHA-256 of the initramfs.
    pub initramfs: Sha,
}

impl Source {
    /// Digests the two files.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn of(kernel: &Path, initramfs: &Path) -> Result<Source> {
        Ok(Source {
            kernel: Sha::of_file(kernel)?,
            initramfs: Sha::of_file(initramfs)?,
        })
    }

    /// Returns a short word that no other pair has.
    pub fn id(&self) -> String {
        let of_both = Sha::of(format!("{}{}", self.kernel, self.initramfs).as_bytes());
        of_both.to_string()[..12].to_owned()
    }
}

/// A file in a slot's directory on `/boot`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootFile {
    /// Its name in the directory.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its SHA-256.
    pub sha256: Sha,
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
                Ok(_) if deep && Sha::of_file(&path).ok() != Some(file.sha256) => {
                    faults.push(format!("{} is not what was written", path.display()));
                }
                Ok(_) => {}
            }
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_missing_short_or_changed_boot_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("vmlinuz"), "kernel").unwrap();
        let sha256 = Sha::of_file(&dir.path().join("vmlinuz")).unwrap();
        let file = BootFile {
            name: "vmlinuz".into(),
            size: 6,
            sha256,
        };
        let record = SlotRecord {
            version: "1".into(),
            kernel: "6".into(),
            files: vec![file],
            args: Vec::new(),
            source: None,
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
}
