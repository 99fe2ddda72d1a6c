use super::*;
use crate::failure::{Class, class_of};
use std::fs;
use std::os::unix::fs::symlink;

/// A tree that boots, in the places a family of distributions uses.
struct Sample {
    dir: tempfile::TempDir,
}

impl Sample {
    fn new(family_prefix: &str, os_release: &str, libc: &str) -> Sample {
        let dir = tempfile::tempdir().unwrap();
        let sample = Sample { dir };
        for link in ["bin", "sbin", "lib", "lib64"] {
            fs::create_dir_all(sample.root().join("usr").join(link)).unwrap();
            symlink(format!("usr/{link}"), sample.root().join(link)).unwrap();
        }
        sample.write("usr/lib/os-release", os_release);
        fs::create_dir_all(sample.root().join("etc")).unwrap();
        symlink(
            "../usr/lib/os-release",
            sample.root().join("etc/os-release"),
        )
        .unwrap();
        sample.write_bytes("usr/lib/systemd/systemd", &elf::sample::x86_64(None));
        sample.write_bytes(libc, &elf::sample::x86_64(None));
        for tool in ["install", "script-check", "mkimage"] {
            let dir = if tool == "install" {
                "usr/sbin"
            } else {
                "usr/bin"
            };
            sample.write(&format!("{dir}/{family_prefix}-{tool}"), "");
        }
        for name in [
            "boot.img diskboot.img kernel.img moddep.lst biosdisk.mod part_gpt.mod",
            "part_msdos.mod ext2.mod xfs.mod search.mod search_fs_uuid.mod loadenv.mod",
            "test.mod linux.mod normal.mod configfile.mod echo.mod reboot.mod sleep.mod gzio.mod",
        ]
        .iter()
        .flat_map(|line| line.split(' '))
        {
            sample.write(&format!("usr/lib/grub/i386-pc/{name}"), "");
        }
        sample
    }

    fn debian() -> Sample {
        let sample = Sample::new(
            "grub",
            "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nID=debian\nVERSION_ID=\"12\"\n",
            "usr/lib/x86_64-linux-gnu/libc.so.6",
        );
        sample.kernel("6.1.0-9-amd64", "initrd.img-6.1.0-9-amd64");
        sample.kernel("6.1.0-10-amd64", "initrd.img-6.1.0-10-amd64");
        sample
    }

    fn rocky() -> Sample {
        let sample = Sample::new(
            "grub2",
            "NAME=\"Rocky Linux\"\nVERSION=\"9.4\"\nID=\"rocky\"\nVERSION_ID=\"9.4\"\n\
             PRETTY_NAME=\"Rocky Linux 9.4 (Blue Onyx)\"\n",
            "usr/lib64/libc.so.6",
        );
        let release = "5.14.0-427.13.1.el9_4.x86_64";
        sample.kernel(release, &format!("initramfs-{release}.img"));
        sample.write("boot/vmlinuz-0-rescue-0123456789abcdef", "");
        sample
    }

    fn root(&self) -> &Path {
        self.dir.path()
    }

    fn write(&self, path: &str, text: &str) {
        self.write_bytes(path, text.as_bytes());
    }

