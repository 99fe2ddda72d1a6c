//! A small release: a tree that has what a root needs, and its bundle.

use std::fs;
use std::path::{Path, PathBuf};

use va_upgrade::boot::bootable;
use va_upgrade::bundle::{self, BootFiles, PackOptions, Release, TreeFacts};
use va_upgrade::progress::Silent;

use crate::machine::boot_img;

/// Makes the tree of a release in `dir`.
pub fn make_tree(dir: &Path, kernel: &str) {
    let write = |path: &str, content: &[u8]| {
        let path = dir.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    };
    write(
        "etc/os-release",
        b"ID=debian\nVERSION_ID=\"12\"\nPRETTY_NAME=\"Debian 12\"\n",
    );
    write(
        "etc/fstab",
        b"/dev/mapper/VA-root / ext4 defaults 0 1\nUUID=1 /boot ext4 defaults 0 2\n",
    );
    write(&format!("boot/vmlinuz-{kernel}"), b"new kernel");
    write(&format!("boot/initrd.img-{kernel}"), b"new initramfs");
    write(&format!("usr/lib/modules/{kernel}/modules.dep"), b"");
    // A real program of this machine, for its ELF header.
    let program = fs::read("/bin/true").unwrap();
    write("usr/lib/systemd/systemd", &program);
    write("usr/lib/x86_64-linux-gnu/libc.so.6", &program);
    for tool in ["grub-install", "grub-mkimage", "grub-script-check"] {
        write(&format!("usr/sbin/{tool}"), &program);
    }
    for name in ["diskboot.img", "kernel.img", "moddep.lst"] {
        write(&format!("usr/lib/grub/i386-pc/{name}"), b"image");
    }
    write("usr/lib/grub/i386-pc/boot.img", &boot_img());
    for name in [
        "biosdisk",
        "part_gpt",
        "part_msdos",
        "ext2",
        "xfs",
        "search",
        "search_fs_uuid",
        "loadenv",
        "test",
        "linux",
        "normal",
        "configfile",
        "echo",
        "reboot",
        "sleep",
        "gzio",
    ] {
        write(&format!("usr/lib/grub/i386-pc/{name}.mod"), name.as_bytes());
    }
    for (link, to) in [
        ("lib", "usr/lib"),
        ("sbin", "usr/sbin"),
        ("usr/sbin/init", "../lib/systemd/systemd"),
    ] {
        std::os::unix::fs::symlink(to, dir.join(link)).unwrap();
    }
    for path in ["dev", "proc", "sys", "run", "tmp", "etc/systemd/system"] {
        fs::create_dir_all(dir.join(path)).unwrap();
    }
}

/// Packs a bundle of `version` into `dir` and returns its path.
pub fn make_bundle(dir: &Path, version: &str) -> PathBuf {
    make_bundle_of(dir, version, 1_700_000_000)
}

/// Packs one that was made `created` seconds after 1970.
pub fn make_bundle_of(dir: &Path, version: &str, created: u64) -> PathBuf {
    let tree = dir.join(format!("tree-{version}"));
    make_tree(&tree, "6.1.0-2");
    let out = dir.join(format!("{version}.vab"));
    pack(&tree, version, &PackOptions::new(1, created), &out);
    out
}

/// Packs the tree of a release into the bundle `out`.
pub fn pack(tree: &Path, version: &str, options: &PackOptions, out: &Path) {
    let release = Release::parse(&format!(
        "product: acme\nversion: {version}\ncpu_level: x86-64-v2\n"
    ))
    .unwrap();
    let found = bootable::inspect(tree).unwrap();
    let bytes = |path: &Path| tree.join(path).metadata().unwrap().len();
    let facts = TreeFacts {
        boot: BootFiles {
            kernel_release: found.kernel.release.clone(),
            kernel: found.kernel.image.display().to_string(),
            initramfs: found.kernel.initramfs.display().to_string(),
            kernel_bytes: bytes(&found.kernel.image),
            initramfs_bytes: bytes(&found.kernel.initramfs),
        },
        cpu_level: found.cpu_level,
        architecture: found.architecture.to_owned(),
    };
    bundle::pack(tree, &release, &facts, options, out, &Silent).unwrap();
}
