//! The layouts of disks that appliances have.

use std::fs;
use std::path::Path;

use super::disk::{Disk, FileSystem, Lvm, run, text};
use super::opener::open;

/// A root file system with the fstab `fstab`, told apart by `name`.
pub fn root(dir: &Path, kind: &str, name: &str, mib: u64, fstab: &str) -> FileSystem {
    FileSystem::make(
        dir,
        kind,
        name,
        mib,
        &[
            ("usr/lib/os-release", "ID=rocky\n"),
            ("etc/os-release", "->../usr/lib/os-release"),
            ("etc/fstab", fstab),
            ("etc/name", name),
            ("usr/sbin/init", "->/usr/lib/systemd/systemd"),
            ("sbin", "->usr/sbin"),
            ("boot/", ""),
            ("data/", ""),
            ("var/lib/containers/", ""),
        ],
    )
}

#[test]
fn a_root_on_lvm_with_its_boot_partition_is_one_tree() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let boot = FileSystem::make(dir, "ext4", "boot", 16, &[("vmlinuz-6.1", "kernel")]);
    let fstab = format!(
        "/dev/mapper/VA-root / ext4 defaults 0 1\n\
         UUID={} /boot ext4 defaults 0 2\n\
         /dev/VA/data /data ext4 defaults 0 2\n\
         /dev/VA/image /var/lib/containers ext4 defaults 0 2\n\
         /dev/VA/gone /opt/gone ext4 nofail 0 2\n\
         server:/home /home nfs _netdev 0 0\n",
        boot.uuid()
    );
    let root_system = root(dir, "ext4", "root", 32, &fstab);
    let back_system = root(dir, "ext4", "back", 32, &fstab);
    let data = FileSystem::make(dir, "ext4", "data", 16, &[("customer", "secret")]);
    let disk = Disk::new(dir.join("appliance.raw"), 200);
    disk.gpt(&[("ef02", 1), ("8300", 16), ("8e00", 150)]);
    disk.put_whole(&boot, disk.partition_offset(2));
    {
        let lvm = Lvm::new(&disk, &[(3, 150)]);
        lvm.group("VA", &[0]);
        for (name, mib, system) in [
            ("back", 32, &back_system),
            ("root", 32, &root_system),
            ("data", 16, &data),
            ("image", 16, &data),
        ] {
            lvm.volume("VA", name, mib);
            lvm.put("VA", name, system);
        }
    }
    let seen = open(&disk.path, None);
    seen.assert_opened();
    assert_eq!(seen.tree["boot/vmlinuz-6.1"], "kernel");
    assert_eq!(seen.tree["etc/name"], "root");
    assert!(!seen.paths().iter().any(|path| path.ends_with("customer")));
    assert_eq!(
        seen.notes,
        [
            "the root file system is VA/root",
            "left out /data (/dev/VA/data): a data volume",
            "left out /home (server:/home): not a file system on a disk of the image",
            "left out /opt/gone (/dev/VA/gone): not in the image",
            "left out /var/lib/containers (/dev/VA/image): a data volume",
            "left out VA/back (ext4, label \"back\"): another root file system, perhaps the one \
             in use; --root \"VA/back\" packs it instead",
        ]
    );

    let seen = open(&disk.path, Some("VA/back"));
    seen.assert_opened();
    assert_eq!(seen.tree["etc/name"], "back");
    let refusal = open(&disk.path, Some("VA/nosuch"));
    assert!(refusal.refusal().contains("VA/back"), "{refusal:?}");
}

