//! Units of the service manager that have failed.

use anyhow::Result;

use super::context::Appliance;
use crate::system::Cmd;

/// The name, in a slot's directory on `/boot`, of the list of units that had
/// failed before the upgrade.
pub const FILE: &str = "failed-units.yaml";

/// File systems on other machines (mount(8), systemd.mount(5)).
const REMOTE: [&str; 9] = [
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "ceph",
    "glusterfs",
    "fuse.glusterfs",
    "fuse.sshfs",
    "fuse.s3fs",
];

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

/// Tells whether `unit` mounts a file system of another machine.
pub fn is_remote_mount(appliance: &Appliance, unit: &str) -> bool {
    if !unit.ends_with(".mount") {
        return false;
    }
    let ask = Cmd::new("systemctl").args(["show", "--property=Type", unit]);
    let answer = appliance.sys.run(&ask).unwrap_or_default();
    let kind = answer.trim().strip_prefix("Type=");
    kind.is_some_and(|kind| REMOTE.contains(&kind))
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
