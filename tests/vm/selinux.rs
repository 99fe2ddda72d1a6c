//! SELinux, enforced on both sides of an upgrade, and labels that are set inside the
//! initramfs of the new one.

use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use va_upgrade::paths::UNLABELLED_FILE;
use va_upgrade::system::{Cmd, System};

use crate::appliance::{Appliance, RELEASE, program};
use crate::initramfs::Start;
use crate::lab::dracut::Dracut;
use crate::lab::host;
use crate::lab::rootfs::Debian;

/// Tells on the console what became of the labels, then restarts the machine.
const REPORT: &str = r"[Unit]
Description=Tells what became of the labels
After=local-fs.target
[Service]
Type=oneshot
StandardOutput=tty
StandardError=tty
TTYPath=/dev/console
ExecStart=/bin/sh -c 'echo lab-mode $(cat /sys/fs/selinux/enforce)'
ExecStart=/bin/sh -c 'echo lab-shadow $(stat -c %%C /etc/shadow)'
ExecStart=/bin/sh -c 'echo lab-without $(find / -xdev -context *:unlabeled_t:* 2>&1)'
ExecStart=/bin/sh -c 'ls /.va-upgrade-unlabelled; echo lab-end'
ExecStart=/bin/systemctl reboot --no-block
[Install]
WantedBy=multi-user.target
";

/// Makes a disk with a system that enforces SELinux and has no label at all, but
/// the word that they are to be set.
fn disk_without_labels(path: &Path) -> Result<()> {
    let work = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let root = work.path();
    let tar = Debian::BookwormWithSelinux.tar()?;
    let untar = Cmd::new("tar").arg("-xpf").arg(tar).arg("-C").arg(root);
    host().run(&untar)?;
    fs::copy(program()?, root.join("usr/sbin/va-upgrade"))?;
    for (file, text) in [
        ("etc/fstab", "/dev/vda / ext4 errors=remount-ro 0 1\n"),
        (
            "etc/selinux/config",
            "SELINUX=enforcing\nSELINUXTYPE=default\n",
        ),
        ("etc/systemd/system/lab-report.service", REPORT),
        (&UNLABELLED_FILE[1..], "not set by the system before\n"),
    ] {
        fs::write(root.join(file), text).with_context(|| format!("writing {file}"))?;
    }
    host().run(
        &Cmd::new("systemctl")
            .args(["enable", "lab-report"])
            .chroot(root),
    )?;
    File::create(path)?.set_len(1 << 30)?;
    let mkfs = Cmd::new("mkfs.ext4").args(["-q", "-F", "-d"]).arg(root);
    host().run(&mkfs.arg(path)).map(drop)
}

#[test]
#[ignore = "starts virtual machines"]
fn dracut_has_the_labels_set_before_the_policy_is_enforced() -> Result<()> {
    let work = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let disk = work.path().join("disk.raw");
    disk_without_labels(&disk)?;
    let console = Start {
        dracut: &Dracut::of(Debian::Bookworm)?,
        packing: "zstd",
        seconds: 3600,
        words: "root=/dev/vda ro security=selinux",
        disk: Some(&disk),
    }
    .run()?;
    let told = |word: &str| -> Result<&str> {
        let line = console.lines().find_map(|line| line.strip_prefix(word));
        Ok(line
            .with_context(|| format!("no {word} in {console}"))?
            .trim())
    };
    assert_eq!(told("lab-mode")?, "1", "{console}");
    assert_eq!(told("lab-shadow")?, "system_u:object_r:shadow_t:s0");
    assert_eq!(told("lab-without")?, "", "{console}");
    ensure!(console.contains("all SELinux labels are set"), "{console}");
    Ok(())
}

/// What a root shell runs in; what a service runs is in `initrc_t`.
const SHELL: &str = "runcon unconfined_u:unconfined_r:unconfined_t:s0";

fn assert_enforcing(appliance: &mut Appliance) -> Result<()> {
    assert_eq!(appliance.ok("cat /sys/fs/selinux/enforce")?, "1");
    Ok(())
}

#[test]
#[ignore = "starts virtual machines"]
fn an_upgrade_to_a_policy_with_new_types_is_enforcing_all_the_time() -> Result<()> {
    let mut appliance = Appliance::with_selinux("selinux")?;
    assert_enforcing(&mut appliance)?;
    let told = appliance.ok("va-upgrade check")?;
    let word = "set when that starts, in its initramfs";
    assert!(told.contains(word), "{told}");
    appliance.mount_payload()?;
    let told = appliance.ok(&format!("va-upgrade apply /mnt/{RELEASE}.vab 2>&1"))?;
    assert!(told.contains("does not know all labels"), "{told}");
    appliance.ok("umount /mnt")?;
    assert_enforcing(&mut appliance)?;

    let starts = appliance.command_lines().len();
    appliance.reboot()?;
    appliance.wait_until_committed("back")?;
    assert_enforcing(&mut appliance)?;
    assert_eq!(appliance.command_lines().len(), starts + 1, "one try");
    let console = appliance.console();
    let last = console.rsplit("all SELinux labels are set").next();
    assert!(last.is_some_and(|rest| rest.contains("SELinux:  policy capability")));
    assert_eq!(
        appliance.ok("stat -c %C /usr/local/sbin/lab-tool")?,
        "system_u:object_r:lab_tool_t:s0"
    );
    appliance.ok("! test -e /.va-upgrade-unlabelled")?;
    let unlabelled = "find / -xdev -context '*:unlabeled_t:*'";
    assert_eq!(appliance.ok(unlabelled)?, "");

    appliance.ok(&format!("{SHELL} va-upgrade rollback"))?;
    appliance.start_reboot()?;
    appliance.wait_for_boot_of("/dev/mapper/VA-root")?;
    assert_enforcing(&mut appliance)?;
    let status = appliance.status()?;
    assert_eq!(status["booted"], "root", "{status}");
    Ok(())
}
