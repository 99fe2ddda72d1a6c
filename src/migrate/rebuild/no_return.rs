//! The time in which the disk holds no system: nothing may restart the machine then.

use std::fs;

use anyhow::Result;

use crate::appliance::Appliance;
use crate::paths::NO_RETURN_FILE;
use crate::system::files;

/// What has the kernel restart the machine where it need not: a task or a processor
/// that waits for slow storage (sysctl/kernel.rst). What it cannot survive stays on the
/// screen.
const SETTINGS: [&str; 3] = ["hung_task_panic", "softlockup_panic", "panic"];

/// Tells the kernel, and whoever started this program.
///
/// # Errors
/// When it cannot be told to the latter; nothing was changed then.
pub fn declare(appliance: &Appliance) -> Result<()> {
    for name in SETTINGS {
        let path = appliance.at(format!("/proc/sys/kernel/{name}"));
        // A kernel without the setting does not do it either.
        if path.exists()
            && let Err(error) = fs::write(&path, "0")
        {
            let text = format!("{} cannot be set: {error}", path.display());
            appliance.progress.note(&text);
        }
    }
    files::write_atomic(&appliance.at(NO_RETURN_FILE), b"", 0o600)
}

/// Takes it back: the disk holds a system, the old one or the new one.
pub fn withdraw(appliance: &Appliance) {
    let path = appliance.at(NO_RETURN_FILE);
    if let Err(error) = fs::remove_file(&path) {
        let text = format!("removing {}: {error}", path.display());
        appliance.progress.note(&text);
    }
}
