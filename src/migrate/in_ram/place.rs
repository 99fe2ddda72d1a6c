//! Where GRUB's directory is, and what is in ours inside it.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::appliance::Appliance;
use crate::appliance::machine::mounts;
use crate::linux::mountinfo;
use crate::paths::BOOT;
use crate::refuse;
use crate::system::{Cmd, files};

/// Our directory in GRUB's.
pub const DIR: &str = "va-migrate";

/// The kernel of the environment, in our directory.
pub const KERNEL: &str = "vmlinuz";
/// Its initramfs.
pub const INITRAMFS: &str = "initramfs.img";
/// The environment block in which GRUB notes the start.
pub const ENV: &str = "env";
/// The order.
pub const ORDER: &str = "order.json";
/// Is there once the environment has started for the order.
pub const STARTED: &str = "started";

/// GRUB's own configuration, in its directory.
pub const CONFIG: &str = "grub.cfg";
/// What that reads at its end.
pub const CUSTOM: &str = "custom.cfg";

/// Where distributions have GRUB's directory.
const DIRS: [&str; 2] = ["/boot/grub2", "/boot/grub"];

/// Finds the directory of the GRUB that starts this machine by BIOS.
///
/// # Errors
/// Class `Refused` when there is none, or it cannot be told which one it is.
pub fn find(appliance: &Appliance) -> Result<PathBuf> {
    let is_used = |dir: &&str| {
        let dir = appliance.at(dir);
        let config = dir.join(CONFIG).symlink_metadata();
        config.is_ok_and(|meta| meta.is_file()) && dir.join("i386-pc/normal.mod").exists()
    };
    let found: Vec<&str> = DIRS.into_iter().filter(is_used).collect();
    match found[..] {
        [dir] => Ok(dir.into()),
        [] => refuse!(
            "neither {} holds a GRUB 2 for BIOS with its configuration, which is to start the \
             migration environment",
            DIRS.join(" nor ")
        ),
        _ => refuse!(
            "{} each hold a GRUB; remove the one that does not start this machine",
            found.join(" and ")
        ),
    }
}

/// Returns our directories that are there; one, unless a distribution moved GRUB's.
pub fn ours(appliance: &Appliance) -> Vec<PathBuf> {
    let dirs = DIRS.iter().map(|dir| appliance.at(dir).join(DIR));
    dirs.filter(|dir| dir.is_dir()).collect()
}

/// Returns every directory that may have GRUB's configuration.
pub fn grubs(appliance: &Appliance) -> Vec<PathBuf> {
    let dirs = DIRS.iter().map(|dir| appliance.at(dir));
    dirs.filter(|dir| dir.is_dir()).collect()
}

/// What of ours is elsewhere, by the paths of the old system.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Here {
    /// The bundle, which is the customer's.
    pub bundle: PathBuf,
    /// The settings that come over.
    pub settings: PathBuf,
    /// The same, collected once more when the old system went down.
    pub last_settings: PathBuf,
    /// What became of the order.
    pub log: PathBuf,
}

impl Here {
    const FILE: &'static str = "here.yaml";

    /// Returns what is no setting, wherever the bundle was put.
    pub fn left_out(&self) -> [&Path; 4] {
        [&self.bundle, &self.settings, &self.last_settings, &self.log].map(PathBuf::as_path)
    }

    /// Writes the record to our directory `dir`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, dir: &Path) -> Result<()> {
        let text = serde_yaml::to_string(self)?;
        files::write_atomic(&dir.join(Here::FILE), text.as_bytes(), 0o600)
    }

    /// Reads the record in our directory `dir`, if it is there.
    ///
    /// # Errors
    /// When it is there and no such record.
    pub fn load(dir: &Path) -> Result<Option<Here>> {
        let path = dir.join(Here::FILE);
        match path.symlink_metadata() {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("looking at {}", path.display())),
            Ok(_) => files::read_yaml(&path).map(Some),
        }
    }
}

/// Makes what was written durable, and seen by GRUB where `/boot` is a file system of
/// its own. Where it is not, its journal is emptied when the system restarts, and a
/// GRUB that reads what was there before only starts the old system.
///
/// # Errors
/// When it cannot be.
pub fn flush(appliance: &Appliance) -> Result<()> {
    let table = mounts(appliance)?;
    match mountinfo::at(&table, Path::new(BOOT)) {
        Some(_) => appliance.flush_boot(),
        None => appliance.sys.run(&Cmd::new("sync")).map(drop),
    }
}

/// Removes a file; absent is fine.
///
/// # Errors
/// When it cannot be removed.
pub fn remove_file(path: &Path) -> Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| format!("removing {}", path.display())),
    }
}
