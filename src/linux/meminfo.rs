//! Memory and swap, as the kernel tells of them in `/proc`.

/// A swap area in use: a line of `/proc/swaps` (proc(5)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Swap {
    /// The device or file, as the kernel names it.
    pub device: String,
    /// How much of it is in use.
    pub used_bytes: u64,
}

/// Reads the line `MemAvailable` of `/proc/meminfo` (proc(5)); Linux before 3.14
/// has none.
pub fn available_bytes(meminfo: &str) -> Option<u64> {
    let mut lines = meminfo.lines();
    let value = lines.find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

/// Parses `/proc/swaps`: a heading, then name, type, size, used and priority.
pub fn swaps(text: &str) -> Vec<Swap> {
    let parse = |line: &str| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let [device, _, _, used, _] = columns[..] else {
            return None;
        };
        let kib: u64 = used.parse().ok()?;
        Some(Swap {
            device: device.to_owned(),
            used_bytes: kib.checked_mul(1024)?,
        })
    };
    text.lines().skip(1).filter_map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_memory_is_read_where_the_kernel_tells_it() {
        let text = "MemTotal:  2000 kB\nMemFree: 1 kB\nMemAvailable:   1000 kB\n";
        assert_eq!(available_bytes(text), Some(1000 << 10));
        assert_eq!(available_bytes("MemTotal: 2000 kB\n"), None);
        assert_eq!(available_bytes("MemAvailable: many\n"), None);
    }

    #[test]
    fn swap_areas_are_read_with_what_is_in_use() {
        let text = "Filename\t\t\tType\t\tSize\tUsed\tPriority\n\
                    /dev/dm-1  partition\t524284\t12\t-2\n/swap\\040file file 1 0 -3\nodd\n";
        let found = swaps(text);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].device, "/dev/dm-1");
        assert_eq!(found[0].used_bytes, 12 << 10);
        assert!(swaps("").is_empty());
    }
}
