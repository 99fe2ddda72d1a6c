//! Whether a started system is healthy enough to be kept.
//!
//! 1. its SELinux labels are set;
//! 2. the service manager has finished starting, and nothing failed that had not
//!    before, or that came since then where only the kernel is another;
//! 3. the network the appliance had before is there ([`network_health`]);
//! 4. nothing is worse than before that `report` in the configuration enforces;
//! 5. every executable in `/etc/va-upgrade/health.d` ends well in its time.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::{changes, network_health};
use crate::appliance::Appliance;
use crate::appliance::network::Network;
use crate::appliance::services;
use crate::install::label;
use crate::paths::CHECKS_DIR;
use crate::signals;
use crate::system::Cmd;
use crate::system::files::read_yaml;

/// Between two questions.
const PAUSE: Duration = Duration::from_secs(1);

/// How many pauses what is worse than before may take to be as before.
const MAX_WORSE_SECONDS: u32 = 60;

/// How often in all the service manager may leave the question unanswered.
const MAX_SILENT: u32 = 10;

/// What the health of a system is compared with.
pub struct Baseline {
    /// The directory on `/boot` with what was written down.
    pub dir: PathBuf,
    /// What is tried.
    pub tried: Tried,
}

/// What is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tried {
    /// A system, started right behind the one that it is compared with.
    System,
    /// A kernel of the same system. It came weeks ago, perhaps, and whoever changed
    /// an address or brought a service meanwhile has not changed it.
    Kernel,
}

/// Checks the running system against what was written down in `before`; returns
/// when it is healthy.
///
/// Waiting for the system to start has no end of its own: the deadline is one.
///
/// # Errors
/// What is unhealthy.
pub fn check(appliance: &Appliance, before: &Baseline) -> Result<()> {
    if let Some(reason) = label::missing(appliance) {
        bail!("its SELinux labels are not all set: {reason}");
    }
    network_health::mend_names(appliance, &before.dir);
    wait_until_started(appliance, before)?;
    let lacks = match before.tried {
        Tried::System => Network::lacking_in,
        Tried::Kernel => Network::cards_lacking_in,
    };
    network_health::check(appliance, &before.dir, lacks)?;
    if before.tried == Tried::System {
        wait_until_tolerable(appliance, before)?;
    }
    for path in product_checks(&appliance.at(CHECKS_DIR))? {
        signals::check()?;
        let limit = Duration::from_secs(appliance.config.health_seconds);
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        appliance
            .sys
            .run(&Cmd::new(&path).limit(limit))
            .with_context(|| format!("health check {name}"))?;
    }
    Ok(())
}

/// Refuses a system in which something is worse than before that may not be. Programs
/// may take a while from their start until they listen, and the clock until it is right.
fn wait_until_tolerable(appliance: &Appliance, before: &Baseline) -> Result<()> {
    for _ in 0..MAX_WORSE_SECONDS {
        if changes::intolerable(appliance, &before.dir)?.is_empty() {
            return Ok(());
        }
        signals::check()?;
        appliance.sys.wait(PAUSE);
    }
    let worse = changes::intolerable(appliance, &before.dir)?;
    ensure!(worse.is_empty(), "{}", worse.join("; "));
    Ok(())
}

/// Waits for the end of the start, and refuses a system that is more degraded than
/// the one before.
fn wait_until_started(appliance: &Appliance, before: &Baseline) -> Result<()> {
    let mut silent = 0;
    loop {
        // The exit status says less than the word, so the shell swallows it.
        let ask = Cmd::new("sh").args(["-c", "systemctl is-system-running || true"]);
        match appliance.sys.run(&ask)?.trim() {
            "running" => return Ok(()),
            // Somebody restarts the machine: that is no verdict.
            "initializing" | "starting" | "stopping" => appliance.sys.wait(PAUSE),
            "degraded" => return check_failed_units(appliance, before),
            // The service manager does not answer while it starts itself anew.
            "" | "unknown" | "offline" if silent < MAX_SILENT => {
                silent += 1;
                appliance.sys.wait(PAUSE);
            }
            other => bail!("the system is {other:?}, not running"),
        }
        signals::check()?;
    }
}

/// Refuses a system in which units have failed that had not before, and not
/// because another machine does not answer.
fn check_failed_units(appliance: &Appliance, before: &Baseline) -> Result<()> {
    let path = before.dir.join(services::FILE);
    let had_failed: Vec<String> = match path.exists() {
        true => read_yaml(&path)?,
        false => Vec::new(),
    };
    let is_known = |unit: &String| had_failed.contains(unit);
    let (known, mut news): (Vec<_>, Vec<_>) =
        services::failed(appliance)?.into_iter().partition(is_known);
    news.retain(|unit| !services::is_remote_mount(appliance, unit));
    if before.tried == Tried::Kernel
        && let Ok(meta) = path.metadata()
    {
        news.retain(|unit| !services::is_changed_since(appliance, unit, &meta));
    }
    ensure!(
        news.is_empty(),
        "the system is degraded: failed units: {}",
        news.join(", ")
    );
    let known = match known.is_empty() {
        true => String::new(),
        false => format!(", and these had before: {}", known.join(", ")),
    };
    appliance.progress.note(&format!(
        "the system is degraded, but no unit has failed because of the upgrade{known}"
    ));
    Ok(())
}

/// Lists the executables in `dir`, in the order of their names.
fn product_checks(dir: &Path) -> Result<Vec<PathBuf>> {
    if !dir.is_dir() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("listing {}", dir.display()))? {
        let path = entry?.path();
        let meta = path
            .metadata()
            .with_context(|| format!("reading {}", path.display()))?;
        if meta.is_file() && meta.permissions().mode() & 0o111 != 0 {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
