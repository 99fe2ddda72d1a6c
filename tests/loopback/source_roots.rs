//! Which root is packed where an image holds more than one, and what `--root`
//! may be told.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::disk::{Disk, FileSystem, Lvm, run, text};
use super::opener::open;
use super::source_layouts::root;

/// A disk with a partition for each of these file systems.
fn disk_of(dir: &Path, systems: &[&FileSystem]) -> Disk {
    let mib = |system: &&FileSystem| ("8300", system.size_bytes >> 20);
    let partitions: Vec<(&str, u64)> = systems.iter().map(mib).collect();
    let total: u64 = partitions.iter().map(|(_, mib)| mib).sum();
    let disk = Disk::new(dir.join("disk.raw"), total + 4);
    disk.gpt(&partitions);
    for (number, system) in (1..).zip(systems) {
        disk.put_whole(system, disk.partition_offset(number));
    }
    disk
}

fn write_at(path: &Path, offset: u64, bytes: &[u8]) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(bytes, offset).unwrap();
}

#[test]
fn a_root_that_cannot_be_opened_is_not_replaced_by_a_rescue_system() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let rescue = root(dir, "ext4", "rescue", 32, "");
    for (what, word) in [
        ("in use", "shut it down cleanly"),
        ("luks", "encrypted (LUKS)"),
        ("btrfs", "a btrfs file system"),
        ("unknown", "features or a version"),
    ] {
        let real = root(dir, "ext4", "real", 32, "");
        match what {
            "in use" => real.cut_power(dir),
            "luks" => write_at(&real.path, 0, b"LUKS\xba\xbe\0\x02"),
            "btrfs" => write_at(&real.path, 0x1_0040, b"_BHRfS_M"),
            // A feature that no kernel knows yet.
            _ => drop(run(
                "debugfs",
                &[
                    "-w",
                    "-R",
                    "ssv feature_incompat 0x80000242",
                    text(&real.path),
                ],
            )),
        }
        let disk = disk_of(dir, &[&real, &rescue]);
        let seen = open(&disk.path, None);
        let refusal = seen.refusal();
        for word in [word, "partition 1", "partition 2", "--root", "disk.raw"] {
            assert!(refusal.contains(word), "{what}: {word}: {refusal}");
        }
        for path in ["/mnt/", "/proc/", "/dev/loop"] {
            assert!(!refusal.contains(path), "{refusal}");
        }
        let seen = open(&disk.path, Some("2"));
        seen.assert_opened();
        assert_eq!(seen.tree["etc/name"], "rescue");
        let seen = open(&disk.path, Some("partition 1"));
        assert!(seen.refusal().contains(word), "{seen:?}");
    }
}

#[test]
fn what_the_root_mounts_elsewhere_is_no_rival() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let fstab = "LABEL=pool /home2 ext4 defaults 0 2\n";
    let system = root(dir, "ext4", "root", 32, fstab);
    let pool = FileSystem::make(dir, "ext4", "pool", 16, &[]);
    pool.cut_power(dir);
    let vault = FileSystem::make(dir, "ext4", "vault", 16, &[]);
    write_at(&vault.path, 0, b"LUKS\xba\xbe\0\x02");
    write_at(&vault.path, 168, b"1b2c-44");
    let table = "# name device\nvault UUID=1b2c-44 none\n";
    system.while_mounted(dir, |tree| {
        std::fs::write(tree.join("etc/crypttab"), table).unwrap()
    });
    let disk = disk_of(dir, &[&system, &pool, &vault]);
    let seen = open(&disk.path, None);
    seen.assert_opened();
    assert_eq!(
        seen.notes,
        [
            "the root file system is partition 1",
            "left out /home2 (LABEL=pool): not a part of the system",
            "left out partition 3 (encrypted (LUKS)): no line of fstab mounts it",
        ]
    );
}

#[test]
fn a_slot_in_use_is_not_passed_over_for_the_one_called_root() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let old = root(dir, "ext4", "root", 32, "");
    let running = root(dir, "ext4", "back", 32, "");
    let disk = slots(dir, &old, &running);
    let seen = open(&disk.path, None);
    seen.assert_opened();
    assert!(seen.notes[1].contains("VA/back"), "{seen:?}");
    running.cut_power(dir);
    let disk = slots(dir, &old, &running);
    let seen = open(&disk.path, None);
    let refusal = seen.refusal();
    for word in ["VA/root", "VA/back"] {
        assert!(refusal.contains(word), "{refusal}");
    }
}

/// A disk with the two slots of an appliance.
fn slots(dir: &Path, root: &FileSystem, back: &FileSystem) -> Disk {
    let disk = Disk::new(dir.join("slots.raw"), 100);
    disk.gpt(&[("8e00", 90)]);
    let lvm = Lvm::new(&disk, &[(1, 90)]);
    lvm.group("VA", &[0]);
    for (name, system) in [("root", root), ("back", back)] {
        lvm.volume("VA", name, 32);
        lvm.put("VA", name, system);
    }
    drop(lvm);
    disk
}

#[test]
fn a_root_is_chosen_in_every_way_that_it_can_be_named() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let one = root(dir, "ext4", "one", 32, "");
    let two = root(dir, "ext4", "two", 32, "");
    let disk = disk_of(dir, &[&one, &two]);
    let uuid = format!("UUID={}", two.uuid());
    let wanted = [
        "2",
        "1:2",
        "partition 2",
        "/dev/sda2",
        "/dev/nvme0n1p2",
        "LABEL=two",
    ];
    for wanted in wanted.into_iter().chain([uuid.as_str()]) {
        let seen = open(&disk.path, Some(wanted));
        seen.assert_opened();
        assert_eq!(seen.tree["etc/name"], "two", "{wanted}");
    }
    for wanted in ["the disk", "/dev/sda"] {
        open(&one.path, Some(wanted)).assert_opened();
    }
    let twins = disk_of(dir, &[&one, &one]);
    let seen = open(&twins.path, Some("LABEL=one"));
    let refusal = seen.refusal();
    assert!(refusal.contains("partition 1, partition 2"), "{refusal}");
}
