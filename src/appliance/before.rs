//! What a person would miss of a system and no health check compares: its name, the
//! ports it listens on, what is mounted. Written down before an upgrade, for the
//! report after it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

use super::context::Appliance;
use super::machine;
use super::release::ReleaseRecord;
use crate::linux::mountinfo::MountEntry;
use crate::linux::{fstab, sockets};
use crate::system::files::read_yaml;

/// The record's name in a slot's directory on `/boot`.
pub const FILE: &str = "before.yaml";

/// The kernel's tables of sockets, with the protocol of each.
const TABLES: [(&str, &str); 4] = [
    ("/proc/net/tcp", "tcp"),
    ("/proc/net/tcp6", "tcp"),
    ("/proc/net/udp", "udp"),
    ("/proc/net/udp6", "udp"),
];

/// The most that is read of one of them, in bytes: a busy machine has very many
/// connections, and those who listen come first.
const MAX_TABLE_BYTES: u64 = 16 << 20;

/// The most ports that are written down.
const MAX_PORTS: usize = 1000;

/// The most mounts that are written down.
const MAX_MOUNTS: usize = 200;

/// The longest mount point that is written down, in bytes: a record is small.
const MAX_PATH_BYTES: usize = 200;

/// Where containers, packages and the session mount what comes and goes.
const PASSING: [&str; 8] = [
    "/dev",
    "/proc",
    "/run",
    "/snap",
    "/sys",
    "/var/lib/containers",
    "/var/lib/docker",
    "/var/lib/kubelet",
];

/// A system as a person sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Before {
    /// When it was looked at, in seconds since 1970.
    #[serde(default)]
    pub time: u64,
    /// Its version.
    #[serde(default)]
    pub version: String,
    /// The name of the machine.
    #[serde(default)]
    pub host_name: String,
    /// The ports that somebody listens on, as `tcp 22`; `tcp 25 of this machine` for
    /// those that no other machine reaches.
    #[serde(default)]
    pub listeners: BTreeSet<String>,
    /// The file systems of disks and of other machines, by mount point.
    #[serde(default)]
    pub mounts: BTreeMap<String, Mount>,
}

/// A file system that is mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Its type.
    pub fs_type: String,
    /// Whether it can be written.
    pub writable: bool,
}

impl Before {
    /// Looks at the running system.
    ///
    /// # Errors
    /// When the mount table or the release record cannot be read.
    pub fn look(appliance: &Appliance) -> Result<Before> {
        let name = fs::read_to_string(appliance.at("/proc/sys/kernel/hostname"));
        let mounts = machine::mounts(appliance)?;
        let mounts = mounts.iter().filter(|mount| is_lasting(mount));
        Ok(Before {
            time: appliance.sys.seconds_since_1970(),
            version: ReleaseRecord::of_running(appliance)?.version,
            host_name: name.unwrap_or_default().trim().to_owned(),
            listeners: listeners(appliance),
            mounts: mounts.map(described).take(MAX_MOUNTS).collect(),
        })
    }
}

fn is_lasting(mount: &MountEntry) -> bool {
    (mount.source.starts_with('/') || fstab::is_network(&mount.fs_type))
        && mount.mount_point.as_os_str().len() <= MAX_PATH_BYTES
        && !PASSING.iter().any(|dir| mount.mount_point.starts_with(dir))
}

fn described(mount: &MountEntry) -> (String, Mount) {
    let at = mount.mount_point.to_string_lossy().into_owned();
    let mount = Mount {
        fs_type: mount.fs_type.clone(),
        writable: mount.writable,
    };
    (at, mount)
}

/// Lists the ports that somebody listens on. A kernel without IPv6 lacks two tables.
fn listeners(appliance: &Appliance) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (path, protocol) in TABLES {
        let Ok(file) = File::open(appliance.at(path)) else {
            continue;
        };
        let lines = BufReader::new(file.take(MAX_TABLE_BYTES)).lines();
        for listener in lines
            .map_while(Result::ok)
            .filter_map(|line| sockets::parse_line(protocol, &line))
        {
            let whose = match listener.address.is_loopback() {
                true => " of this machine",
                false => "",
            };
            found.insert(format!("{protocol} {}{whose}", listener.port));
            if found.len() >= MAX_PORTS {
                return found;
            }
        }
    }
    found
}

/// Reads what was written down in `dir`; what an earlier version did not write is empty.
///
/// # Errors
/// When it is there and cannot be read.
pub fn load(dir: &Path) -> Result<Option<Before>> {
    let path = dir.join(FILE);
    match path.symlink_metadata() {
        Err(_) => Ok(None),
        Ok(meta) if !meta.is_file() => bail!("{} is no file", path.display()),
        Ok(_) => read_yaml(&path).map(Some),
    }
}
