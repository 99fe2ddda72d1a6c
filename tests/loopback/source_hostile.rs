//! Images that were made to hurt: what they name, claim or say many times over does
//! not reach this machine.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use super::disk::{Disk, FileSystem, Lvm, run, text, write_tool};
use super::opener::{Opener, open};
use super::source_formats::{convert, plain_disk};

const ROOT: [(&str, &str); 2] = [("etc/os-release", "ID=debian\n"), ("sbin/init", "init")];

#[test]
fn no_descriptor_shows_a_file_of_this_machine() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    // A disk that this machine alone may read, for which qemu-img would be fooled.
    let secret = plain_disk(dir);
    fs::set_permissions(&secret, Permissions::from_mode(0o600)).unwrap();
    let sectors = fs::metadata(&secret).unwrap().len() / 512;
    let odd = OsStr::from_bytes(b"a\xff.raw");
    symlink(&secret, dir.join(odd)).unwrap();
    fs::write(dir.join("a\u{fffd}.raw"), vec![0; 1 << 20]).unwrap();
    fs::write(dir.join("decoy"), vec![0; 512]).unwrap();
    let (path, image) = (text(&secret), dir.join("sly.vmdk"));
    for extent in [
        format!("RW\n{sectors}\nFLAT\n\"{path}\" 0").into_bytes(),
        format!("RW\x0b{sectors} FLAT \"{path}\" 0").into_bytes(),
        format!("RW {sectors} FLAT \"{path}\"\x0c0").into_bytes(),
        format!("ddb.x = \"\"\rRW {sectors} FLAT \"{path}\" 0").into_bytes(),
        [
            format!("RW {sectors} FLAT \"").as_bytes(),
            odd.as_bytes(),
            b"\" 0",
        ]
        .concat(),
    ] {
        let head = b"# Disk DescriptorFile\nversion=1\ncreateType=\"monolithicFlat\"\n\
                     RW 1 FLAT \"decoy\" 0\n";
        fs::write(&image, [&head[..], &extent, b"\n"].concat()).unwrap();
        let seen = open(&image, None);
        assert!(seen.tree.is_empty(), "{}", extent.escape_ascii());
        assert!(seen.refusal().contains("sly.vmdk"), "{seen:?}");
    }
}

#[test]
fn qemu_img_has_no_rights_and_nothing_of_the_environment() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let image = dir.join("disk.vmdk");
    convert(
        &plain_disk(dir),
        "vmdk",
        &["-o", "subformat=monolithicFlat"],
        &image,
    );
    let tools = dir.join("tools");
    fs::create_dir(&tools).unwrap();
    for open_to_all in [dir, &tools] {
        fs::set_permissions(open_to_all, Permissions::from_mode(0o777)).unwrap();
    }
    let real = run("sh", &["-c", "command -v qemu-img"]);
    let script = format!(
        "#!/bin/sh\n{{ id -u; env; }} > {0}/$1-seen\ngrep Cap /proc/self/status >> {0}/$1-seen\n\
         exec {1} \"$@\"\n",
        text(dir),
        real.trim()
    );
    write_tool(&tools.join("qemu-img"), &script);
    let flat = dir.join("disk-flat.vmdk");
    for (mode, uid) in [(0o644, "65534"), (0o600, "0")] {
        fs::set_permissions(&flat, Permissions::from_mode(mode)).unwrap();
        let seen = Opener::start_with_tools(&image, None, None, Some(&tools)).finish();
        seen.assert_opened();
        assert_eq!(seen.tree["etc/greeting"], "hello");
        for verb in ["info", "check", "map", "convert"] {
            let note = dir.join(format!("{verb}-seen"));
            let told = fs::read_to_string(&note).unwrap();
            fs::remove_file(&note).unwrap();
            assert_eq!(told.lines().next(), Some(uid), "{verb}");
            assert!(!told.contains("VA_TEST_SOURCE"), "{verb}: {told}");
            assert!(told.contains("CapEff:\t0000000000000000"), "{verb}: {told}");
        }
    }
}

#[test]
fn what_an_image_says_about_errors_is_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let root = FileSystem::make(dir.path(), "ext4", "root", 24, &ROOT);
    run("tune2fs", &["-e", "panic", text(&root.path)]);
    let mut opener = Opener::start(&root.path, None, Some("opened"));
    opener.wait_for_pause();
    let mounts = opener.mounts();
    drop(opener.finish());
    let line = mounts.lines().find(|line| line.contains("/tree ext4 "));
    let line = line.unwrap_or_else(|| panic!("{mounts}"));
    assert!(line.contains("errors=remount-ro"), "{line}");
}

