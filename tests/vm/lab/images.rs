//! The two disks the tests start from: an appliance that was installed years
//! ago, and the virtual machine a new release was made in.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use va_upgrade::system::{Cmd, System};

use super::cache::cached;
use super::disk::{self, Contents};
use super::host;
use super::rootfs::Debian;

const DISK_CODE: &str = concat!(include_str!("disk.rs"), include_str!("../guest/grub.cfg"));

/// The OVF descriptor of the release, as much of it as import tools want.
const OVF: &str = include_str!("../guest/release.ovf");

/// Returns the disk of an appliance as its installation medium left it, raw.
/// It has never seen `va-upgrade`.
pub fn old_appliance() -> Result<PathBuf> {
    let tar = Debian::Bullseye.tar()?;
    cached(
        "old-appliance.raw",
        "the disk of the old appliance",
        &[&tar.to_string_lossy(), DISK_CODE],
        |path| {
            let contents = Contents {
                tar: &tar,
                boot_uuid: "0b5e55ed-0001-4000-8000-0123456789ab",
                hostname: "old-appliance",
                machine_id: "6f1d0c2ab3e94d5f8a7b6c5d4e3f2a1b",
            };
            disk::make(path, &contents)
        },
    )
}

/// Returns the new release as an OVA: a descriptor and one VMDK.
pub fn release_ova() -> Result<PathBuf> {
    let tar = Debian::Bookworm.tar()?;
    let inputs = [
        &tar.to_string_lossy(),
        DISK_CODE,
        OVF,
        include_str!("images.rs"),
    ];
    cached("release.ova", "the new release's OVA", &inputs, |path| {
        let work = tempfile::tempdir_in(path.parent().context("a path without a parent")?)?;
        let raw = work.path().join("release.raw");
        let contents = Contents {
            tar: &tar,
            boot_uuid: "0b5e55ed-0002-4000-8000-0123456789ab",
            hostname: "new-release",
            machine_id: "",
        };
        disk::make(&raw, &contents)?;
        pack_ova(work.path(), &raw, path)
    })
}

fn pack_ova(work: &Path, raw: &Path, ova: &Path) -> Result<()> {
    let host = host();
    let convert = Cmd::new("qemu-img")
        .args([
            "convert",
            "-f",
            "raw",
            "-O",
            "vmdk",
            "-o",
            "subformat=streamOptimized",
        ])
        .arg(raw)
        .arg(work.join("release-disk1.vmdk"));
    host.run(&convert)?;
    fs::write(work.join("release.ovf"), OVF)?;
    let pack = Cmd::new("tar")
        .args(["--format=ustar", "--owner=0", "--group=0", "-cf"])
        .arg(ova)
        .arg("-C")
        .arg(work)
        .args(["release.ovf", "release-disk1.vmdk"]);
    host.run(&pack).map(drop)
}

/// Returns the next release as a directory, the mounted root of a build host.
/// It has the kernel of the release in the OVA, and another initramfs.
pub fn next_release_tree() -> Result<PathBuf> {
    let tar = Debian::Bookworm.tar()?;
    cached(
        "next-release.tree",
        "the tree of the release after it",
        &[&tar.to_string_lossy(), include_str!("images.rs")],
        |path| {
            fs::create_dir(path)?;
            let untar = Cmd::new("tar")
                .args([
                    "--xattrs",
                    "--xattrs-include=*",
                    "--acls",
                    "--numeric-owner",
                    "-xpf",
                ])
                .arg(&tar)
                .arg("-C")
                .arg(path);
            host().run(&untar)?;
            mark_initramfs(path)
        },
    )
}

/// Puts an archive with the file `/lab-mark` before the initramfs, the way
/// microcode is put there.
fn mark_initramfs(root: &Path) -> Result<()> {
    let work = tempfile::tempdir()?;
    fs::write(work.path().join("lab-mark"), "next\n")?;
    let script = r#"cd "$1" && echo lab-mark | cpio --quiet -o -H newc >mark.cpio
        for initrd in "$2"/boot/initrd.img-*; do
            cat mark.cpio "$initrd" >initrd && cat initrd >"$initrd" || exit
        done"#;
    let cmd = Cmd::new("sh")
        .args(["-c", script, "sh"])
        .arg(work.path())
        .arg(root);
    host().run(&cmd).map(drop)
}
