//! Files of kernel settings, as sysctl.d(5) has them.

/// Where these files are, and one of the old kind.
pub const DIRS: [&str; 5] = [
    "/etc/sysctl.d",
    "/run/sysctl.d",
    "/usr/local/lib/sysctl.d",
    "/usr/lib/sysctl.d",
    "/lib/sysctl.d",
];

/// The file that sysctl(8) reads besides.
pub const FILE: &str = "/etc/sysctl.conf";

/// Tells whether `text` sets `name`, such as `kernel.panic`, to `value`.
pub fn sets(text: &str, name: &str, value: &str) -> bool {
    let is_setting = |line: &str| {
        let Some((key, set)) = line.split_once('=') else {
            return false;
        };
        // A `-` has failures ignored; dots and slashes both part a name.
        let key = key.trim().trim_start_matches('-').replace('/', ".");
        key == name && set.trim() == value
    };
    text.lines().any(is_setting)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_found_in_either_spelling_and_not_in_a_comment() {
        for line in [
            "kernel.panic = 10",
            "vm.swappiness=1\n-kernel/panic=10\n",
            " kernel.panic=10 ",
        ] {
            assert!(sets(line, "kernel.panic", "10"), "{line}");
        }
        for line in [
            "#kernel.panic = 10",
            "; kernel.panic = 10",
            "kernel.panic = 1",
            "kernel.panic_on_oops = 10",
            "kernel.panic",
        ] {
            assert!(!sets(line, "kernel.panic", "10"), "{line}");
        }
    }
}
