//! SELinux labels of a system that has not run yet.
//!
//! [`label`] sets them while the system is installed, [`finish`] those that the
//! running policy refused: in the new system's initramfs
//! ([`late_labels`](crate::boot::late_labels)), where the kernel has no policy yet
//! and takes every label.

use std::fs;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;

use anyhow::{Context, Error, Result, bail, ensure};

use crate::appliance::Appliance;
use crate::appliance::machine;
use crate::appliance::selinux::Mode;
use crate::linux::mountinfo;
use crate::paths::{PROGRAM, UNLABELLED_FILE};
use crate::system::{Chroot, Cmd, Exited, System, files};
use crate::tree::resolve;

/// Without the labels of these no system starts, or lets anyone in.
const VITAL: [&str; 5] = [
    "/usr/lib/systemd/systemd",
    "/etc/selinux/config",
    "/etc/passwd",
    "/etc/shadow",
    PROGRAM,
];

/// What the kernel shows instead of a label that is missing or that its policy
/// does not know: the first of today's policies, the other of older ones.
const NO_TYPES: [&str; 2] = ["unlabeled_t", "file_t"];

/// Gives every file the SELinux label the target's own policy wants, where it
/// has one: the running kernel may not know the labels in the bundle, and a
/// system without labels does not start its services.
///
/// Where the running kernel enforces a policy that refuses some of them, because
/// it does not know them, a file in the tree says so, for [`finish`].
///
/// # Errors
/// When the target wants labels and `setfiles` is missing or fails.
pub fn label(appliance: &Appliance, root: &Path) -> Result<()> {
    // An image may have been made of a system in which the file was left.
    remove_if_there(&resolve::place(root, Path::new(UNLABELLED_FILE))?)?;
    let Some(policy) = wanted_policy(root)? else {
        return Ok(());
    };
    // Newer ones look for mounts in /proc, which they are then not to enter.
    let chroot = Chroot::enter(appliance.sys, root, &["/proc"])?;
    let outcome = chroot.run(setfiles(&policy));
    chroot.leave()?;
    match outcome {
        Ok(_) => require_vital(appliance.sys, root).context("labelling the new system"),
        Err(error) if Mode::of_running(appliance) == Mode::Enforcing && was_refused(&error) => {
            leave_the_rest(appliance, root, &error)
        }
        Err(error) => Err(error.context("labelling the new system")),
    }
}

/// Sets the labels that [`label`] had to leave in the system whose tree is `/`;
/// returns whether it had left any.
///
/// # Errors
/// When they cannot be set; the file that says so stays, with the reason in it.
pub fn finish(appliance: &Appliance) -> Result<bool> {
    let left = appliance.at(UNLABELLED_FILE);
    if !left.is_symlink() && !left.exists() {
        return Ok(false);
    }
    let mounts = machine::mounts(appliance)?;
    let is_writable = mountinfo::at(&mounts, Path::new("/")).is_some_and(|root| root.writable);
    let remount = |how: &str| {
        let cmd = Cmd::new("mount").args(["-o", how, "/"]);
        appliance.sys.run(&cmd).map(drop)
    };
    if !is_writable {
        remount("remount,rw")?;
    }
    let labelled = set_rest(appliance);
    if let Err(error) = &labelled {
        // What is told here is lost; the health check of the trial reads this.
        files::write_atomic(&left, format!("{error:#}\n").as_bytes(), 0o600)?;
    }
    if !is_writable {
        remount("remount,ro")?;
    }
    labelled.map(|()| true)
}

/// Returns what [`label`] or [`finish`] wrote of labels that are not set.
pub fn missing(appliance: &Appliance) -> Option<String> {
    let text = fs::read(appliance.at(UNLABELLED_FILE)).ok()?;
    Some(String::from_utf8_lossy(&text).trim().to_owned())
}

