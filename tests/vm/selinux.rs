//! SELinux: labels that are set inside the initramfs, before a policy is loaded.

use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use va_upgrade::paths::UNLABELLED_FILE;
use va_upgrade::system::{Cmd, System};

use crate::appliance::program;
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