#[test]
fn a_volume_in_pieces_over_two_partitions_is_read_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let fstab = "/dev/mapper/my--va-root / xfs defaults 0 0\n";
    let system = root(dir, "ext4", "root", 64, fstab);
    let filler = "0123456789abcdef".repeat(40_000);
    system.while_mounted(dir, |tree| {
        fs::write(tree.join("etc/large"), &filler).unwrap()
    });
    let disk = Disk::new(dir.join("pieces.raw"), 140);
    disk.gpt(&[("8e00", 60), ("8e00", 60)]);
    {
        let lvm = Lvm::new(&disk, &[(1, 60), (2, 60)]);
        lvm.group("my-va", &[0, 1]);
        lvm.volume("my-va", "root", 16);
        lvm.volume("my-va", "other", 8);
        for size in ["+12M", "+36M"] {
            lvm.run("lvextend", &[&format!("-L{size}"), "my-va/root"]);
        }
        let rows = lvm.run("lvs", &["--segments", "--noheadings", "my-va/root"]);
        assert!(rows.lines().count() >= 3, "{rows}");
        lvm.put("my-va", "root", &system);
    }
    let seen = open(&disk.path, None);
    seen.assert_opened();
    assert_eq!(seen.tree["etc/large"], filler);
    assert!(seen.steps.contains(&"joining my-va/root".to_owned()));
}

#[test]
fn xfs_slots_that_are_copies_of_each_other_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let system = root(
        dir,
        "xfs",
        "root",
        320,
        "LABEL=xboot /boot xfs defaults 0 0\n",
    );
    let boot = FileSystem::make(dir, "xfs", "xboot", 320, &[("vmlinuz-5.14", "kernel")]);
    let disk = Disk::new(dir.join("xfs.raw"), 1100);
    disk.gpt(&[("8300", 320), ("8e00", 700)]);
    disk.put_whole(&boot, disk.partition_offset(1));
    {
        let lvm = Lvm::new(&disk, &[(2, 700)]);
        lvm.group("sys", &[0]);
        for name in ["one", "two"] {
            lvm.volume("sys", name, 320);
            lvm.put("sys", name, &system);
        }
    }
    let refusal = open(&disk.path, None);
    let refusal = refusal.refusal();
    assert!(refusal.contains("sys/one, sys/two"), "{refusal}");
    assert!(refusal.contains("--root"), "{refusal}");
    let seen = open(&disk.path, Some("sys/two"));
    seen.assert_opened();
    assert_eq!(seen.tree["boot/vmlinuz-5.14"], "kernel");
}

#[test]
fn a_dos_table_with_logical_partitions_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let fstab = "# by kernel name\n/dev/sda1 / ext4 defaults 0 1\n\
                 PARTUUID=1234abcd-06 /var ext4 defaults 0 2\n";
    let system = root(dir, "ext4", "root", 32, fstab);
    let var = FileSystem::make(dir, "ext4", "var", 16, &[("log/messages", "line")]);
    let disk = Disk::new(dir.join("mbr.raw"), 100);
    let table = dir.join("table");
    fs::write(
        &table,
        "label: dos\nlabel-id: 0x1234abcd\n\
         1: size=32MiB, type=83\n2: size=60MiB, type=5\n\
         5: size=8MiB, type=82\n6: size=16MiB, type=83\n",
    )
    .unwrap();
    let script = format!("sfdisk -q {} < {}", text(&disk.path), text(&table));
    run("sh", &["-c", &script]);
    disk.put_whole(&system, disk.partition_offset(1));
    disk.put_whole(&var, disk.partition_offset(6));
    let seen = open(&disk.path, None);
    seen.assert_opened();
    assert_eq!(seen.tree["var/log/messages"], "line");
}

#[test]
fn a_bare_file_system_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let system = root(dir.path(), "ext4", "root", 32, "");
    let seen = open(&system.path, None);
    seen.assert_opened();
    assert_eq!(seen.tree["etc/name"], "root");
}

#[test]
fn a_file_system_that_was_in_use_is_refused_with_the_way_out() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    for (kind, mib) in [("ext4", 32), ("xfs", 320)] {
        let system = root(dir, kind, "root", mib, "");
        system.cut_power(dir);
        let seen = open(&system.path, None);
        let refusal = seen.refusal();
        assert!(refusal.contains("shut it down cleanly"), "{refusal}");
    }
}

