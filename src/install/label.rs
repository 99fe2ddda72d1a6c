//! SELinux labels of a system that has not run yet.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::system::{Chroot, Cmd, System};
use crate::tree::resolve;

/// Gives every file the SELinux label the target's own policy wants, where it
/// has one: the running kernel may not know the labels in the bundle, and a
/// system without labels does not start its services.
///
/// # Errors
/// When the target wants labels and `setfiles` is missing or fails.
pub fn label(sys: &dyn System, root: &Path) -> Result<()> {
    let settings = resolve::place(root, Path::new("/etc/selinux/config"))?;
    let text = fs::read_to_string(settings).unwrap_or_default();
    let Some(policy) = selinux_policy(&text) else {
        return Ok(());
    };
    let contexts = format!("/etc/selinux/{policy}/contexts/files/file_contexts");
    // Newer ones look for mounts in /proc, which they are then not to enter.
    let chroot = Chroot::enter(sys, root, &["/proc"])?;
    let setfiles = Cmd::new("setfiles").args(["-F", "-e", "/proc", &contexts, "/"]);
    chroot.run(setfiles).context("labelling the new system")?;
    chroot.leave()
}

/// Returns the policy that selinux_config(5) names, unless it is switched off.
fn selinux_policy(config: &str) -> Option<&str> {
    let value = |name: &str| {
        let mut pairs = config.lines().filter_map(|line| line.split_once('='));
        pairs
            .rfind(|(key, _)| key.trim() == name)
            .map(|(_, value)| value.trim())
    };
    let mode = value("SELINUX")?;
    let policy = value("SELINUXTYPE").unwrap_or("targeted");
    let plain = policy
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    (mode != "disabled" && plain).then_some(policy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_follow_the_targets_own_settings() {
        let text = "# SELINUX= can take\nSELINUX=enforcing\nSELINUXTYPE=targeted\n";
        assert_eq!(selinux_policy(text), Some("targeted"));
        assert_eq!(
            selinux_policy("SELINUX=disabled\nSELINUXTYPE=targeted\n"),
            None
        );
        assert_eq!(
            selinux_policy("SELINUX=enforcing\nSELINUXTYPE=../x\n"),
            None
        );
        assert_eq!(selinux_policy(""), None);
    }
}
