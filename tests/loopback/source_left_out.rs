//! A line for everything that is not packed, and a refusal where it is not clear
//! what is meant.

use std::fs;
use std::path::Path;

use super::disk::{Disk, FileSystem, run, text};
use super::opener::open;
use super::source_layouts::root;

/// A disk with a partition of these types and file systems.
fn disk_of(dir: &Path, systems: &[(&str, &FileSystem)]) -> Disk {
    let partitions: Vec<(&str, u64)> = systems
        .iter()
        .map(|(kind, system)| (*kind, system.size_bytes >> 20))
        .collect();
    let disk = Disk::new(dir.join("disk.raw"), 160);
    disk.gpt(&partitions);
    for (number, (_, system)) in (1..).zip(systems) {
        disk.put_whole(system, disk.partition_offset(number));
    }
    disk
}

#[test]
fn every_file_system_that_is_not_packed_has_a_line() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let fstab = "LABEL=root / ext4 defaults 0 1\nLABEL=mine /mine ext4 defaults 0 2\n";
    let system = root(dir, "ext4", "root", 32, fstab);
    system.while_mounted(dir, |tree| {
        let units = tree.join("etc/systemd/system");
        fs::create_dir_all(&units).unwrap();
        let unit = "[Mount]\nWhat=/dev/disk/by-label/my\\x20logs\nWhere=/var/log\n";
        fs::write(units.join("var-log.mount"), unit).unwrap();
    });
    let make = |label: &str| FileSystem::make(dir, "ext4", label, 16, &[]);
    let (mine, logs, home, spare) = (make("mine"), make("my logs"), make("home"), make("spare"));
    let disk = disk_of(
        dir,
        &[
            ("8300", &system),
            ("8300", &mine),
            ("8300", &logs),
            ("8302", &home),
            ("8300", &spare),
        ],
    );
    let seen = open(&disk.path, None);
    seen.assert_opened();
    assert_eq!(
        seen.notes,
        [
            "the root file system is partition 1",
            "left out /mine (LABEL=mine): not a part of the system",
            "left out partition 3 (ext4, label \"my logs\"): var-log.mount mounts it on /var/log, \
             no line of fstab does; one that does would have it packed",
            "left out partition 4 (ext4, label \"home\"): its partition type means /home, no line \
             of fstab mounts it; one that does would have it packed",
            "left out partition 5 (ext4, label \"spare\"): no line of fstab mounts it",
        ]
    );
}

#[test]
fn a_name_that_two_volumes_have_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let fstab = "LABEL=boot /boot ext4 defaults 0 2\n";
    let system = root(dir, "ext4", "root", 32, fstab);
    let boot = FileSystem::make(dir, "ext4", "boot", 16, &[]);
    let disk = disk_of(dir, &[("8300", &system), ("8300", &boot), ("8300", &boot)]);
    let seen = open(&disk.path, None);
    let refusal = seen.refusal();
    for word in [
        "LABEL=boot",
        "/boot",
        "partition 2, partition 3",
        "disk.raw",
    ] {
        assert!(refusal.contains(word), "{word}: {refusal}");
    }
}

#[test]
fn what_the_system_needs_and_cannot_be_read_is_named_with_its_mount_point() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let other = FileSystem::make(dir, "ext4", "other", 16, &[]);
    let word = |fstab: &str, words: &[&str]| {
        let system = root(dir, "ext4", "root", 32, fstab);
        let disk = disk_of(dir, &[("8300", &system), ("8300", &other)]);
        let seen = open(&disk.path, None);
        let refusal = seen.refusal();
        for word in words {
            assert!(refusal.contains(word), "{word}: {refusal}");
        }
        assert!(!refusal.contains("nofail"), "{refusal}");
    };
    let gone = "UUID=0000-1111 /boot vfat defaults 0 2\n";
    word(
        gone,
        &["UUID=0000-1111", "/boot", "vfat", "with all its disks"],
    );
    let magic = "ssv feature_incompat 0x80000242";
    run("debugfs", &["-w", "-R", magic, text(&other.path)]);
    // A volume the kernel does not take is no rival of the root: fstab places it.
    let unknown = "/dev/sda2 /boot ext4 defaults 0 2\n";
    word(unknown, &["/boot", "partition 2", "features", "disk.raw"]);
    let file = fs::OpenOptions::new()
        .write(true)
        .open(&other.path)
        .unwrap();
    file.set_len(0).unwrap();
    file.set_len(other.size_bytes).unwrap();
    let foreign = "/dev/vda2 /boot f2fs defaults 0 2\n";
    word(foreign, &["/boot", "f2fs", "partition 2", "disk.raw"]);
}
