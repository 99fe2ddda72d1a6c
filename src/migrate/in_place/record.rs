//! What was before a migration in place, kept on the running root: by it a run that
//! was cut goes on, or is undone.
//!
//! The copies come first, are made durable, and `record.json` last: without it
//! nothing of the machine has been changed. When all is undone it goes first.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::plan::Plan;
use crate::appliance::Appliance;
use crate::appliance::machine::boot_disk;
use crate::boot::bios::area::BootArea;
use crate::install::program;
use crate::paths::{CONFIG_FILE, MIGRATION_DIR};
use crate::sha::Sha;
use crate::system::{Cmd, files};

const FORMAT: u32 = 1;

/// The largest record that is read, in bytes.
const MAX_BYTES: u64 = 256 << 10;

const RECORD: &str = "record.json";
const BOOT_AREA: &str = "boot-area";

/// The record of a migration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    format: u32,
    /// What is done.
    pub plan: Plan,
    /// Every file that a migration may make or change, as it was.
    pub files: Vec<Kept>,
    /// The directories that were not there, each before what is in it.
    pub new_dirs: Vec<PathBuf>,
    /// What is added to fstab.
    pub fstab_lines: String,
    /// The SHA-256 of the boot area as it was.
    boot_area: String,
}

/// A file as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    /// Where it is.
    pub path: PathBuf,
    /// What was there.
    pub was: Was,
}

/// What was at a place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Was {
    /// Nothing.
    Absent,
    /// A link, which is never changed.
    Link,
    /// A file, whose copy has this name beside the record.
    File {
        /// The name of the copy.
        copy: String,
        /// The SHA-256 of both.
        sha256: String,
    },
}

impl Record {
    /// Returns the record of a migration that was begun here and neither ended by a
    /// new system nor undone.
    ///
    /// # Errors
    /// When there is one and it cannot be read.
    pub fn load(appliance: &Appliance) -> Result<Option<Record>> {
        let path = file(appliance, RECORD);
        let load = || -> Result<Option<Record>> {
            let size = match path.metadata() {
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
                meta => meta?.len(),
            };
            ensure!(size <= MAX_BYTES, "it has {size} bytes");
            let record: Record = serde_json::from_str(&fs::read_to_string(&path)?)?;
            ensure!(record.format == FORMAT, "it is of format {}", record.format);
            Ok(Some(record))
        };
        load().with_context(|| format!("reading {}", path.display()))
    }

    /// Keeps what is there before anything is changed; writes only beside itself.
    ///
    /// # Errors
    /// When it cannot be kept.
    pub fn begin(named: &Appliance, plan: &Plan, fstab_lines: String) -> Result<Record> {
        let begin = || -> Result<Record> {
            files::remove_tree(&named.at(MIGRATION_DIR))?;
            make_dirs(&named.at(MIGRATION_DIR))?;
            let area = BootArea::look(&named.at(boot_disk(named)?))?
                .save()?
                .bytes();
            files::write_atomic(&file(named, BOOT_AREA), &area, 0o600)?;
            let mut kept = Vec::new();
            let mut new_dirs = Vec::new();
            for path in program::places().into_iter().chain([CONFIG_FILE.into()]) {
                note_new_dirs(named, &path, &mut new_dirs);
                kept.push(keep(named, path, kept.len())?);
            }
            let shared = plan.shared.iter().map(|shared| shared.mount_point.clone());
            new_dirs.extend(shared.filter(|path| !named.at(path).exists()));
            let record = Record {
                format: FORMAT,
                plan: plan.clone(),
                files: kept,
                new_dirs,
                fstab_lines,
                boot_area: Sha::of(&area).to_string(),
            };
            // What cp(1) wrote is durable before the record counts.
            named.sys.run(&Cmd::new("sync"))?;
            let text = serde_json::to_string_pretty(&record)?;
            files::write_atomic(&file(named, RECORD), text.as_bytes(), 0o600)?;
            Ok(record)
        };
        begin()
            .inspect_err(|_| drop(remove_copies(named)))
            .context("keeping what was before the migration")
    }

