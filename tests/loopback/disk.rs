//! Makes small disk images with the tools that make real ones.

#![expect(
    clippy::disallowed_methods,
    reason = "tests make images with the tools themselves"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs a program that must succeed, and returns what it prints.
pub fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program)
        .args(args)
        .env("LC_ALL", "C")
        .env("LVM_SUPPRESS_FD_WARNINGS", "1")
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(
        output.status.success(),
        "{program} {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Makes a program out of a script.
pub fn write_tool(path: &Path, script: &str) {
    fs::write(path, script).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

pub const MIB: u64 = 1 << 20;

/// A file system in a file of its own: type, label, size and content.
pub struct FileSystem {
    pub path: PathBuf,
    pub size_bytes: u64,
}

impl FileSystem {
    /// Makes it in `dir`; `files` are paths with content, a trailing slash makes
    /// a directory, and content that starts with "->" a link.
    pub fn make(dir: &Path, kind: &str, label: &str, mib: u64, files: &[(&str, &str)]) -> Self {
        let system = FileSystem::make_empty(dir, kind, label, mib);
        system.fill(dir, files);
        system
    }

    fn make_empty(dir: &Path, kind: &str, label: &str, mib: u64) -> Self {
        let path = dir.join(format!("{label}.{kind}"));
        let size_bytes = mib * MIB;
        empty_file(&path, size_bytes);
        match kind {
            "xfs" => run("mkfs.xfs", &["-q", "-f", "-L", label, text(&path)]),
            _ => run(
                &format!("mkfs.{kind}"),
                &["-q", "-F", "-L", label, text(&path)],
            ),
        };
        FileSystem { path, size_bytes }
    }

    fn fill(&self, dir: &Path, files: &[(&str, &str)]) {
        self.while_mounted(dir, |root| {
            for (name, content) in files {
                let path = root.join(name);
                if name.ends_with('/') {
                    fs::create_dir_all(&path).unwrap();
                    continue;
                }
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                match content.strip_prefix("->") {
                    Some(target) => std::os::unix::fs::symlink(target, &path).unwrap(),
                    None => fs::write(&path, content).unwrap(),
                }
            }
        });
    }

    /// Does some work on it while it is mounted.
    pub fn while_mounted(&self, dir: &Path, work: impl FnOnce(&Path)) {
        let at = dir.join("filling");
        fs::create_dir_all(&at).unwrap();
        run("mount", &["-o", "loop", text(&self.path), text(&at)]);
        work(&at);
        run("umount", &[text(&at)]);
        fs::remove_dir(&at).unwrap();
    }

    /// Leaves it as a machine does whose power was cut: the journal holds changes.
    pub fn cut_power(&self, dir: &Path) {
        let copy = self.path.with_extension("cut");
        self.while_mounted(dir, |root| {
            fs::write(root.join("last-words"), "x").unwrap();
            run("sync", &["-f", text(root)]);
            let of = format!("of={}", text(&copy));
            run(
                "dd",
                &[
                    &format!("if={}", text(&self.path)),
                    &of,
                    "bs=1M",
                    "status=none",
                ],
            );
        });
        fs::rename(&copy, &self.path).unwrap();
    }

    pub fn uuid(&self) -> String {
        let args = ["-p", "-s", "UUID", "-o", "value", text(&self.path)];
        run("blkid", &args).trim().to_owned()
    }
}

pub fn empty_file(path: &Path, size_bytes: u64) {
    fs::File::create(path).unwrap().set_len(size_bytes).unwrap();
}

/// A disk image that is being made.
pub struct Disk {
    pub path: PathBuf,
}

impl Disk {
    pub fn new(path: PathBuf, mib: u64) -> Disk {
        empty_file(&path, mib * MIB);
        Disk { path }
    }

    /// Writes a GPT with partitions of type and size in MiB, the first at 1 MiB.
    pub fn gpt(&self, partitions: &[(&str, u64)]) {
        let mut args = Vec::new();
        for (i, (kind, mib)) in partitions.iter().enumerate() {
            args.push(format!("-n{}:0:+{mib}M", i + 1));
            args.push(format!("-t{}:{kind}", i + 1));
        }
        let mut args: Vec<&str> = args.iter().map(String::as_str).collect();
        args.push(text(&self.path));
        run("sgdisk", &args);
    }

    /// Returns the byte offset of the partition `number`.
    pub fn partition_offset(&self, number: u32) -> u64 {
        let dump = run("sfdisk", &["--dump", text(&self.path)]);
        let name = format!("{}{number} ", text(&self.path));
        let line = dump
            .lines()
            .find(|line| line.starts_with(&name))
            .unwrap_or_else(|| panic!("no partition {number} in {dump}"));
        let start = line.split("start=").nth(1).unwrap();
        start
            .split(',')
            .next()
            .unwrap()
            .trim()
            .parse::<u64>()
            .unwrap()
            * 512
    }

    /// Copies `size_bytes` of a file system from `from` to `offset` of the disk.
    pub fn put(&self, system: &FileSystem, from: u64, size_bytes: u64, offset: u64) {
        let args = [
            format!("if={}", text(&system.path)),
            format!("of={}", text(&self.path)),
            "bs=1M".into(),
            "iflag=skip_bytes,count_bytes".into(),
            format!("skip={from}"),
            format!("count={size_bytes}"),
            "oflag=seek_bytes".into(),
            format!("seek={offset}"),
            "conv=notrunc,sparse".into(),
            "status=none".into(),
        ];
        run("dd", &args.each_ref().map(String::as_str));
    }

    pub fn put_whole(&self, system: &FileSystem, offset: u64) {
        self.put(system, 0, system.size_bytes, offset);
    }
}

/// Physical volumes of a disk as loop devices, for lvm2 to write metadata to.
pub struct Lvm<'d> {
    disk: &'d Disk,
    /// Loop device and offset in the disk.
    pvs: Vec<(String, u64)>,
}

impl<'d> Lvm<'d> {
    /// Takes partitions, given with their sizes, as physical volumes.
    pub fn new(disk: &'d Disk, partitions: &[(u32, u64)]) -> Lvm<'d> {
        let mut pvs = Vec::new();
        for (number, mib) in partitions {
            let offset = disk.partition_offset(*number);
            let args = [
                "--find".to_owned(),
                "--show".into(),
                format!("--offset={offset}"),
                format!("--sizelimit={}", mib * MIB),
                text(&disk.path).to_owned(),
            ];
            let device = run("losetup", &args.each_ref().map(String::as_str));
            pvs.push((device.trim().to_owned(), offset));
        }
        let lvm = Lvm { disk, pvs };
        for (device, _) in &lvm.pvs {
            lvm.run("pvcreate", &["-y", device]);
        }
        lvm
    }

    /// Runs one lvm command on these devices alone, without device-mapper.
    pub fn run(&self, verb: &str, args: &[&str]) -> String {
        let accepted: String = self
            .pvs
            .iter()
            .map(|(device, _)| format!("\"a|^{device}$|\","))
            .collect();
        let config = format!(
            "global{{activation=0 use_lvmpolld=0 event_activation=0}} \
             devices{{use_devicesfile=0 obtain_device_list_from_udev=0 \
             external_device_info_source=\"none\" global_filter=[{accepted}\"r|.*|\"]}} \
             activation{{udev_sync=0 udev_rules=0 monitoring=0}} backup{{backup=0 archive=0}}"
        );
        let mut words = vec![verb, "--config", &config];
        words.extend(args);
        run("lvm", &words)
    }

    pub fn group(&self, name: &str, pvs: &[usize]) {
        let mut args = vec![name];
        args.extend(pvs.iter().map(|pv| self.pvs[*pv].0.as_str()));
        self.run("vgcreate", &args);
    }

    pub fn volume(&self, group: &str, name: &str, mib: u64) {
        let size = format!("-L{mib}M");
        self.run("lvcreate", &["-an", "-Zn", "-Wn", &size, "-n", name, group]);
    }

    /// Copies a file system to where lvm says that the volume lies.
    pub fn put(&self, group: &str, name: &str, system: &FileSystem) {
        let rows = self.run(
            "lvs",
            &[
                "--segments",
                "--noheadings",
                "--units=b",
                "--nosuffix",
                "-oseg_start,seg_size,seg_pe_ranges,vg_extent_size",
                &format!("{group}/{name}"),
            ],
        );
        for row in rows.lines().filter(|row| !row.trim().is_empty()) {
            let columns: Vec<&str> = row.split_whitespace().collect();
            let [start, size, extents, extent_size] = columns[..] else {
                panic!("{row:?}");
            };
            let (device, extents) = extents.split_once(':').unwrap();
            let first: u64 = extents.split('-').next().unwrap().parse().unwrap();
            let (_, pv_offset) = self.pvs.iter().find(|(pv, _)| pv == device).unwrap();
            let data = self.run(
                "pvs",
                &[
                    "--noheadings",
                    "--units=b",
                    "--nosuffix",
                    "-ope_start",
                    device,
                ],
            );
            let data: u64 = data.trim().parse().unwrap();
            let at = pv_offset + data + first * extent_size.parse::<u64>().unwrap();
            self.disk
                .put(system, start.parse().unwrap(), size.parse().unwrap(), at);
        }
    }
}

impl Drop for Lvm<'_> {
    fn drop(&mut self) {
        for (device, _) in &self.pvs {
            run("losetup", &["--detach", device]);
        }
    }
}
