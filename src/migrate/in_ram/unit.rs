//! The unit that has the settings collected once more when the old system goes down.
//! It lives only until the next start.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::place;
use crate::appliance::Appliance;
use crate::paths::PROGRAM;
use crate::system::{Cmd, files};

const UNIT: &str = "va-upgrade-settings.service";
const UNIT_TEXT: &str = include_str!("../../../packaging/va-upgrade-settings.service");

/// Units that are gone with the next start (systemd.unit(5)).
const UNITS_DIR: &str = "/run/systemd/system";

/// Starts the unit that collects when it is stopped.
///
/// # Errors
/// When the service manager does not take it.
pub fn start(appliance: &Appliance) -> Result<()> {
    // Nothing is installed here; this program may be anywhere.
    let program = fs::read_link(appliance.at("/proc/self/exe"));
    let program = program.unwrap_or_else(|_| PROGRAM.into());
    let program = program.to_str().context("this program has no plain name")?;
    let text = UNIT_TEXT.replace(PROGRAM, program);
    let path = unit_path(appliance);
    let dir = path.parent().context("a unit without a directory")?;
    fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    files::write_atomic(&path, text.as_bytes(), 0o644)?;
    for args in [&["daemon-reload"][..], &["start", UNIT]] {
        appliance.sys.run(&Cmd::new("systemctl").args(args))?;
    }
    Ok(())
}

/// Has the service manager forget the unit at its next look. It is not stopped: that
/// would have it collect, and without an order it does nothing.
pub fn forget(appliance: &Appliance) -> Result<()> {
    place::remove_file(&unit_path(appliance)).map(drop)
}

fn unit_path(appliance: &Appliance) -> PathBuf {
    appliance.at(UNITS_DIR).join(UNIT)
}
