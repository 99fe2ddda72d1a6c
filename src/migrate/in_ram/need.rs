//! How much memory a move takes. Pure, but for reading what the machine has.

use std::fs;

use anyhow::{Context, Result};

use crate::appliance::Appliance;
use crate::refuse;

/// What the environment takes besides the bundle and the settings: its kernel,
/// its initramfs unpacked, the program and the tools it runs. A rehearsal tells what
/// it was.
pub const ENVIRONMENT_BYTES: u64 = 256 << 20;

/// What making file systems takes for each TiB of a disk: their bitmaps, twice.
const DISK_SHARE: u64 = (1 << 40) / (64 << 20);

/// Returns how much memory a machine needs, in bytes. The settings are there twice: as
/// they came, and unpacked.
pub fn bytes(bundle_bytes: u64, settings_bytes: u64, disk_bytes: u64) -> u64 {
    let carried = bundle_bytes.saturating_add(settings_bytes.saturating_mul(2));
    carried
        .saturating_add(ENVIRONMENT_BYTES)
        .saturating_add(disk_bytes / DISK_SHARE)
}

/// Refuses a machine that has less memory than `need`. Swap is of no use: it is on
/// the disk that is given up.
///
/// # Errors
/// Class `Refused`, with both numbers.
pub fn check(appliance: &Appliance, need: u64) -> Result<()> {
    let path = appliance.at("/proc/meminfo");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let total = value(&text, "MemTotal").context("the kernel does not tell its memory")?;
    if total < need {
        refuse!(
            "this machine has {} MiB of memory, the move takes {} MiB; give it more, or build the \
             bundle smaller",
            total >> 20,
            need.div_ceil(1 << 20)
        );
    }
    Ok(())
}

/// Reads a line of `/proc/meminfo` (proc(5)); in bytes.
pub fn value(meminfo: &str, name: &str) -> Option<u64> {
    let mut lines = meminfo.lines();
    let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let kib: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1 << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_disk_takes_more() {
        const MIB: u64 = 1 << 20;
        assert_eq!(bytes(1700 * MIB, 22 * MIB, 0), 2000 * MIB);
        assert_eq!(bytes(1700 * MIB, 22 * MIB, 2 << 40), 2128 * MIB);
        assert_eq!(bytes(u64::MAX, 1, 1), u64::MAX);
    }

    #[test]
    fn a_line_is_read_by_its_whole_name() {
        let text = "MemTotal:        8167848 kB\nMemTotalX: 1 kB\nMemFree: many\n";
        assert_eq!(value(text, "MemTotal"), Some(8_167_848 << 10));
        assert_eq!(value(text, "MemFree"), None);
        assert_eq!(value(text, "Mem"), None);
    }
}