fn set_rest(appliance: &Appliance) -> Result<()> {
    let root = appliance.at("/");
    let policy = wanted_policy(&root)?.context("/etc/selinux/config names no policy")?;
    let chroot = Chroot::enter(appliance.sys, &root, &[])?;
    chroot.run(setfiles(&policy))?;
    chroot.leave()?;
    require_vital(appliance.sys, &root)?;
    // The labels first: power may go at any moment.
    appliance.sys.run(&Cmd::new("sync"))?;
    remove_if_there(&appliance.at(UNLABELLED_FILE))?;
    appliance.sys.run(&Cmd::new("sync")).map(drop)
}

/// Tells whether `setfiles` ran to its end without having set every label. It says
/// no more than that: which of them, and why, is prose.
fn was_refused(error: &Error) -> bool {
    // chroot(8) exits with 125 to 127 when it could not start the program.
    let code = error
        .downcast_ref::<Exited>()
        .filter(|exited| exited.status.signal().is_none())
        .and_then(|exited| exited.status.code());
    code.is_some_and(|code| !(125..=127).contains(&code))
}

fn leave_the_rest(appliance: &Appliance, root: &Path, error: &Error) -> Result<()> {
    let place = resolve::place(root, Path::new(UNLABELLED_FILE))?;
    let text = format!("not set by the system before, whose policy refused them: {error:#}\n");
    files::write_atomic(&place, text.as_bytes(), 0o600)?;
    appliance.progress.note(
        "the running SELinux policy does not know all labels of the new system; \
         it sets the rest in its initramfs, before it loads its own",
    );
    Ok(())
}

fn setfiles(policy: &str) -> Cmd {
    let contexts = format!("/etc/selinux/{policy}/contexts/files/file_contexts");
    Cmd::new("setfiles").args(["-F", "-e", "/proc", &contexts, "/"])
}

/// Reads back what decides whether the system starts.
fn require_vital(sys: &dyn System, root: &Path) -> Result<()> {
    for path in VITAL {
        let place = resolve::place(root, Path::new(path))?;
        if !place.exists() {
            continue;
        }
        let label = sys
            .selinux_label(&place)
            .with_context(|| format!("reading the SELinux label of {path}"))?;
        ensure!(
            label.is_some_and(|label| is_known(&label)),
            "{path} has no SELinux label although setfiles reported no error"
        );
    }
    Ok(())
}

/// Tells whether `label` (user:role:type, and with MLS a range) has a type that
/// means something.
fn is_known(label: &[u8]) -> bool {
    let text = String::from_utf8_lossy(label);
    let class = text.trim_end_matches('\0').split(':').nth(2);
    class.is_some_and(|class| !NO_TYPES.contains(&class))
}

/// Returns the policy of the tree at `root`, if it uses one.
fn wanted_policy(root: &Path) -> Result<Option<String>> {
    let settings = resolve::place(root, Path::new("/etc/selinux/config"))?;
    let text = fs::read_to_string(settings).unwrap_or_default();
    Ok(selinux_policy(&text).map(str::to_owned))
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

fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            bail!("removing {}: {error}", path.display())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::ExitStatus;

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

    #[test]
    fn a_label_without_a_type_of_its_own_counts_as_none() {
        for known in ["system_u:object_r:shadow_t:s0\0", "u:object_r:etc_t"] {
            assert!(is_known(known.as_bytes()), "{known}");
        }
        for unknown in [
            "system_u:object_r:unlabeled_t:s0\0",
            "system_u:object_r:file_t:s0",
            "",
            "garbage",
        ] {
            assert!(!is_known(unknown.as_bytes()), "{unknown}");
        }
    }

    #[test]
    fn only_a_setfiles_that_came_to_its_end_was_refused_labels() {
        let ended = |raw| {
            let status = ExitStatus::from_raw(raw);
            let words = "setfiles: Could not set context".to_owned();
            was_refused(&Error::from(Exited { status, words }).context("`setfiles`"))
        };
        for (raw, refused) in [
            (1, true),
            (255, true),
            (125, false),
            (126, false),
            (127, false),
        ] {
            assert_eq!(ended(raw << 8), refused, "{raw}");
        }
        assert!(!ended(9), "killed");
        assert!(!was_refused(&Error::msg("made no start")));
    }
}