#[test]
fn a_volume_that_fstab_mounts_many_times_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let many = "LABEL=root / ext4 defaults 0 1\nLABEL=opt /opt ext4 defaults 0 2\n\
                LABEL=opt /var/opt ext4 defaults 0 2\n";
    let same = "LABEL=root / ext4 defaults 0 1\n\
                LABEL=opt /opt ext4 defaults 0 2\nLABEL=opt /opt ext4 defaults 0 2\n";
    for (name, fstab) in [("many", many), ("same", same)] {
        let files = [
            ROOT[0],
            ROOT[1],
            ("etc/fstab", fstab),
            ("opt/x", ""),
            ("var/opt/x", ""),
        ];
        let root = FileSystem::make(dir, "ext4", "root", 24, &files);
        let opt = FileSystem::make(dir, "ext4", "opt", 24, &[("product", "x")]);
        let disk = Disk::new(dir.join(format!("{name}.raw")), 60);
        disk.gpt(&[("8300", 24), ("8300", 24)]);
        disk.put_whole(&root, disk.partition_offset(1));
        disk.put_whole(&opt, disk.partition_offset(2));
        let seen = open(&disk.path, None);
        if name == "many" {
            let refusal = seen.refusal();
            assert!(refusal.contains("a second time, on /var/opt"), "{refusal}");
        } else {
            seen.assert_opened();
            assert_eq!(seen.tree["opt/product"], "x");
        }
    }
}

#[test]
fn no_kernel_but_a_guests_looks_into_an_untrusted_image() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let disk = plain_disk(dir);
    let seen = Opener::untrusting(&disk, None).finish();
    let refusal = seen.refusal();
    for word in ["disk.raw", "guestmount", "libguestfs-tools"] {
        assert!(refusal.contains(word), "{refusal}");
    }
    let (tools, tree) = (dir.join("tools"), dir.join("tree"));
    fs::create_dir(&tools).unwrap();
    fs::create_dir_all(tree.join("etc")).unwrap();
    fs::write(tree.join("etc/name"), "guest").unwrap();
    let script = format!(
        "#!/bin/sh\nfor at; do :; done\nexec mount --bind {} \"$at\"\n",
        text(&tree)
    );
    write_tool(&tools.join("guestmount"), &script);
    // The kernel's mounts are mount(8)'s, of which the stand-in makes no other.
    let seen = Opener::untrusting(&disk, Some(&tools)).finish();
    seen.assert_opened();
    assert_eq!(seen.tree["etc/name"], "guest");
    assert!(!seen.tree.contains_key("etc/greeting"), "{seen:?}");
}

#[test]
fn volumes_with_the_same_bytes_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let root = FileSystem::make(dir.path(), "ext4", "root", 24, &ROOT);
    let disk = Disk::new(dir.path().join("lvm.raw"), 70);
    disk.gpt(&[("8e00", 68)]);
    {
        let lvm = Lvm::new(&disk, &[(1, 68)]);
        lvm.group("VA", &[0]);
        lvm.volume("VA", "root", 24);
        lvm.volume("VA", "back", 24);
        lvm.put("VA", "root", &root);
    }
    open(&disk.path, None).assert_opened();
    share_extents(&disk.path);
    let seen = open(&disk.path, None);
    let refusal = seen.refusal();
    assert!(refusal.contains("the same bytes"), "{refusal}");
}

/// Gives the second volume the extents of the first, in every copy of the metadata.
fn share_extents(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let header = bytes
        .windows(16)
        .position(|w| w == b" LVM2 x[5A%r0N*>")
        .unwrap()
        - 4;
    let long = |at: usize| {
        let word: [u8; 8] = bytes[at..at + 8].try_into().unwrap();
        usize::try_from(u64::from_le_bytes(word)).unwrap()
    };
    let (offset, size) = (long(header + 40), long(header + 48));
    let (start, end) = (header + offset, header + offset + size);
    let old = String::from_utf8(bytes[start..end].to_vec()).unwrap();
    let new = old.replace("\"pv0\", 6", "\"pv0\", 0");
    assert_ne!(new, old);
    bytes[start..end].copy_from_slice(new.as_bytes());
    let sum = checksum(new.as_bytes()).to_le_bytes();
    bytes[header + 56..header + 60].copy_from_slice(&sum);
    let sum = checksum(&bytes[header + 4..header + 512]).to_le_bytes();
    bytes[header..header + 4].copy_from_slice(&sum);
    fs::write(path, bytes).unwrap();
}

/// CRC-32 as LVM uses it.
fn checksum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0xf597_a6cf, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
        })
    })
}