    fn write_bytes(&self, path: &str, bytes: &[u8]) {
        let path = self.root().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn kernel(&self, release: &str, initramfs: &str) {
        self.write(&format!("boot/vmlinuz-{release}"), "");
        self.write(&format!("boot/{initramfs}"), "");
        self.write(&format!("usr/lib/modules/{release}/modules.dep"), "");
    }

    fn remove(&self, path: &str) {
        fs::remove_file(self.root().join(path)).unwrap();
    }

    fn refusal(&self) -> String {
        let error = inspect(self.root()).unwrap_err();
        assert_eq!(class_of(&error), Class::Refused, "{error:#}");
        format!("{error:#}")
    }
}

#[test]
fn a_debian_tree_is_described() {
    let target = inspect(Sample::debian().root()).unwrap();
    assert_eq!(
        target,
        Bootable {
            kernel: KernelFiles {
                release: "6.1.0-10-amd64".into(),
                image: "boot/vmlinuz-6.1.0-10-amd64".into(),
                initramfs: "boot/initrd.img-6.1.0-10-amd64".into(),
            },
            grub: GrubTools {
                install: "/usr/sbin/grub-install".into(),
                script_check: "/usr/bin/grub-script-check".into(),
                mkimage: "/usr/bin/grub-mkimage".into(),
                platform_dir: "/usr/lib/grub/i386-pc".into(),
                dir_name: "grub",
            },
            architecture: "x86_64",
            cpu_level: CpuLevel::V1,
            os_name: "Debian GNU/Linux 12 (bookworm)".into(),
            os_version: "12".into(),
        }
    );
}

#[test]
fn a_rocky_tree_is_described() {
    let target = inspect(Sample::rocky().root()).unwrap();
    assert_eq!(target.kernel.release, "5.14.0-427.13.1.el9_4.x86_64");
    assert_eq!(target.grub.install, Path::new("/usr/sbin/grub2-install"));
    assert_eq!(target.grub.dir_name, "grub2");
    assert_eq!(target.cpu_level, CpuLevel::V2);
    assert_eq!(target.os_name, "Rocky Linux 9.4 (Blue Onyx)");
}

#[test]
fn what_the_libraries_say_beats_what_the_distribution_says() {
    // AlmaLinux 10 has a rebuild for x86-64-v2.
    let sample = Sample::rocky();
    sample.write("usr/lib/os-release", "ID=almalinux\nVERSION_ID=10.0\n");
    assert_eq!(inspect(sample.root()).unwrap().cpu_level, CpuLevel::V3);
    sample.write_bytes("usr/lib64/libc.so.6", &elf::sample::x86_64(Some(3)));
    assert_eq!(inspect(sample.root()).unwrap().cpu_level, CpuLevel::V2);
    sample.write_bytes(
        "usr/lib64/ld-linux-x86-64.so.2",
        &elf::sample::x86_64(Some(7)),
    );
    assert_eq!(inspect(sample.root()).unwrap().cpu_level, CpuLevel::V3);
}

#[test]
fn everything_that_is_missing_is_named_at_once_with_its_package() {
    let sample = Sample::rocky();
    sample.remove("usr/sbin/grub2-install");
    sample.remove("usr/lib/grub/i386-pc/xfs.mod");
    sample.remove("boot/vmlinuz-5.14.0-427.13.1.el9_4.x86_64");
    let text = sample.refusal();
    for word in [
        "Rocky Linux 9.4",
        "kernel-core",
        "linux-image-amd64",
        "grub2-tools",
        "grub2-common",
        "lacks xfs.mod",
        "grub2-pc-modules",
        "grub-pc-bin",
    ] {
        assert!(text.contains(word), "{word} in {text}");
    }
}

#[test]
fn a_kernel_without_modules_is_passed_over_for_an_older_one() {
    let sample = Sample::debian();
    sample.remove("usr/lib/modules/6.1.0-10-amd64/modules.dep");
    let target = inspect(sample.root()).unwrap();
    assert_eq!(target.kernel.release, "6.1.0-9-amd64");
    sample.remove("usr/lib/modules/6.1.0-9-amd64/modules.dep");
    assert!(sample.refusal().contains("6.1.0-10-amd64 has no modules"));
}

#[test]
fn a_kernel_without_initramfs_is_refused_with_the_way_out() {
    let sample = Sample::debian();
    sample.remove("boot/initrd.img-6.1.0-10-amd64");
    let text = sample.refusal();
    assert!(
        text.contains("update-initramfs -c -k 6.1.0-10-amd64"),
        "{text}"
    );
}

#[test]
fn links_to_the_kernel_are_resolved_inside_the_tree() {
    let sample = Sample::debian();
    let release = "6.1.0-11-amd64";
    sample.kernel(release, &format!("initrd.img-{release}"));
    sample.write(&format!("usr/lib/modules/{release}/vmlinuz"), "");
    sample.remove(&format!("boot/vmlinuz-{release}"));
    let link = sample.root().join(format!("boot/vmlinuz-{release}"));
    symlink(format!("/lib/modules/{release}/vmlinuz"), link).unwrap();
    assert_eq!(
        inspect(sample.root()).unwrap().kernel.image,
        Path::new(&format!("usr/lib/modules/{release}/vmlinuz"))
    );
}

#[test]
fn a_tree_for_another_machine_or_without_systemd_is_refused() {
    let sample = Sample::debian();
    let mut arm = elf::sample::x86_64(None);
    arm[18] = 183;
    sample.write_bytes("usr/lib/systemd/systemd", &arm);
    assert!(sample.refusal().contains("aarch64"));
    sample.remove("usr/lib/systemd/systemd");
    assert!(sample.refusal().contains("no systemd"));
}

#[test]
fn a_directory_that_is_no_root_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let error = inspect(dir.path()).unwrap_err();
    assert_eq!(class_of(&error), Class::Refused);
}
