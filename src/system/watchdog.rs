//! The machine's watchdog, which restarts it when nobody writes to it any more
//! (Linux, "The Linux Watchdog driver API").

use std::fs::{self, File};
use std::io::{self, Write};
use std::time::Duration;

use super::calls::System;

/// What is written to have it count anew; anything but the magic letter will do.
const STILL_HERE: &[u8] = b"\n";
/// What is written before it is closed for it to stop counting.
const MAGIC_CLOSE: &[u8] = b"V";

/// What tells that a daemon of the system's own wants the watchdog.
const CLAIMS: [&str; 4] = [
    "/etc/watchdog.conf",
    "/etc/systemd/system/default.target.wants/watchdog.service",
    "/etc/systemd/system/multi-user.target.wants/watchdog.service",
    "/etc/systemd/system/multi-user.target.wants/wd_keepalive.service",
];

/// A watchdog that counts until it is [stopped](Watchdog::stop), also when the
/// program ends.
pub struct Watchdog {
    device: File,
    timeout: Duration,
}

impl Watchdog {
    /// Starts the machine's first watchdog; `None` where there is none, somebody
    /// uses it or is going to, or it is not known that it can be stopped again.
    pub fn start(sys: &dyn System) -> Option<Watchdog> {
        if CLAIMS
            .iter()
            .any(|path| sys.at(path).symlink_metadata().is_ok())
        {
            return None;
        }
        let says = |name: &str| {
            let path = sys.at(format!("/sys/class/watchdog/watchdog0/{name}"));
            let text = fs::read_to_string(path).unwrap_or_default();
            text.trim().parse::<u64>().ok()
        };
        let timeout = Duration::from_secs(says("timeout").filter(|seconds| *seconds > 0)?);
        if says("nowayout")? != 0 {
            return None;
        }
        let path = sys.at("/dev/watchdog0");
        let device = File::options().write(true).open(path).ok()?;
        Some(Watchdog { device, timeout })
    }

    /// Returns how often it has to be [fed](Watchdog::feed).
    pub fn interval(&self) -> Duration {
        (self.timeout / 4).max(Duration::from_secs(1))
    }

    /// Has it count anew from its timeout.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn feed(&self) -> io::Result<()> {
        (&self.device).write_all(STILL_HERE)
    }

    /// Stops it.
    ///
    /// # Errors
    /// What the kernel says; it then goes on counting.
    pub fn stop(self) -> io::Result<()> {
        (&self.device).write_all(MAGIC_CLOSE)
    }
}
