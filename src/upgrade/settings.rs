//! The kernel settings that a trial's command line made, taken back once the
//! trial is confirmed: a panic or a slow disk is then again what the appliance
//! makes of it.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::appliance::Appliance;
use crate::boot::entry::{TrialSetting, trial_settings};
use crate::linux::sysctl;

/// Gives the running kernel the settings it would have without the trial; what
/// fails is only noted.
///
/// What they were before is stored nowhere, so a setting is taken back only
/// where it still is what the trial made it and no file of sysctl.d says the
/// same. It becomes what a word of the entry's own asks for, or 0, the default of
/// Linux as Debian and the RHEL family build it. What the service manager took
/// from the command line (`systemd.crash_reboot`) stays until the next start.
pub fn take_back(appliance: &Appliance, cmdline: &str) {
    for setting in trial_settings(cmdline) {
        if let Err(error) = take_back_one(appliance, &setting) {
            appliance.progress.note(&format!(
                "kernel.{} stays as on trial until the next start: {error:#}",
                setting.name
            ));
        }
    }
}

fn take_back_one(appliance: &Appliance, setting: &TrialSetting) -> Result<()> {
    let path = appliance.at(format!("/proc/sys/kernel/{}", setting.name));
    if !path.exists() {
        return Ok(());
    }
    let now = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    if now.trim() == setting.on_trial && !is_wanted(appliance, setting) {
        fs::write(&path, &setting.otherwise)
            .with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

/// Tells whether a file of kernel settings asks for what the trial made.
fn is_wanted(appliance: &Appliance, setting: &TrialSetting) -> bool {
    let name = format!("kernel.{}", setting.name);
    let files = sysctl::DIRS.iter().flat_map(|dir| {
        let entries = fs::read_dir(appliance.at(dir)).into_iter().flatten();
        entries.flatten().map(|entry| entry.path())
    });
    let is_read = |path: &PathBuf| path.extension().is_some_and(|suffix| suffix == "conf");
    let files = files.filter(is_read);
    files.chain([appliance.at(sysctl::FILE)]).any(|path| {
        fs::read_to_string(path).is_ok_and(|text| sysctl::sets(&text, &name, &setting.on_trial))
    })
}
