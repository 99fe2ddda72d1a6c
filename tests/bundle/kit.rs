//! What the tests share: running tools, a tricky tree, packing it.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;

use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use tempfile::TempDir;
use va_upgrade::bundle::{
    BootFiles, Codec, Manifest, PackMode, PackOptions, PackPlan, Release, TreeFacts, UnpackOptions,
    pack,
};
use va_upgrade::cpu::CpuLevel;
use va_upgrade::progress::Silent;
use va_upgrade::system::{Cmd, Host, System};

/// Makes a directory on a file system that keeps everything a tree may have.
pub fn temp_dir() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

pub fn run<S: AsRef<OsStr>>(program: &str, args: impl IntoIterator<Item = S>) -> String {
    let cmd = Cmd::new(program).args(args).env("LC_ALL", "C.UTF-8");
    Host::new(false)
        .run(&cmd)
        .unwrap_or_else(|e| panic!("{e:#}"))
}

/// Runs a shell script that fails as soon as any command in it fails.
pub fn sh(script: &str) -> String {
    run("bash", ["-euo", "pipefail", "-c", script])
}

pub fn release() -> Release {
    Release::parse("product: Test\nversion: 1.0").unwrap()
}

pub fn facts() -> TreeFacts {
    TreeFacts {
        boot: BootFiles {
            kernel_release: "6.1.0".into(),
            kernel: "boot/vmlinuz".into(),
            initramfs: "boot/initrd.img".into(),
            kernel_bytes: 1,
            initramfs_bytes: 1,
        },
        cpu_level: CpuLevel::V1,
        architecture: "x86_64".into(),
    }
}

/// Options that make many chunks out of a small tree.
pub fn small_chunks(threads: usize) -> PackOptions {
    PackOptions {
        plan: PackPlan {
            chunk_bytes: 64 << 10,
            level: 1,
            ..PackPlan::new(Codec::Xz, PackMode::Default)
        },
        ..PackOptions::new(threads, 1_700_000_000)
    }
}

pub fn pack_tree(root: &Path, out: &Path, threads: usize) -> Manifest {
    pack(
        root,
        &release(),
        &facts(),
        &small_chunks(threads),
        out,
        &Silent,
    )
    .unwrap_or_else(|e| panic!("{e:#}"))
}

pub fn unpack_options() -> UnpackOptions {
    UnpackOptions::new(3)
}

/// Bytes that do not repeat.
pub fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..length).map(|_| next().to_le_bytes()[3]).collect()
}

fn set_mtime(path: &Path, seconds: i64, nanoseconds: u32) {
    let text = format!("@{seconds}.{nanoseconds:09}");
    run(
        "touch",
        [OsStr::new("-hmd"), OsStr::new(&text), path.as_os_str()],
    );
}

