//! What is not all there is refused: images that were cut off at any place, and
//! file systems that know of their own damage.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::disk::{Disk, FileSystem, Lvm, run, text};
use super::opener::open;

/// A disk whose root is on a partition, with data up to the end.
fn full_disk(dir: &Path) -> PathBuf {
    let files = [
        ("etc/os-release", "ID=debian\n"),
        ("sbin/init", "init"),
        ("etc/greeting", "hello"),
    ];
    let root = FileSystem::make(dir, "ext4", "root", 24, &files);
    let disk = Disk::new(dir.join("disk.raw"), 26);
    disk.gpt(&[("8300", 24)]);
    disk.put_whole(&root, disk.partition_offset(1));
    // So that no format can leave the end out.
    let noise: Vec<u8> = (0..64 << 10)
        .map(|i: u32| ((i * i) >> 7).to_le_bytes()[0])
        .collect();
    let file = OpenOptions::new().write(true).open(&disk.path).unwrap();
    file.write_all_at(&noise, (25 << 20) - (64 << 10)).unwrap();
    disk.path
}

fn convert(raw: &Path, to: &Path, format: &str, option: &str) {
    let mut args = vec!["convert", "-f", "raw", "-O", format];
    if !option.is_empty() {
        args.extend(["-o", option]);
    }
    args.extend([text(raw), text(to)]);
    run("qemu-img", &args);
}

/// Returns the file that holds the data of the image at `path`.
fn data_file(path: &Path) -> PathBuf {
    let name = path.file_stem().unwrap().to_str().unwrap();
    ["-flat", "-f001", "-s001"]
        .iter()
        .map(|part| path.with_file_name(format!("{name}{part}.vmdk")))
        .find(|part| part.exists())
        .unwrap_or_else(|| path.to_owned())
}

/// Cuts the file to the length of each of `lengths` in turn, longest first.
fn assert_refused_when_cut(source: &Path, data: &Path, lengths: &[u64]) {
    let name = data.file_name().unwrap().to_str().unwrap();
    for length in lengths {
        let file = OpenOptions::new().write(true).open(data).unwrap();
        file.set_len(*length).unwrap();
        let seen = open(source, None);
        assert!(seen.error.is_some(), "{name} of {length} bytes was opened");
        let refusal = seen.refusal();
        assert!(refusal.contains("copy it again"), "{length}: {refusal}");
        assert!(refusal.contains(name), "{length}: {refusal}");
        assert!(refusal.contains("cut off"), "{length}: {refusal}");
    }
}

#[test]
fn an_image_of_any_format_that_was_cut_off_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let raw = full_disk(dir);
    for (format, option) in [
        ("vmdk", "subformat=monolithicSparse"),
        ("vmdk", "subformat=monolithicFlat"),
        ("vmdk", "subformat=twoGbMaxExtentFlat"),
        ("vmdk", "subformat=twoGbMaxExtentSparse"),
        ("vmdk", "subformat=streamOptimized"),
        ("qcow2", ""),
        ("qcow2", "preallocation=metadata"),
    ] {
        let word = option.split('=').nth(1).unwrap_or("plain");
        let image = dir.join(format!("{word}.{format}"));
        convert(&raw, &image, format, option);
        open(&image, None).assert_opened();
        let data = data_file(&image);
        let whole = fs::metadata(&data).unwrap().len();
        // The last compressed grain is followed by nothing that would be missed.
        let near = match word {
            "streamOptimized" => 70 << 10,
            _ => 512,
        };
        let lengths = [whole - near, whole - (100 << 10), whole / 3, 20 << 10];
        assert_refused_when_cut(&image, &data, &lengths);
    }
    let lengths = [(25 << 20) - 1, 20 << 20, 2 << 20];
    assert_refused_when_cut(&raw, &raw, &lengths);
}

#[test]
fn an_image_with_damaged_tables_is_refused_whatever_it_is_called() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let raw = full_disk(dir);
    for name in ["plain.qcow2", "exit status: 3.qcow2"] {
        let image = dir.join(name);
        convert(&raw, &image, "qcow2", "");
        open(&image, None).assert_opened();
        // Nothing is counted as used any more.
        let options = OpenOptions::new().read(true).write(true).open(&image);
        let file = options.unwrap();
        let place = |at: u64| {
            let mut place = [0; 8];
            file.read_exact_at(&mut place, at).unwrap();
            u64::from_be_bytes(place)
        };
        file.write_all_at(&[0; 512], place(place(48))).unwrap();
        let seen = open(&image, None);
        let refusal = seen.refusal();
        assert!(refusal.contains("damaged or cut off"), "{refusal}");
        assert!(refusal.contains("copy it again"), "{refusal}");
    }
}

#[test]
fn a_bare_file_system_that_was_cut_off_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for (kind, mib) in [("ext4", 24), ("xfs", 320)] {
        let files = [("etc/os-release", "ID=debian\n"), ("sbin/init", "init")];
        let root = FileSystem::make(dir.path(), kind, "root", mib, &files);
        let whole = root.size_bytes;
        assert_refused_when_cut(&root.path, &root.path, &[whole - 4096, whole / 2]);
    }
}

#[test]
fn a_logical_volume_beyond_the_end_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let disk = Disk::new(dir.join("bare-pv.raw"), 64);
    disk.gpt(&[("8e00", 62)]);
    {
        let lvm = Lvm::new(&disk, &[(1, 62)]);
        lvm.group("VA", &[0]);
        lvm.volume("VA", "root", 56);
    }
    // The physical volume alone, without a partition around it.
    let pv = dir.join("pv.raw");
    let (from, to) = (
        format!("if={}", text(&disk.path)),
        format!("of={}", text(&pv)),
    );
    run(
        "dd",
        &[&from, &to, "bs=1M", "skip=1", "count=40", "status=none"],
    );
    let seen = open(&pv, None);
    let refusal = seen.refusal();
    assert!(refusal.contains("pv.raw"), "{refusal}");
    assert!(refusal.contains("cut off, copy it again"), "{refusal}");
    assert!(refusal.contains("root"), "{refusal}");
}

#[test]
fn a_file_system_that_recorded_errors_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let files = [("etc/os-release", "ID=debian\n"), ("sbin/init", "init")];
    let root = FileSystem::make(dir.path(), "ext4", "root", 24, &files);
    run("debugfs", &["-w", "-R", "ssv state 3", text(&root.path)]);
    let seen = open(&root.path, None);
    let refusal = seen.refusal();
    assert!(refusal.contains("recorded errors"), "{refusal}");
    assert!(refusal.contains("e2fsck -f"), "{refusal}");
    assert!(refusal.contains("root.ext4"), "{refusal}");
}