#[test]
fn a_system_that_lacks_a_part_is_refused_by_the_parts_name() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let system = root(
        dir,
        "ext4",
        "one",
        32,
        "UUID=0000-1111 /boot ext4 defaults 0 2\n",
    );
    let seen = open(&system.path, None);
    let refusal = seen.refusal();
    assert!(refusal.contains("UUID=0000-1111"), "{refusal}");
    let opt = FileSystem::make(dir, "ext4", "opt", 16, &[("x", "")]);
    let system = root(dir, "ext4", "two", 32, "LABEL=opt /opt ext4 defaults 0 2\n");
    let disk = Disk::new(dir.join("disk.raw"), 64);
    disk.gpt(&[("8300", 32), ("8300", 16)]);
    disk.put_whole(&system, disk.partition_offset(1));
    disk.put_whole(&opt, disk.partition_offset(2));
    let seen = open(&disk.path, None);
    let refusal = seen.refusal();
    assert!(refusal.contains("no directory /opt"), "{refusal}");
}

#[test]
fn two_volume_groups_of_one_name_are_refused_with_their_uuids() {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::new(dir.path().join("twins.raw"), 64);
    disk.gpt(&[("8e00", 24), ("8e00", 24)]);
    let mut uuids = Vec::new();
    for number in [1, 2] {
        let lvm = Lvm::new(&disk, &[(number, 24)]);
        lvm.group("VA", &[0]);
        uuids.push(
            lvm.run("vgs", &["--noheadings", "-ovg_uuid"])
                .trim()
                .to_owned(),
        );
    }
    let seen = open(&disk.path, None);
    let refusal = seen.refusal();
    assert!(uuids.iter().all(|uuid| refusal.contains(uuid)), "{refusal}");
}

#[test]
fn a_physical_volume_that_is_missing_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let disk = Disk::new(dir.join("first.raw"), 140);
    disk.gpt(&[("8e00", 60), ("8e00", 60)]);
    {
        let lvm = Lvm::new(&disk, &[(1, 60), (2, 60)]);
        lvm.group("VA", &[0, 1]);
        lvm.volume("VA", "root", 80);
    }
    // The other disk of the machine was not given.
    let at = disk.partition_offset(2);
    let file = fs::OpenOptions::new().write(true).open(&disk.path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[0; 4096], at).unwrap();
    let seen = open(&disk.path, None);
    let refusal = seen.refusal();
    for word in ["VA/root", "pv1 of VA", "last seen as /dev/loop", "UUID"] {
        assert!(refusal.contains(word), "{word}: {refusal}");
    }
}

#[test]
fn a_mounted_root_is_read_without_the_customers_and_the_kernels_mounts() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let boot = FileSystem::make(dir, "ext4", "boot", 16, &[("vmlinuz-6.1", "kernel")]);
    let data = FileSystem::make(dir, "ext4", "data", 16, &[("customer", "secret")]);
    let tree = dir.join("tree");
    for sub in ["boot", "data", "proc", "etc"] {
        fs::create_dir_all(tree.join(sub)).unwrap();
    }
    let seen = open(&tree, None);
    seen.assert_opened();
    assert_eq!(seen.paths(), ["boot/", "data/", "etc/", "proc/"]);
    let at = |sub: &str| text(&tree.join(sub)).to_owned();
    run("mount", &["-o", "loop", text(&boot.path), &at("boot")]);
    run("mount", &["-o", "loop", text(&data.path), &at("data")]);
    run("mount", &["-t", "proc", "proc", &at("proc")]);
    let seen = open(&tree, None);
    for sub in ["boot", "data", "proc"] {
        run("umount", &[&at(sub)]);
    }
    seen.assert_opened();
    let expected = [
        "boot/",
        "boot/lost+found/",
        "boot/vmlinuz-6.1",
        "data/",
        "etc/",
        "proc/",
    ];
    assert_eq!(seen.paths(), expected);
    assert!(
        seen.notes[0].starts_with("left out /data (/dev/loop"),
        "{seen:?}"
    );
}