    /// Returns the boot area as it was.
    ///
    /// # Errors
    /// When its copy is not what it was.
    pub fn boot_area(&self, appliance: &Appliance) -> Result<Vec<u8>> {
        let path = file(appliance, BOOT_AREA);
        let bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        ensure!(
            Sha::of(&bytes).to_string() == self.boot_area,
            "{} is damaged",
            path.display()
        );
        Ok(bytes)
    }

    /// Puts a file back as it was, where it is another now.
    ///
    /// # Errors
    /// When it cannot be written, or its copy is damaged.
    pub fn put_back(&self, appliance: &Appliance, kept: &Kept) -> Result<()> {
        let path = appliance.at(&kept.path);
        let put_back = || -> Result<()> {
            match &kept.was {
                Was::Link => Ok(()),
                Was::Absent if path.symlink_metadata().is_err() => Ok(()),
                Was::Absent => {
                    fs::remove_file(&path)?;
                    files::sync_dir(path.parent().unwrap_or(Path::new("/")))
                }
                Was::File { copy, sha256 } => restore(appliance, &path, copy, sha256),
            }
        };
        put_back().with_context(|| format!("putting back {}", kept.path.display()))
    }

    /// Forgets the migration.
    ///
    /// # Errors
    /// When the record cannot be removed.
    pub fn forget(appliance: &Appliance) -> Result<()> {
        let path = file(appliance, RECORD);
        fs::remove_file(&path)
            .map_err(anyhow::Error::from)
            .and_then(|()| files::sync_dir(&appliance.at(MIGRATION_DIR)))
            .with_context(|| format!("removing {}", path.display()))?;
        remove_copies(appliance)
    }
}

/// Removes what lies beside a record that does not count.
fn remove_copies(appliance: &Appliance) -> Result<()> {
    files::remove_tree(&appliance.at(MIGRATION_DIR))?;
    // Others may have something there, too.
    if let Some(above) = Path::new(MIGRATION_DIR).parent() {
        let _ = fs::remove_dir(appliance.at(above));
    }
    Ok(())
}

fn file(appliance: &Appliance, name: &str) -> PathBuf {
    appliance.at(MIGRATION_DIR).join(name)
}

fn make_dirs(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))
}

fn keep(appliance: &Appliance, path: PathBuf, number: usize) -> Result<Kept> {
    let from = appliance.at(&path);
    let was = match from.symlink_metadata() {
        Err(error) if error.kind() == ErrorKind::NotFound => Was::Absent,
        Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
        Ok(meta) if meta.is_symlink() => Was::Link,
        Ok(_) => {
            let copy = number.to_string();
            let to = file(appliance, &copy);
            appliance
                .sys
                .run(&Cmd::new("cp").args(["-a", "--"]).arg(&from).arg(&to))?;
            let sha256 = Sha::of_file(&from)?;
            ensure!(Sha::of_file(&to)? == sha256, "copying {}", path.display());
            Was::File {
                copy,
                sha256: sha256.to_string(),
            }
        }
    };
    Ok(Kept { path, was })
}

/// Adds the directories above `path` that are not there.
fn note_new_dirs(appliance: &Appliance, path: &Path, found: &mut Vec<PathBuf>) {
    let above = path.ancestors().skip(1).map(Path::to_owned);
    let mut missing: Vec<PathBuf> = above.filter(|dir| !appliance.at(dir).exists()).collect();
    missing.reverse();
    for dir in missing {
        if !found.contains(&dir) {
            found.push(dir);
        }
    }
}

fn restore(appliance: &Appliance, path: &Path, copy: &str, sha256: &str) -> Result<()> {
    let digest = |path: &Path| Sha::of_file(path).map(|sha| sha.to_string());
    if digest(path).is_ok_and(|now| now == sha256) {
        return Ok(());
    }
    let from = file(appliance, copy);
    ensure!(
        digest(&from)? == sha256,
        "its copy {} is damaged",
        from.display()
    );
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".restored");
    let restored = path.with_file_name(name);
    let cp = Cmd::new("cp").args(["-a", "--remove-destination", "--"]);
    appliance.sys.run(&cp.arg(&from).arg(&restored))?;
    ensure!(
        digest(&restored)? == sha256,
        "{} is no true copy",
        restored.display()
    );
    fs::File::open(&restored)?.sync_all()?;
    fs::rename(&restored, path)?;
    files::sync_dir(path.parent().unwrap_or(Path::new("/")))
}