/// Fills `root` with everything docs/interface.md says is kept.
pub fn make_tricky_tree(root: &Path) {
    let at = |path: &str| root.join(path);
    for dir in [
        "etc", "usr/bin", "boot", "srv/acl", "proc", "tmp/gone", "dev", "empty",
    ] {
        fs::create_dir_all(at(dir)).unwrap();
    }
    fs::write(at("etc/passwd"), "root:x:0:0::/root:/bin/sh\n").unwrap();
    fs::write(at("etc/empty"), "").unwrap();
    fs::write(at("boot/vmlinuz"), noise(300_000, 1)).unwrap();
    fs::write(
        at("usr/bin/big"),
        [b"\x7fELF".to_vec(), noise(200_000, 2)].concat(),
    )
    .unwrap();
    for i in 0..200 {
        fs::write(
            at(&format!("usr/bin/tool{i}")),
            format!("#!/bin/sh\n# {i}\n").repeat(i),
        )
        .unwrap();
    }

    // Owners, modes, capabilities.
    fs::copy("/bin/true", at("usr/bin/su")).unwrap();
    std::os::unix::fs::chown(at("usr/bin/su"), Some(4_000_000_000), Some(3_000_000)).unwrap();
    fs::set_permissions(at("usr/bin/su"), Permissions::from_mode(0o6755)).unwrap();
    fs::copy("/bin/true", at("usr/bin/ping")).unwrap();
    run(
        "setcap",
        [OsStr::new("cap_net_raw+ep"), at("usr/bin/ping").as_os_str()],
    );
    fs::set_permissions(at("srv"), Permissions::from_mode(0o2775)).unwrap();
    std::os::unix::fs::chown(at("srv"), Some(7), Some(8)).unwrap();
    fs::set_permissions(at("etc/empty"), Permissions::from_mode(0o000)).unwrap();

    // Attributes and ACLs.
    fs::write(at("srv/acl/file"), "x").unwrap();
    for (path, name, value) in [
        ("srv/acl/file", "user.note", &b"a\nb=c\0d"[..]),
        ("srv/acl/file", "user.empty", b""),
        ("srv/acl/file", "trusted.secret", b"\xff\xfe"),
        (
            "srv/acl/file",
            "security.selinux",
            b"system_u:object_r:etc_t:s0\0",
        ),
        ("srv/acl/file", "security.ima", b"\x04\x02\x00"),
        ("srv/acl/file", "security.evm", b"machine"),
        ("srv/acl", "user.dir", b"yes"),
    ] {
        if name == "security.evm" {
            // Not every kernel takes it, and it must not arrive anyway.
            let _ = xattr::set(at(path), name, value);
            continue;
        }
        xattr::set(at(path), name, value).unwrap();
    }
    let acl = "u:1234:rw-,g:5678:r-x";
    run(
        "setfacl",
        [
            OsStr::new("-m"),
            OsStr::new(acl),
            at("srv/acl/file").as_os_str(),
        ],
    );
    let default = "d:u:1234:rwx,u:99:--x";
    run(
        "setfacl",
        [
            OsStr::new("-m"),
            OsStr::new(default),
            at("srv/acl").as_os_str(),
        ],
    );
    fs::create_dir(at("srv/acl/inherits")).unwrap();

    // Links and nodes.
    symlink("../etc/passwd", at("usr/bin/link")).unwrap();
    symlink("x".repeat(3000), at("usr/bin/longlink")).unwrap();
    symlink("/nowhere/\u{e9}", at("absolute")).unwrap();
    xattr::set(at("usr/bin/link"), "trusted.on.link", b"1").unwrap();
    std::os::unix::fs::lchown(at("usr/bin/link"), Some(5), Some(6)).unwrap();
    fs::hard_link(at("usr/bin/big"), at("empty/same")).unwrap();
    fs::hard_link(at("usr/bin/big"), at("aaa")).unwrap();
    fs::hard_link(at("usr/bin/link"), at("zzz")).unwrap();
    let mode = Mode::from_bits_truncate(0o640);
    mknod(&at("srv/null"), SFlag::S_IFCHR, mode, makedev(1, 3)).unwrap();
    mknod(
        &at("srv/disk"),
        SFlag::S_IFBLK,
        mode,
        makedev(4000, 1_000_000),
    )
    .unwrap();
    mknod(&at("srv/fifo"), SFlag::S_IFIFO, mode, 0).unwrap();

    // Sparse files with holes at both ends, only a hole, and many holes.
    let sparse = |path: &str, size: u64, data: &[(u64, usize)]| {
        let file = File::create(at(path)).unwrap();
        file.set_len(size).unwrap();
        for (offset, length) in data {
            file.write_all_at(&noise(*length, *offset + 3), *offset)
                .unwrap();
        }
    };
    sparse("srv/holes", 5 << 30, &[(1 << 20, 5000), (3 << 30, 100_000)]);
    sparse("srv/only-a-hole", 1 << 40, &[]);
    sparse("srv/data-at-end", 1 << 20, &[((1 << 20) - 10, 10)]);
    let many: Vec<(u64, usize)> = (0..500).map(|i| (i * 16384, 4096)).collect();
    sparse("srv/many-holes", 500 * 16384, &many);

    // Names.
    let odd = root.join(OsStr::from_bytes(b"bad \xff\xfe\nname"));
    fs::create_dir(&odd).unwrap();
    fs::write(odd.join("-rf *"), "odd").unwrap();
    fs::write(at(&"n".repeat(255)), "long").unwrap();
    let mut deep = root.to_owned();
    for _ in 0..3 {
        deep.push("d".repeat(200));
    }
    deep.push(OsStr::from_bytes(b"\xe9tage"));
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("leaf"), "leaf").unwrap();

    // Times, last because everything else changes them.
    set_mtime(&at("etc/passwd"), 1, 123_456_789);
    set_mtime(&at("etc/empty"), -2, 500_000_000);
    set_mtime(&at("usr/bin/link"), -1_000_000_000, 1);
    set_mtime(&at("srv/null"), 4_000_000_000, 999_999_999);
    set_mtime(&at("empty"), 10_000_000_000, 0);
    set_mtime(&at("boot"), 86_400, 5);
    set_mtime(root, 1_000_000, 7);
}

/// Adds a directory whose path is longer than the kernel takes.
pub fn make_deep_dir(root: &Path) {
    let name = "deep".repeat(60);
    let name = &name;
    sh(&format!(
        "cd '{}'; for i in $(seq 25); do mkdir {name}; cd {name}; done; echo far > leaf",
        root.display()
    ));
}
