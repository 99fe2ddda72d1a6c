//! The end of a trial inside the initramfs.
//!
//! A trial that hangs before its root is up reaches none of the services that
//! would end it. So the slot's initramfs gets a small archive appended, with a
//! hook for each of the two families: initramfs-tools reads every file in
//! `/conf/conf.d` into its init, dracut runs `/lib/dracut/hooks/pre-udev/*.sh`.
//! Either starts the script in `initramfs/deadline.sh`, which acts on trials only.
//!
//! What dracut gives up on (`die` in its dracut-lib.sh) it halts or powers off,
//! whatever `rd.emergency` says, and nobody is there to start the machine again.
//! Before that it sources the `shutdown-emergency` hooks (dracut.modules(7)), of
//! which `initramfs/given-up.sh` is one.
//!
//! The files by which udev names network cards come along: where the initramfs has
//! their drivers, udev names them there, and once only.

use super::late_labels;
use super::newc::{self, Entry};

const DEADLINE: &str = include_str!("../../initramfs/deadline.sh");
const GIVEN_UP: &str = include_str!("../../initramfs/given-up.sh");

/// Renders the archive for a deadline this many seconds after the kernel's start,
/// with the hooks for [`late_labels`] and udev's `links` for network cards in it.
pub fn archive(seconds: u64, links: &[(String, Vec<u8>)]) -> Vec<u8> {
    let script = DEADLINE.replace("@SECONDS@", &seconds.to_string());
    let directory = |path| Entry {
        path,
        mode: 0o040_755,
        content: &[],
    };
    let file = |path, content| Entry {
        path,
        mode: 0o100_755,
        content,
    };
    let paths: Vec<String> = links
        .iter()
        .map(|(name, _)| format!("etc/systemd/network/{name}"))
        .collect();
    let mut entries = vec![
        directory("conf"),
        directory("conf/conf.d"),
        file("conf/conf.d/va-upgrade-deadline", script.as_bytes()),
        // Without its directory the kernel passes over a file. Newer dracuts
        // have theirs below /var.
        file(
            "lib/dracut/hooks/pre-udev/00-va-upgrade-deadline.sh",
            script.as_bytes(),
        ),
        file(
            "var/lib/dracut/hooks/pre-udev/00-va-upgrade-deadline.sh",
            script.as_bytes(),
        ),
        file(
            "lib/dracut/hooks/shutdown-emergency/00-va-upgrade-given-up.sh",
            GIVEN_UP.as_bytes(),
        ),
        file(
            "var/lib/dracut/hooks/shutdown-emergency/00-va-upgrade-given-up.sh",
            GIVEN_UP.as_bytes(),
        ),
    ];
    if !links.is_empty() {
        entries.extend(["etc", "etc/systemd", "etc/systemd/network"].map(directory));
    }
    for (path, (_, content)) in paths.iter().zip(links) {
        entries.push(Entry {
            path,
            mode: 0o100_644,
            content,
        });
    }
    entries.extend(late_labels::entries());
    newc::archive(&entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deadline_is_written_into_the_script() {
        let text = String::from_utf8_lossy(&archive(600, &[])).into_owned();
        assert!(text.contains("va_seconds=600\n"), "{text}");
        assert!(!text.contains('@') && !text.contains("systemd/network"));
    }

    #[test]
    fn udevs_files_for_cards_are_put_where_it_reads_them() {
        let links = [("10-va-ens192.link".to_owned(), b"[Match]".to_vec())];
        let text = String::from_utf8_lossy(&archive(600, &links)).into_owned();
        let at = |path: &str| text.find(path).unwrap_or_else(|| panic!("{path}"));
        let dir = at("etc/systemd/network\0");
        assert!(dir < at("etc/systemd/network/10-va-ens192.link\0"));
    }
}
