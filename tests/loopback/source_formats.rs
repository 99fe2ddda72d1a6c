//! Every format of a disk image gives the same tree; what is none is refused.

use std::fs;
use std::path::{Path, PathBuf};

use super::disk::{Disk, FileSystem, run, text};
use super::opener::open;

/// A disk with one root partition.
pub fn plain_disk(dir: &Path) -> PathBuf {
    let root = FileSystem::make(
        dir,
        "ext4",
        "root",
        64,
        &[
            ("etc/os-release", "ID=debian\n"),
            ("etc/fstab", "LABEL=root / ext4 defaults 0 1\n"),
            ("sbin/init", "init"),
            ("etc/greeting", "hello"),
        ],
    );
    let disk = Disk::new(dir.join("disk.raw"), 72);
    disk.gpt(&[("8300", 64)]);
    disk.put_whole(&root, disk.partition_offset(1));
    fs::remove_file(&root.path).unwrap();
    disk.path
}

pub fn convert(raw: &Path, format: &str, options: &[&str], to: &Path) {
    let mut args = vec!["convert", "-f", "raw", "-O", format];
    args.extend(options);
    args.extend([text(raw), text(to)]);
    run("qemu-img", &args);
}

#[test]
fn every_format_gives_the_same_tree() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let raw = plain_disk(dir);
    let expected = open(&raw, None);
    expected.assert_opened();
    assert_eq!(expected.tree["etc/greeting"], "hello");

    let qcow2 = dir.join("disk.qcow2");
    convert(&raw, "qcow2", &["-c"], &qcow2);
    let mut sources = vec![qcow2];
    for subformat in [
        "streamOptimized",
        "monolithicSparse",
        "monolithicFlat",
        "twoGbMaxExtentSparse",
        "twoGbMaxExtentFlat",
    ] {
        let path = dir.join(format!("{subformat}.vmdk"));
        convert(
            &raw,
            "vmdk",
            &["-o", &format!("subformat={subformat}")],
            &path,
        );
        sources.push(path);
    }
    // Names that qemu-img would take for a protocol or for options.
    let odd = dir.join("json:{nbd:x,y=z}.vmdk");
    fs::copy(dir.join("streamOptimized.vmdk"), &odd).unwrap();
    sources.push(odd);
    for source in &sources {
        let seen = open(source, None);
        seen.assert_opened();
        assert_eq!(seen.tree, expected.tree, "{}", source.display());
    }
}

#[test]
fn what_is_no_usable_image_is_refused_in_one_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let write = |name: &str, content: &[u8]| {
        let path = dir.join(name);
        fs::write(&path, content).unwrap();
        path
    };
    let mut rejected = vec![0; 4096];
    rejected[..4].copy_from_slice(b"KDMV");
    rejected[4..20].fill(7);
    let empty_dir = dir.join("empty");
    fs::create_dir(&empty_dir).unwrap();
    let zeros = write("zeros.raw", &[0; 8192]);
    let swap = dir.join("swap.raw");
    super::disk::empty_file(&swap, 4 << 20);
    run("mkswap", &[text(&swap)]);
    for (source, word) in [
        (write("garbage.vmdk", b"garbage"), "not a VMDK"),
        (write("rejected.vmdk", &rejected), "qemu-img"),
        (
            write("cut.vmdk", b"# Disk DescriptorFile\nversion=1\n"),
            "qemu-img",
        ),
        (
            write(
                "hostile.vmdk",
                b"# Disk DescriptorFile\nversion=1\ncreateType=\"monolithicFlat\"\n\
                  RW 100 FLAT \"/etc/shadow\" 0\n",
            ),
            "\"/etc/shadow\"",
        ),
        (dir.join("missing.vmdk"), "there is no file"),
        (empty_dir, "empty directory"),
        (zeros, "holds no root file system"),
        (swap, "holds no root file system"),
    ] {
        let seen = open(&source, None);
        let refusal = seen.refusal();
        assert!(refusal.contains(word), "{}: {refusal}", source.display());
        assert!(!refusal.contains('\n'), "{refusal}");
        let name = source.file_name().unwrap().to_str().unwrap();
        assert!(refusal.contains(name), "{name} in {refusal}");
    }
}

#[test]
fn other_formats_are_named_with_the_command_that_helps() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let raw = plain_disk(dir);
    for (name, format, options, what) in [
        ("a.vhd", "vpc", "subformat=dynamic", "a VHD image"),
        ("b.vhd", "vpc", "subformat=fixed", "a VHD image"),
        ("c.vhdx", "vhdx", "subformat=dynamic", "a VHDX image"),
        ("d.vdi", "vdi", "static=off", "a VDI image"),
    ] {
        let image = dir.join(name);
        convert(&raw, format, &["-o", options], &image);
        let seen = open(&image, None);
        let refusal = seen.refusal();
        assert!(refusal.contains(what), "{name}: {refusal}");
        let stem = name.split('.').next().unwrap();
        let command = format!("qemu-img convert -f {format} -O qcow2 {name} {stem}.qcow2");
        assert!(refusal.contains(&command), "{name}: {refusal}");
        let args = ["convert", "-f", format, "-O", "qcow2", text(&image)];
        let better = dir.join("better.qcow2");
        run("qemu-img", &[&args[..], &[text(&better)]].concat());
        open(&better, None).assert_opened();
    }
    let iso = dir.join("e.iso");
    let mut bytes = vec![0; 64 << 10];
    bytes[32_769..32_774].copy_from_slice(b"CD001");
    fs::write(&iso, bytes).unwrap();
    assert!(open(&iso, None).refusal().contains("ISO image of a CD"));
    let ovf = dir.join("f.ovf");
    fs::write(&ovf, "<?xml version='1.0'?><Envelope/>").unwrap();
    assert!(
        open(&ovf, None)
            .refusal()
            .contains("description of a VM (OVF)")
    );
}

#[test]
fn a_qcow2_with_a_backing_file_is_refused_before_it_is_opened() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let raw = plain_disk(dir);
    let overlay = dir.join("overlay.qcow2");
    let args = [
        "create",
        "-q",
        "-f",
        "qcow2",
        "-F",
        "raw",
        "-b",
        text(&raw),
        text(&overlay),
    ];
    run("qemu-img", &args);
    assert!(open(&overlay, None).refusal().contains("backing file"));
}
