//! How a configuration file is written, told from its name.

use std::path::Path;

use serde::{Deserialize, Serialize};

/// How a configuration file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// `key=value`, as in `/etc/default`, `/etc/sysconfig` and sysctl.d(5).
    KeyValue,
    /// `key value`, as in sshd_config(5) and chrony.conf(5).
    KeyWord,
    /// Sections of `key=value`: units of systemd, keyfiles of NetworkManager.
    Ini,
    /// YAML, as netplan has it.
    Yaml,
    /// JSON.
    Json,
    /// hosts(5).
    Hosts,
    /// sudoers(5).
    Sudoers,
    /// Anything else: merged by line.
    Lines,
}

/// What the names of systemd's files end in.
const SYSTEMD: [&str; 14] = [
    "automount",
    "link",
    "mount",
    "netdev",
    "network",
    "nspawn",
    "path",
    "scope",
    "service",
    "slice",
    "socket",
    "swap",
    "target",
    "timer",
];

/// Files of systemd's own programs, `/etc/systemd/<name>` and the directory `<name>.d`.
const SYSTEMD_CONF: [&str; 10] = [
    "coredump.conf",
    "journald.conf",
    "logind.conf",
    "networkd.conf",
    "pstore.conf",
    "resolved.conf",
    "sleep.conf",
    "system.conf",
    "timesyncd.conf",
    "user.conf",
];

impl Format {
    /// Tells how the file at `path` is written, by its place and name alone.
    pub fn of_path(path: &Path) -> Format {
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        let parent = path
            .parent()
            .and_then(Path::file_name)
            .and_then(|name| name.to_str());
        by_name(name)
            .or_else(|| by_parent(parent?, name))
            .or_else(|| by_extension(name))
            .unwrap_or(Format::Lines)
    }
}

fn by_name(name: &str) -> Option<Format> {
    Some(match name {
        "hosts" => Format::Hosts,
        "sudoers" => Format::Sudoers,
        "sshd_config" | "chrony.conf" | "ntp.conf" | "login.defs" => Format::KeyWord,
        "sysctl.conf" | "locale.conf" | "vconsole.conf" | "os-release" => Format::KeyValue,
        "NetworkManager.conf" => Format::Ini,
        _ if SYSTEMD_CONF.contains(&name) => Format::Ini,
        _ => return None,
    })
}

fn by_parent(parent: &str, name: &str) -> Option<Format> {
    let is_conf = name.ends_with(".conf");
    Some(match parent {
        "sysctl.d" if is_conf => Format::KeyValue,
        "default" | "sysconfig" | "network-scripts" if !name.contains('.') => Format::KeyValue,
        "sudoers.d" => Format::Sudoers,
        "sshd_config.d" if is_conf => Format::KeyWord,
        "conf.d" | "system-connections" if name.ends_with(".nmconnection") => Format::Ini,
        _ if is_conf && is_drop_in(parent) => Format::Ini,
        _ => return None,
    })
}

/// Tells whether a directory holds additions to a file of systemd's.
fn is_drop_in(dir: &str) -> bool {
    dir.strip_suffix(".d").is_some_and(|of| {
        let extension = of.rsplit_once('.').map(|(_, extension)| extension);
        SYSTEMD_CONF.contains(&of) || extension.is_some_and(|e| SYSTEMD.contains(&e))
    })
}

fn by_extension(name: &str) -> Option<Format> {
    let (_, extension) = name.rsplit_once('.')?;
    Some(match extension {
        "ini" | "nmconnection" => Format::Ini,
        "yaml" | "yml" => Format::Yaml,
        "json" => Format::Json,
        _ if SYSTEMD.contains(&extension) => Format::Ini,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_is_told_from_place_and_name() {
        for (path, format) in [
            ("/etc/ssh/sshd_config", Format::KeyWord),
            ("/etc/ssh/sshd_config.d/50-site.conf", Format::KeyWord),
            ("/etc/chrony/chrony.conf", Format::KeyWord),
            ("etc/sysctl.d/99-x.conf", Format::KeyValue),
            ("/etc/default/chrony", Format::KeyValue),
            (
                "/etc/sysconfig/network-scripts/ifcfg-eth0",
                Format::KeyValue,
            ),
            (
                "/etc/NetworkManager/system-connections/eth0.nmconnection",
                Format::Ini,
            ),
            ("/etc/systemd/journald.conf", Format::Ini),
            ("/etc/systemd/journald.conf.d/site.conf", Format::Ini),
            ("/etc/systemd/system/app.service.d/limit.conf", Format::Ini),
            ("/etc/systemd/network/10-eth0.link", Format::Ini),
            ("/etc/netplan/50-cloud-init.yaml", Format::Yaml),
            ("/etc/docker/daemon.json", Format::Json),
            ("/etc/hosts", Format::Hosts),
            ("/etc/sudoers.d/admin", Format::Sudoers),
            ("/etc/logrotate.d/syslog", Format::Lines),
            ("/etc/resolv.conf", Format::Lines),
            ("/", Format::Lines),
        ] {
            assert_eq!(Format::of_path(Path::new(path)), format, "{path}");
        }
    }

    #[test]
    fn a_rule_file_spells_a_format_in_lower_case() {
        let text = serde_json::to_string(&[Format::KeyValue, Format::Ini]).unwrap();
        assert_eq!(text, r#"["key-value","ini"]"#);
    }
}
