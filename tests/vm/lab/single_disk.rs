//! The disk of an early appliance: one partition with everything in it, and the GRUB
//! and the menu that Debian 11's tools make.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use va_upgrade::system::{Cmd, Mount, Mounted, System};

use super::cache::cached;
use super::disk::{Family, Loop, Partitions, make_file_system};
use super::host;
use super::rootfs::Debian;

const DISK_SIZE: u64 = 4 << 30;

/// The menu that grub-mkconfig made, with a UUID and a kernel of its own.
const MENU: &str = include_str!("../../data/grub-debian-11.cfg");
const UUID: &str = "5c6b7d0e-1a2b-4c3d-8e4f-0123456789ab";
const KERNEL: &str = "5.10.0-28-amd64";

const TABLE: &str = r#"printf 'label: dos\nlabel-id: 0xdeadbeef\nstart=2048,type=83,bootable\n' \
    | sfdisk --quiet "$1""#;

/// Lets the root's own GRUB install itself on the disk `$2`.
const INSTALL: &str = r#"set -e
    for dir in dev proc sys; do mount --bind "/$dir" "$1/$dir"; done
    chroot "$1" grub-install --target=i386-pc --no-floppy "$2""#;

/// Returns the disk, raw: an MBR with one ext4 partition. It has never seen
/// `va-upgrade`.
pub fn early_appliance() -> Result<PathBuf> {
    let tar = Debian::Bullseye.tar()?;
    let inputs = [
        &*tar.to_string_lossy(),
        include_str!("single_disk.rs"),
        MENU,
    ];
    let what = "the disk of an appliance with one root";
    cached("early-appliance.raw", what, &inputs, |path| {
        make(path, &tar)
    })
}

fn make(path: &Path, tar: &Path) -> Result<()> {
    let host = host();
    let sys: &dyn System = &host;
    File::create(path)?.set_len(DISK_SIZE)?;
    sys.run(&Cmd::new("sh").args(["-c", TABLE, "sh"]).arg(path))?;
    let disk = Loop::new(sys, path, 0, DISK_SIZE)?;
    let partitions = Partitions::new(&disk)?;
    let root = partitions.node(1);
    make_file_system(sys, &root, "root", Family::Debian, Some(UUID))?;
    let dir = tempfile::tempdir()?;
    let tree = Mounted::new(
        sys,
        &Mount::device(&root, &dir.path().join("root"), "ext4", ""),
    )?;
    let untar = Cmd::new("tar")
        .args([
            "--xattrs",
            "--xattrs-include=*",
            "--acls",
            "--numeric-owner",
            "-xpf",
        ])
        .arg(tar)
        .arg("-C")
        .arg(tree.path());
    sys.run(&untar)?;
    let write = |file: &str, text: &str| {
        fs::write(tree.path().join(file), text).with_context(|| format!("writing {file}"))
    };
    write(
        "etc/fstab",
        &format!("UUID={UUID} / ext4 errors=remount-ro 0 1\n"),
    )?;
    write("etc/hostname", "early\n")?;
    write("etc/hosts", "127.0.0.1 localhost early\n")?;
    write("etc/machine-id", "6f1d0c2ab3e94d5f8a7b6c5d4e3f2a1d\n")?;
    let install = Cmd::new("unshare").args(["--mount", "sh", "-c", INSTALL, "sh"]);
    sys.run(&install.arg(tree.path()).arg(&disk.device))?;
    let modules = fs::read_dir(tree.path().join("lib/modules"))?.next();
    let release = modules.context("no kernel")??.file_name();
    let menu = MENU
        .replace(KERNEL, &release.to_string_lossy())
        .replace("ro  quiet", "ro console=ttyS0 no_timer_check");
    write("boot/grub/grub.cfg", &menu)?;
    tree.unmount()
}
