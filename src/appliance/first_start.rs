//! A system that was written to a disk made anew, and has not yet come up healthy.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::context::Appliance;
use crate::paths::FIRST_START_FILE;
use crate::system::files::{self, read_yaml};
use crate::tree::resolve;

/// The version of this shape.
const FORMAT: u32 = 1;

/// What its first start is to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FirstStart {
    /// The version of this shape.
    format: u32,
    /// The version that was there before.
    pub from: String,
    /// Its own version.
    pub to: String,
    /// The run of the migration in the disk's log area.
    pub run: u64,
    /// Why nothing of the customer's came over, where nothing did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lacks: Option<String>,
}

impl FirstStart {
    /// Describes a migration between two versions.
    pub fn new(from: &str, to: &str, run: u64) -> FirstStart {
        FirstStart {
            format: FORMAT,
            from: from.to_owned(),
            to: to.to_owned(),
            run,
            lacks: None,
        }
    }

    /// Leaves it in the system whose tree is at `root`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn leave(&self, root: &Path) -> Result<()> {
        let text = serde_yaml::to_string(self).context("rendering what the first start knows")?;
        let path = resolve::place(root, Path::new(FIRST_START_FILE))?;
        files::write_atomic(&path, text.as_bytes(), 0o600)
    }

    /// Reads it from the running system; `None` where that is healthy, or came
    /// another way.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub fn load(appliance: &Appliance) -> Result<Option<FirstStart>> {
        let path = appliance.at(FIRST_START_FILE);
        if !path.exists() {
            return Ok(None);
        }
        let found: FirstStart = read_yaml(&path)?;
        ensure!(
            found.format == FORMAT,
            "{} has format {}, not {FORMAT}",
            path.display(),
            found.format
        );
        Ok(Some(found))
    }

    /// Takes it away: the running system is healthy.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn take_away(appliance: &Appliance) -> Result<()> {
        let path = appliance.at(FIRST_START_FILE);
        fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
        files::sync_dir(path.parent().unwrap_or(Path::new("/")))
    }
}
