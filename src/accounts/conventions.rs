//! What a system says of accounts outside of its account files.

use super::hashes::Checker;

/// Ids, other sources of names, and hashes, as a system handles them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conventions {
    /// The lowest uid of a person; below are the system's.
    pub uid_min: u32,
    /// The lowest gid of a person's group.
    pub gid_min: u32,
    /// Some names come from elsewhere: SSSD, LDAP, NIS or winbind.
    pub has_directory: bool,
    /// Which password hashes it can check.
    pub checker: Checker,
}

impl Default for Conventions {
    fn default() -> Conventions {
        Conventions {
            uid_min: 1000,
            gid_min: 1000,
            has_directory: false,
            checker: Checker::all(),
        }
    }
}

/// What older systems began at is 500; no system begins below or far above.
const MINIMUM: std::ops::RangeInclusive<u32> = 500..=10_000;

impl Conventions {
    /// Reads login.defs(5) and nsswitch.conf(5); what is silent or odd counts
    /// as it does by default.
    pub fn parse(login_defs: &str, nsswitch: &str, checker: Checker) -> Conventions {
        let default = Conventions::default();
        let minimum = |key: &str| {
            let value = login_defs.lines().rev().find_map(|line| {
                let mut words = line.split_ascii_whitespace();
                (words.next() == Some(key)).then(|| words.next()?.parse().ok())?
            });
            value.filter(|value| MINIMUM.contains(value))
        };
        let is_elsewhere = |source: &str| {
            [
                "sss", "ldap", "nis", "nisplus", "winbind", "hesiod", "compat",
            ]
            .contains(&source)
        };
        let has_directory = nsswitch.lines().any(|line| {
            let line = line.split('#').next().unwrap_or_default();
            let sources = line.trim().strip_prefix("passwd:");
            sources.is_some_and(|s| s.split_ascii_whitespace().any(is_elsewhere))
        });
        Conventions {
            uid_min: minimum("UID_MIN").unwrap_or(default.uid_min),
            gid_min: minimum("GID_MIN").unwrap_or(default.gid_min),
            has_directory,
            checker,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_and_sources_are_read() {
        let old = Conventions::parse(
            "#UID_MIN 7\nUID_MIN\t\t  500\nGID_MIN 0\n",
            "group: files ldap\npasswd:     files sss # local first\n",
            Checker::all(),
        );
        assert_eq!((old.uid_min, old.gid_min), (500, 1000));
        assert!(old.has_directory);
        let plain = Conventions::parse("", "passwd: files systemd #sss\n", Checker::all());
        assert_eq!(plain, Conventions::default());
    }
}
