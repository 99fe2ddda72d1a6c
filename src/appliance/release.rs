//! Which release a system is, as written down inside it.

use std::fs;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::context::Appliance;
use crate::linux::os_release::{self, OsRelease};
use crate::paths::RELEASE_FILE;
use crate::system::files::read_yaml;

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
    pub fn of_running(appliance: &Appliance) -> Result<ReleaseRecord> {
        if let Some(said) = ReleaseRecord::said(appliance)? {
            return Ok(said);
        }
        let version = os_version(appliance).context("finding the version of the running system")?;
        Ok(ReleaseRecord {
            product: appliance.config.product.clone(),
            version,
        })
    }

    /// Returns the same where somebody has said which version runs: that of
    /// os-release is the distribution's, and comes in no order with the product's.
    ///
    /// # Errors
    /// When a record is there and cannot be read.
    pub fn said(appliance: &Appliance) -> Result<Option<ReleaseRecord>> {
        let path = appliance.at(RELEASE_FILE);
        if path.exists() {
            return read_yaml(&path).map(Some);
        }
        let version = appliance.config.version.clone();
        Ok(version.map(|version| ReleaseRecord {
            product: appliance.config.product.clone(),
            version,
        }))
    }
}

fn os_version(appliance: &Appliance) -> Result<String> {
    let text = os_release::PATHS
        .iter()
        .find_map(|path| fs::read_to_string(appliance.at(path)).ok())
        .context("there is no os-release; set version in config.yaml")?;
    let version = OsRelease::parse(&text).version;
    Ok(if version.is_empty() {
        "0".to_owned()
    } else {
        version
    })
}
