//! Words of a command line that a person gives to one boot, to repair a system.

/// systemd's words for its rescue and emergency targets (systemd(1), under
/// "kernel command line", and its table of SysV's words).
const REPAIR_WORDS: [&str; 10] = [
    "-b",
    "-s",
    "1",
    "S",
    "emergency",
    "rd.emergency",
    "rd.rescue",
    "rescue",
    "s",
    "single",
];

/// Where dracut and initramfs-tools stop for a shell, with or without a value.
const BREAKPOINTS: [&str; 2] = ["break", "rd.break"];

/// Words that name the unit to start.
const UNIT_WORDS: [&str; 2] = ["rd.systemd.unit", "systemd.unit"];

/// Units that are started to repair a system; any other is a product's choice.
const REPAIR_UNITS: [&str; 5] = [
    "emergency.service",
    "emergency.target",
    "rescue.service",
    "rescue.target",
    "runlevel1.target",
];

/// Words that name the first program.
const INIT_WORDS: [&str; 2] = ["init", "rdinit"];

/// Tells whether `word` starts a system for repair.
pub fn is_repair(word: &str) -> bool {
    let (name, value) = word.split_once('=').unwrap_or((word, ""));
    REPAIR_WORDS.contains(&word)
        || BREAKPOINTS.contains(&name)
        || UNIT_WORDS.contains(&name) && REPAIR_UNITS.contains(&value)
}

/// Tells whether `word` replaces the first program, a shell for a repair or an
/// init of the product's own.
pub fn is_init(word: &str) -> bool {
    let name = word.split('=').next().unwrap_or(word);
    INIT_WORDS.contains(&name)
}

/// Tells whether `word` ends the kernel's own arguments: what stands behind `--` is
/// for init (`Documentation/admin-guide/kernel-parameters.rst`), so words that an
/// entry adds at the end would be lost. Debian's installer writes `---`.
pub fn is_end(word: &str) -> bool {
    matches!(word.trim_matches('"'), "--" | "---")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_starts_a_repair_is_for_one_boot() {
        for word in [
            "single",
            "1",
            "s",
            "S",
            "emergency",
            "rescue",
            "rd.break",
            "rd.break=pre-mount",
            "break=mount",
            "systemd.unit=rescue.target",
            "systemd.unit=emergency.target",
            "rd.systemd.unit=rescue.target",
        ] {
            assert!(is_repair(word), "{word}");
        }
        for word in [
            "3",
            "quiet",
            "rescue=no",
            "systemd.unit=graphical.target",
            "systemd.unit=gateway.target",
            "init=/sbin/own",
            "console=ttyS0,1",
        ] {
            assert!(!is_repair(word), "{word}");
        }
        assert!(is_init("init=/bin/sh") && is_init("rdinit=/own") && !is_init("initcall_debug"));
    }
}
