//! Units of the service manager that have failed.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::Result;

use super::context::Appliance;
use crate::linux::fstab;
use crate::system::Cmd;

/// The name, in a slot's directory on `/boot`, of the list of units that had
/// failed before the upgrade.
pub const FILE: &str = "failed-units.yaml";

/// Lists the units that have failed, by name.
///
/// # Errors
/// When the service manager does not answer.
pub fn failed(appliance: &Appliance) -> Result<Vec<String>> {
    let list =
        Cmd::new("systemctl").args(["list-units", "--state=failed", "--no-legend", "--plain"]);
    let units = appliance.sys.run(&list)?;
    Ok(units.lines().filter_map(name).map(str::to_owned).collect())
}

/// Returns the name of the unit in a line; systemd 219 puts a bullet before it,
/// `--plain` or not.
fn name(line: &str) -> Option<&str> {
    line.split_whitespace().find(|word| word.contains('.'))
}

/// Tells whether `unit` mounts a file system of another machine, by its type or
/// by what fstab says of its mount point.
pub fn is_remote_mount(appliance: &Appliance, unit: &str) -> bool {
    if !unit.ends_with(".mount") {
        return false;
    }
    let ask = Cmd::new("systemctl").args(["show", "--property=Type", "--property=Where", unit]);
    let answer = appliance.sys.run(&ask).unwrap_or_default();
    let value = |name: &str| answer.lines().find_map(|line| line.strip_prefix(name));
    if value("Type=").is_some_and(fstab::is_network) {
        return true;
    }
    let text = fs::read_to_string(appliance.at("/etc/fstab")).unwrap_or_default();
    let point = value("Where=").map(Path::new);
    fstab::parse(&text)
        .iter()
        .any(|line| Some(&*line.mount_point) == point && line.is_on_network())
}

/// Tells whether a file of `unit` was made or changed after that of `since` was
/// written. What is generated at each start is as old as what it comes from.
pub fn is_changed_since(appliance: &Appliance, unit: &str, since: &Metadata) -> bool {
    const PROPERTIES: [&str; 3] = ["FragmentPath", "SourcePath", "DropInPaths"];
    let show = Cmd::new("systemctl").arg("show");
    let ask = show
        .args(PROPERTIES.map(|name| format!("--property={name}")))
        .arg(unit);
    let answer = appliance.sys.run(&ask).unwrap_or_default();
    let since = (since.mtime(), since.mtime_nsec());
    // Packages set the time of a file's content back; this one nobody sets.
    let is_newer = |path: &str| {
        let meta = appliance.at(path).metadata();
        meta.is_ok_and(|meta| (meta.ctime(), meta.ctime_nsec()) > since)
    };
    let lines = answer.lines().filter_map(|line| line.split_once('='));
    lines
        .filter(|(name, _)| PROPERTIES.contains(name))
        .flat_map(|(_, paths)| paths.split_whitespace())
        .any(|path| !path.starts_with("/run/") && is_newer(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_is_named_with_and_without_a_bullet() {
        for line in [
            "a.service loaded failed failed A service",
            "\u{25cf} a.service loaded failed failed A service",
        ] {
            assert_eq!(name(line), Some("a.service"));
        }
        assert_eq!(name(""), None);
    }
}
