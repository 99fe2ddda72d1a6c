//! SELinux labels that are set inside the initramfs.
//!
//! A kernel takes any label until it has a policy (Linux 5.5 and newer), and
//! systemd loads that in the real root. So the initramfs is where labels are set
//! that the system before did not know: `initramfs/labels.sh` starts
//! `va-upgrade boot --labels` of the root, where it is asked to. dracut sources it
//! as a `pre-pivot` hook; initramfs-tools sources what stands in
//! `/scripts/init-bottom/ORDER`, which a file in `/conf/conf.d` appends it to.

use super::newc::Entry;

const LABELS: &str = include_str!("../../initramfs/labels.sh");
const ORDER: &str = include_str!("../../initramfs/labels-order.sh");

/// Returns what the archive needs besides the directory `/conf/conf.d`.
pub fn entries() -> [Entry<'static>; 4] {
    [
        ("conf/va-upgrade-labels.sh", LABELS),
        ("conf/conf.d/va-upgrade-labels", ORDER),
        // Newer dracuts have theirs below /var.
        ("lib/dracut/hooks/pre-pivot/00-va-upgrade-labels.sh", LABELS),
        (
            "var/lib/dracut/hooks/pre-pivot/00-va-upgrade-labels.sh",
            LABELS,
        ),
    ]
    .map(|(path, script)| Entry {
        path,
        mode: 0o100_755,
        content: script.as_bytes(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paths::{PROGRAM, UNLABELLED_FILE};

    #[test]
    fn the_scripts_name_the_paths_that_the_program_has() {
        for path in [UNLABELLED_FILE, PROGRAM] {
            assert!(LABELS.contains(path), "{path}");
        }
        let [script, ..] = entries();
        assert!(ORDER.contains(&format!("'. /{}'", script.path)));
    }
}
