//! How much of the machine's memory is in use.

use std::cell::Cell;
use std::fs;

use crate::appliance::Appliance;
use crate::migrate::in_ram::need::value;
use crate::migrate::outcome::Memory;

/// Remembers the least that was free.
pub struct Meter<'a> {
    appliance: &'a Appliance<'a>,
    least_free: Cell<u64>,
}

impl<'a> Meter<'a> {
    /// Looks for the first time.
    pub fn new(appliance: &'a Appliance<'a>) -> Meter<'a> {
        let meter = Meter {
            appliance,
            least_free: Cell::new(u64::MAX),
        };
        meter.look();
        meter
    }

    /// Looks how much is free now; what files have in memory only to be read faster
    /// counts as free.
    pub fn look(&self) -> Option<u64> {
        let free = value(&self.meminfo(), "MemAvailable")?;
        self.least_free.set(self.least_free.get().min(free));
        Some(free)
    }

    /// Returns what the machine has, and the most that was in use.
    pub fn memory(&self) -> Memory {
        let iomem = fs::read_to_string(self.appliance.at("/proc/iomem")).unwrap_or_default();
        let total = value(&self.meminfo(), "MemTotal").unwrap_or_default();
        let machine_bytes = system_ram(&iomem).max(total);
        Memory {
            machine_bytes,
            peak_bytes: machine_bytes.saturating_sub(self.least_free.get()),
        }
    }

    fn meminfo(&self) -> String {
        fs::read_to_string(self.appliance.at("/proc/meminfo")).unwrap_or_default()
    }
}

/// Sums up the memory in `/proc/iomem` (proc(5)), with what the kernel itself is in.
fn system_ram(iomem: &str) -> u64 {
    let sizes = iomem.lines().filter_map(|line| {
        let (range, name) = line.split_once(" : ")?;
        let (first, last) = range.split_once('-')?;
        let number = |digits| u64::from_str_radix(digits, 16).ok();
        let is_memory = name == "System RAM";
        is_memory.then_some(number(last)?.checked_sub(number(first)?)? + 1)
    });
    sizes.fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_memory_counts_and_what_is_in_it_does_not_twice() {
        let text = "00001000-0009fbff : System RAM\n0009fc00-0009ffff : Reserved\n\
                    00100000-3ffdffff : System RAM\n  02000000-02dfffff : Kernel code\n";
        assert_eq!(system_ram(text), 0x9_ec00 + 0x3fee_0000);
        assert_eq!(system_ram("nonsense\nx-y : System RAM\n"), 0);
    }
}
