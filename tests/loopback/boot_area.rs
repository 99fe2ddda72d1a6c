//! The boot area of a disk on which a distribution's own tools put GRUB.

use std::fs;

use va_upgrade::boot::bios::area::BootArea;

use super::disk::{Disk, run, text};

/// A whole disk as a loop device with its partitions.
struct Attached(String);

impl Drop for Attached {
    fn drop(&mut self) {
        // A mount namespace that another test has made meanwhile has a copy of our
        // mount until it ends.
        let script =
            r#"for n in $(seq 600); do partx --delete "$0" && exit; sleep 0.5; done; exit 1"#;
        run("sh", &["-c", script, &self.0]);
        run("losetup", &["--detach", &self.0]);
    }
}

#[test]
fn a_core_that_grub_install_placed_is_known_by_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::new(dir.path().join("disk.raw"), 40);
    disk.gpt(&[("ef02", 2), ("8300", 32)]);
    let device = run("losetup", &["--find", "--show", text(&disk.path)]);
    let device = Attached(device.trim().to_owned());
    run("partx", &["--add", &device.0]);
    let boot = dir.path().join("boot");
    fs::create_dir(&boot).unwrap();
    let partition = format!("{}p2", device.0);
    run("mkfs.ext4", &["-q", &partition]);
    run("mount", &[&partition, text(&boot)]);
    let directory = format!("--boot-directory={}", text(&boot));
    run("grub-install", &["--target=i386-pc", &directory, &device.0]);
    let mut core = fs::read(boot.join("grub/i386-pc/core.img")).unwrap();
    run("umount", &[text(&boot)]);

    let area = BootArea::look(&disk.path).unwrap();
    assert!(area.starts(&core).unwrap());
    let last = core.len() - 1;
    core[last] ^= 1;
    assert!(!area.starts(&core).unwrap());
}
