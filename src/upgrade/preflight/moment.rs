//! Whether now is a good time: memory, the clock, other programs at work.

use std::fs::{self, File};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use super::checked::{Checked, refuse};
use crate::appliance::Appliance;
use crate::linux::meminfo::available_bytes;
use crate::report::Finding;

/// What unpacking, GRUB's tools and the rest of an upgrade take, generously.
const MEMORY_BYTES: u64 = 128 << 20;

/// What dpkg and RPM lock while they change the system.
const PACKAGE_LOCKS: [&str; 4] = [
    "/var/lib/dpkg/lock-frontend",
    "/var/lib/dpkg/lock",
    "/var/lib/rpm/.rpm.lock",
    "/usr/lib/sysimage/rpm/.rpm.lock",
];

/// Compares the free memory with what an upgrade takes.
pub fn check_memory(appliance: &Appliance) -> Checked<()> {
    let path = appliance.at("/proc/meminfo");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    // Linux before 3.14, but for RHEL 7's, does not estimate it.
    let Some(free) = available_bytes(&text) else {
        return Ok(((), "the kernel does not tell what is free".into()));
    };
    if free < MEMORY_BYTES {
        return refuse(
            format!("{} MiB of memory are free", free >> 20),
            format!("{} MiB", MEMORY_BYTES >> 20),
            "stop a service, or give the machine more",
        );
    }
    Ok(((), format!("{} MiB are free", free >> 20)))
}

/// Looks whether a package manager is changing the running system.
pub fn check_packages(appliance: &Appliance) -> Checked<()> {
    for path in PACKAGE_LOCKS {
        if let Some(who) = holder(appliance, path)? {
            return refuse(
                format!("{who} is installing or removing packages (it holds {path})"),
                "packages that nobody changes meanwhile",
                "wait until it has ended",
            );
        }
    }
    Ok(((), "no package is being installed or removed".into()))
}

/// Names the process that has the record lock of a file, if any has.
fn holder(appliance: &Appliance, path: &str) -> Result<Option<String>> {
    let Ok(file) = File::open(appliance.at(path)) else {
        return Ok(None);
    };
    let mut lock = libc::flock {
        l_type: i16::try_from(libc::F_WRLCK).unwrap_or_default(),
        l_whence: i16::try_from(libc::SEEK_SET).unwrap_or_default(),
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    fcntl(&file, FcntlArg::F_GETLK(&mut lock)).with_context(|| format!("asking who has {path}"))?;
    if i32::from(lock.l_type) == libc::F_UNLCK {
        return Ok(None);
    }
    Ok(Some(match lock.l_pid {
        // Locks of open files, and of other namespaces, have no process.
        ..=0 => "another program".to_owned(),
        pid => format!("process {pid}"),
    }))
}

/// Tells what is wrong with the clock, if it stands before the bundle was made,
/// `created` seconds after 1970.
pub fn clock_fault(created: u64, now: SystemTime, remedy: &str) -> Option<Finding> {
    let made = UNIX_EPOCH + Duration::from_secs(created);
    let behind = made.duration_since(now).ok().filter(|it| !it.is_zero())?;
    Some(Finding::new(
        format!(
            "this machine's clock is at least {} behind, since the bundle was made then",
            in_words(behind)
        ),
        "a clock by which certificates and logs of the new system are right",
        remedy,
    ))
}

fn in_words(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..=119 => format!("{seconds} seconds"),
        seconds @ 120..=7199 => format!("{} minutes", seconds / 60),
        seconds @ 7200..=172_799 => format!("{} hours", seconds / 3600),
        seconds => format!("{} days", seconds / 86400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_behind_says_by_how_much() {
        const CREATED: u64 = 1_700_000_000;
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(clock_fault(CREATED, at(CREATED), "set it"), None);
        for (now, words) in [
            (1_699_999_990, "10 seconds"),
            (1_699_990_000, "2 hours"),
            (0, "19675 days"),
        ] {
            let fault = clock_fault(CREATED, at(now), "set it").unwrap();
            let fault = fault.to_string();
            assert!(fault.contains(words), "{fault}");
        }
    }
}
