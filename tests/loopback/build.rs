//! From a disk image to a bundle that stock tools can read.

use std::fs;
use std::path::{Path, PathBuf};

use va_upgrade::build::{BuildOptions, build};
use va_upgrade::bundle::{Codec, Manifest, PackMode, PackPlan};
use va_upgrade::failure::{Class, class_of};
use va_upgrade::progress::Silent;
use va_upgrade::source::Reader;
use va_upgrade::system::Host;

use super::disk::{Disk, FileSystem, Lvm, run, text};

const RELEASE: &str = "6.1.0-10-amd64";

/// An appliance's disk: /boot, and VG VA with root and data.
fn appliance(dir: &Path, with_initramfs: bool) -> PathBuf {
    let kernel = format!("vmlinuz-{RELEASE}");
    let initramfs = format!("initrd.img-{RELEASE}");
    let mut boot_files = vec![(kernel.as_str(), "kernel")];
    if with_initramfs {
        boot_files.push((&initramfs, "initramfs"));
    }
    let boot = FileSystem::make(dir, "ext4", "boot", 16, &boot_files);
    let data = FileSystem::make(dir, "ext4", "data", 16, &[("customer", "secret")]);
    let modules = format!("usr/lib/modules/{RELEASE}/modules.dep");
    let mut files = vec![
        ("etc/os-release", "ID=debian\nPRETTY_NAME=\"Debian 12\"\n"),
        (
            "etc/fstab",
            "LABEL=boot /boot ext4 defaults 0 2\n/dev/VA/data /data ext4 defaults 0 2\n",
        ),
        ("sbin/init", "->/usr/lib/systemd/systemd"),
        ("lib", "->usr/lib"),
        ("boot/", ""),
        ("data/", ""),
        (modules.as_str(), ""),
        ("usr/sbin/grub-install", ""),
        ("usr/bin/grub-script-check", ""),
        ("usr/bin/grub-mkimage", ""),
    ];
    let grub: Vec<String> =
        "boot.img diskboot.img kernel.img moddep.lst biosdisk.mod part_gpt.mod \
        part_msdos.mod ext2.mod xfs.mod search.mod search_fs_uuid.mod loadenv.mod test.mod \
        linux.mod normal.mod configfile.mod echo.mod reboot.mod sleep.mod gzio.mod"
            .split_whitespace()
            .map(|name| format!("usr/lib/grub/i386-pc/{name}"))
            .collect();
    files.extend(grub.iter().map(|path| (path.as_str(), "")));
    let root = FileSystem::make(dir, "ext4", "root", 48, &files);
    root.while_mounted(dir, |tree| {
        fs::create_dir_all(tree.join("usr/lib/systemd")).unwrap();
        fs::copy("/bin/true", tree.join("usr/lib/systemd/systemd")).unwrap();
    });
    let disk = Disk::new(dir.join("appliance.raw"), 120);
    disk.gpt(&[("ef02", 1), ("8300", 16), ("8e00", 90)]);
    disk.put_whole(&boot, disk.partition_offset(2));
    {
        let lvm = Lvm::new(&disk, &[(3, 90)]);
        lvm.group("VA", &[0]);
        for (name, system) in [("root", &root), ("data", &data)] {
            lvm.volume("VA", name, system.size_bytes >> 20);
            lvm.put("VA", name, system);
        }
    }
    disk.path
}

fn build_from(source: PathBuf, dir: &Path) -> anyhow::Result<Manifest> {
    let release = dir.join("release.yaml");
    fs::write(&release, "{product: Gateway, version: '9.4.1'}").unwrap();
    let options = BuildOptions {
        environment: false,
        source,
        output: dir.join("out.vab"),
        release,
        key: None,
        result: None,
        root: None,
        data_volumes: vec!["data".into(), "image".into()],
        plan: PackPlan::new(Codec::Xz, PackMode::Default),
        threads: 2,
        settings: Vec::new(),
        reader: Reader::Kernel,
        clamp: false,
    };
    let host = Host::new(false);
    host.enter_private_mounts().unwrap();
    Ok(build(&host, &options, &Silent)?.manifest)
}

fn mounted_now() -> String {
    run("cat", &["/proc/thread-self/mounts"])
}

#[test]
fn an_appliances_disk_becomes_a_bundle_that_tar_can_read() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let manifest = build_from(appliance(dir, true), dir).unwrap();
    assert_eq!(manifest.boot.kernel_release, RELEASE);
    assert_eq!(manifest.boot.kernel, format!("boot/vmlinuz-{RELEASE}"));
    assert_eq!(manifest.boot.initramfs_bytes, "initramfs".len() as u64);
    assert_eq!(manifest.architecture, "x86_64");
    let bundle = dir.join("out.vab");
    let script = format!("tar -xOf {} rootfs.tar.xz | tar -tJ", text(&bundle));
    let names = run("sh", &["-c", &script]);
    let names: Vec<&str> = names
        .lines()
        .map(|name| name.trim_start_matches("./").trim_end_matches('/'))
        .collect();
    for wanted in [
        "boot/vmlinuz-6.1.0-10-amd64",
        "data",
        "usr/sbin/grub-install",
    ] {
        assert!(names.contains(&wanted), "{wanted} in {names:?}");
    }
    assert!(!names.contains(&"data/customer"), "{names:?}");
    assert!(!names.contains(&"boot/lost+found"), "{names:?}");
    assert!(!mounted_now().contains("va-upgrade "), "{}", mounted_now());
}

#[test]
fn a_source_that_would_not_boot_is_refused_and_the_old_bundle_stays() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fs::write(dir.join("out.vab"), "old").unwrap();
    let error = build_from(appliance(dir, false), dir).unwrap_err();
    assert_eq!(class_of(&error), Class::Refused, "{error:#}");
    let shown = format!("{error:#}");
    assert!(shown.contains("has no initramfs"), "{shown}");
    assert!(shown.contains("appliance.raw"), "{shown}");
    assert_eq!(fs::read(dir.join("out.vab")).unwrap(), b"old");
    assert!(!mounted_now().contains("va-upgrade "), "{}", mounted_now());
}
