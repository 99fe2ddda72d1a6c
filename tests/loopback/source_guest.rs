//! What only a guest can open: `guestmount`, for which a stand-in shows a tree.

use std::fs;
use std::path::{Path, PathBuf};

use super::disk::{Disk, FileSystem, Lvm, text, write_tool};
use super::opener::{Opener, Seen, open};

/// A disk whose root is striped over two partitions, which takes device-mapper,
/// and so is the data volume, if that is wanted.
fn striped(dir: &Path, with_data: bool) -> PathBuf {
    let image = FileSystem::make(dir, "ext4", "image", 16, &[("layer", "x")]);
    let disk = Disk::new(dir.join("striped.raw"), 140);
    disk.gpt(&[("8e00", 60), ("8e00", 60)]);
    let lvm = Lvm::new(&disk, &[(1, 60), (2, 60)]);
    lvm.group("VA", &[0, 1]);
    for name in ["root", "data"].iter().take(1 + usize::from(with_data)) {
        let name = format!("-n{name}");
        lvm.run(
            "lvcreate",
            &["-an", "-Zn", "-Wn", "-i2", "-L32M", &name, "VA"],
        );
    }
    lvm.volume("VA", "image", 16);
    lvm.put("VA", "image", &image);
    drop(lvm);
    disk.path
}

/// Opens `disk` with a `guestmount` that runs `script` before it shows a tree
/// with this fstab and files.
fn open_by_guest(dir: &Path, disk: &Path, script: &str, fstab: &str, files: &[&str]) -> Seen {
    let tree = dir.join("tree");
    let with_fstab = [("etc/fstab", fstab), ("etc/name", "root")];
    let files = files.iter().map(|name| (*name, "secret"));
    for (name, content) in with_fstab.into_iter().chain(files) {
        let path = tree.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    let tools = dir.join("tools");
    fs::create_dir_all(&tools).unwrap();
    let script = format!(
        "#!/bin/sh\necho \"$@\" > {dir}/arguments\n{script}\nfor at; do :; done\n\
         exec mount --bind {tree} \"$at\"\n",
        dir = text(dir),
        tree = text(&tree)
    );
    write_tool(&tools.join("guestmount"), &script);
    Opener::start_with_tools(disk, None, None, Some(&tools)).finish()
}

#[test]
fn what_only_a_guest_could_open_is_refused_with_the_way_out() {
    let dir = tempfile::tempdir().unwrap();
    let disk = striped(dir.path(), false);
    let seen = open(&disk, None);
    let refusal = seen.refusal();
    for word in [
        "VA/root",
        "an LVM volume of type striped",
        "libguestfs-tools",
    ] {
        assert!(refusal.contains(word), "{refusal}");
    }
    let seen = open(&disk, Some("VA/root"));
    assert!(seen.refusal().contains("mount it yourself"), "{seen:?}");
    let seen = open_by_guest(dir.path(), &disk, "echo no system >&2; exit 1", "", &[]);
    let refusal = seen.refusal();
    assert!(refusal.contains("striped.raw"), "{refusal}");
    assert!(refusal.contains("no system; mount the system"), "{refusal}");
    assert!(!refusal.contains("/proc/"), "{refusal}");
}

#[test]
fn guestmount_is_used_where_it_is_installed_and_the_customers_data_are_hidden() {
    let dir = tempfile::tempdir().unwrap();
    let disk = striped(dir.path(), false);
    let fstab = "/dev/VA/root / ext4 defaults 0 1\n\
                 /dev/VA/data /data ext4 defaults 0 2\n\
                 LABEL=image /var/lib/containers ext4 defaults 0 2\n\
                 /dev/disk/by-id/dm-name-VA-data /var/lib/other ext4 defaults 0 2\n\
                 LABEL=opt /opt ext4 defaults 0 2\n";
    let files = ["data/customer", "var/lib/containers/layer", "opt/product"];
    let seen = open_by_guest(dir.path(), &disk, "", fstab, &files);
    seen.assert_opened();
    assert_eq!(seen.tree["etc/name"], "root");
    assert_eq!(seen.tree["opt/product"], "secret");
    assert!(!seen.tree.contains_key("data/customer"), "{seen:?}");
    let layer = "var/lib/containers/layer";
    assert!(!seen.tree.contains_key(layer), "{seen:?}");
    assert_eq!(
        seen.notes[1..3],
        [
            "left out /data (/dev/VA/data): a data volume",
            "left out /var/lib/containers (LABEL=image): a data volume",
        ]
    );
    let arguments = fs::read_to_string(dir.path().join("arguments")).unwrap();
    assert!(
        arguments.starts_with("--ro -i --format=raw -a /proc/"),
        "{arguments}"
    );
}

#[test]
fn links_that_a_guest_shows_as_copies_are_refused_with_the_way_out() {
    let dir = tempfile::tempdir().unwrap();
    let disk = striped(dir.path(), false);
    let tree = dir.path().join("tree");
    fs::create_dir_all(tree.join("bin")).unwrap();
    for name in ["gone", "bin/first", "bin/second"] {
        fs::write(tree.join(name), "x").unwrap();
    }
    fs::hard_link(tree.join("bin/first"), tree.join("bin/same")).unwrap();
    open_by_guest(dir.path(), &disk, "", "", &[]).assert_opened();
    // To whoever looks at the tree, this is one name of two.
    fs::hard_link(tree.join("bin/second"), dir.path().join("elsewhere")).unwrap();
    let seen = open_by_guest(dir.path(), &disk, "", "", &[]);
    let refusal = seen.refusal();
    for word in ["/bin/second", "guestfish --ro -a", "striped.raw", "tar-out"] {
        assert!(refusal.contains(word), "{refusal}");
    }
}

#[test]
fn what_may_be_the_data_volume_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let disk = striped(dir.path(), true);
    let fstab = "LABEL=hidden /var/lib/app ext4 defaults 0 2\n";
    let seen = open_by_guest(dir.path(), &disk, "", fstab, &["var/lib/app/customer"]);
    let refusal = seen.refusal();
    for word in ["LABEL=hidden", "/var/lib/app", "VA/data", "striped.raw"] {
        assert!(refusal.contains(word), "{word}: {refusal}");
    }
    let fstab = "/dev/VA/data /var/lib/app ext4 defaults 0 2\n";
    let seen = open_by_guest(dir.path(), &disk, "", fstab, &["var/lib/app/customer"]);
    seen.assert_opened();
    let customer = "var/lib/app/customer";
    assert!(!seen.tree.contains_key(customer), "{seen:?}");
}
