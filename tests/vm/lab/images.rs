//! The two disks the tests start from: an appliance that was installed years
//! ago, and the virtual machine a new release was made in.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use va_upgrade::system::{Cmd, System};

use super::cache::cached;
use super::disk::{self, Contents, Family};
use super::host;
use super::rootfs::Debian;

const DISK_CODE: &str = concat!(include_str!("disk.rs"), include_str!("../guest/grub.cfg"));

const RHEL_DISK_CODE: &str = concat!(
    include_str!("disk.rs"),
    include_str!("rhel.rs"),
    include_str!("../guest/rhel-grub.cfg")
);

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
                family: Family::Debian,
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
            family: Family::Debian,
            tar: &tar,
            boot_uuid: "0b5e55ed-0002-4000-8000-0123456789ab",
            hostname: "new-release",
            machine_id: "",
        };
        disk::make(&raw, &contents)?;
        pack_ova(work.path(), &raw, path)
    })
}

/// A module of the new policy.
const NEW_TYPE: &str = r#"
    (type lab_tool_t)
    (roletype object_r lab_tool_t)
    (typeattributeset file_type (lab_tool_t))
    (typeattributeset non_security_file_type (lab_tool_t))
    (filecon "/usr/local/sbin/lab-tool" file (system_u object_r lab_tool_t ((s0) (s0))))
"#;

/// Gives the root `$1` that module, a file of the type, and every file its label.
const LABEL: &str = r#"set -e
    chroot "$1" semodule -n -s default -i /lab.cil
    rm "$1/lab.cil"
    sed -i s/^SELINUX=.*/SELINUX=enforcing/ "$1/etc/selinux/config"
    echo lab >"$1/usr/local/sbin/lab-tool"
    mount --bind /proc "$1/proc"
    chroot "$1" setfiles -F -e /proc /etc/selinux/default/contexts/files/file_contexts /"#;

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

/// Returns the disk of an appliance whose root has an SELinux policy; neither
/// labels nor anything that enforces it yet.
pub fn appliance_with_policy() -> Result<PathBuf> {
    let tar = Debian::BookwormWithSelinux.tar()?;
    cached(
        "selinux-appliance.raw",
        "the disk of an appliance with an SELinux policy",
        &[&tar.to_string_lossy(), DISK_CODE],
        |path| {
            let contents = Contents {
                family: Family::Debian,
                tar: &tar,
                boot_uuid: "0b5e55ed-0003-4000-8000-0123456789ab",
                hostname: "selinux-appliance",
                machine_id: "6f1d0c2ab3e94d5f8a7b6c5d4e3f2a1c",
            };
            disk::make(path, &contents)
        },
    )
}

/// Returns a release whose policy has a type that [`appliance_with_policy`] does not
/// know, as the tree of a machine that enforces it.
pub fn release_with_new_type() -> Result<PathBuf> {
    let tar = Debian::BookwormWithSelinux.tar()?;
    let inputs = [&*tar.to_string_lossy(), NEW_TYPE, LABEL];
    let what = "a release with a new SELinux type";
    cached("selinux-release.tree", what, &inputs, |path| {
        fs::create_dir(path)?;
        let untar = Cmd::new("tar").arg("-xpf").arg(&tar).arg("-C").arg(path);
        host().run(&untar)?;
        fs::write(path.join("lab.cil"), NEW_TYPE)?;
        let label = Cmd::new("unshare").args(["--mount", "sh", "-c", LABEL, "sh"]);
        host().run(&label.arg(path)).map(drop)
    })
}

/// Returns the disk of an appliance of CentOS 7's shape, which enforces SELinux and
/// has never seen `va-upgrade`.
pub fn old_rhel_appliance() -> Result<PathBuf> {
    let name = "the disk of an old appliance of the RHEL family's shape";
    rhel_disk("rhel-appliance.raw", name, Debian::BullseyeAsRhel)
}

/// Returns the disk that a new release of Rocky 9's shape was made on.
pub fn rhel_release() -> Result<PathBuf> {
    let name = "the disk of a new release of the RHEL family's shape";
    rhel_disk("rhel-release.raw", name, Debian::BookwormAsRhel)
}

fn rhel_disk(file: &str, name: &str, debian: Debian) -> Result<PathBuf> {
    let tar = debian.tar()?;
    let inputs = [&*tar.to_string_lossy(), RHEL_DISK_CODE];
    let (boot_uuid, machine_id) = match debian {
        Debian::BullseyeAsRhel => (
            "0b5e55ed-0004-4000-8000-0123456789ab",
            "6f1d0c2ab3e94d5f8a7b6c5d4e3f2a1d",
        ),
        _ => ("0b5e55ed-0005-4000-8000-0123456789ab", ""),
    };
    cached(file, name, &inputs, |path| {
        let contents = Contents {
            family: Family::Rhel,
            tar: &tar,
            boot_uuid,
            hostname: "lab-linux",
            machine_id,
        };
        disk::make(path, &contents)
    })
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
