//! Random trees come back as they were; random damage never gets out of the tree.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};

use crate::kit::*;
use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{Mode, SFlag, UtimensatFlags, makedev, mknod, utimensat};
use nix::sys::time::TimeSpec;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use va_upgrade::bundle::{
    Codec, Keyring, Manifest, PackMode, PackOptions, PackPlan, Sealed, Trust, UnpackOptions,
    digest_tree, pack, unpack_tar_xz,
};
use va_upgrade::progress::Silent;

#[derive(Clone, Debug)]
enum What {
    Dir,
    /// Size and stretches of data.
    File(u64, Vec<(u64, usize)>),
    Symlink(Vec<u8>),
    Device(u64, u64),
    Fifo,
    /// A further name of the file that many entries before.
    Link(usize),
}

#[derive(Clone, Debug)]
struct Inode {
    what: What,
    /// The directory it lies in: one of those made before it.
    dir: usize,
    mode: u32,
    owner: (u32, u32),
    mtime: (i64, i64),
    attribute: Option<(String, Vec<u8>)>,
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    let byte = any::<u8>().prop_filter("not in a name", |b| *b != 0 && *b != b'/');
    let odd = vec(byte, 1..40);
    let long = (1_u8..=255, 200_usize..=255)
        .prop_map(|(b, n)| vec![if b == b'/' || b == b'.' { b'x' } else { b }; n]);
    prop_oneof![3 => "[a-z]{1,8}(\\.ko|\\.so|\\.py)?".prop_map(String::into_bytes), 2 => odd, 1 => long]
        .prop_filter("stands for a directory", |n| n != b"." && n != b"..")
}

fn what() -> impl Strategy<Value = What> {
    let data = vec((0_u64..3_000_000, 1_usize..70_000), 0..4);
    let size = prop_oneof![0_u64..100_000, 0_u64..6_000_000, Just(5 << 30)];
    let target = vec(1_u8..=255, 1..300);
    prop_oneof![
        3 => Just(What::Dir),
        6 => (size, data).prop_map(|(size, data)| What::File(size, data)),
        1 => target.prop_map(What::Symlink),
        1 => (0_u64..4096, 0_u64..1_000_000).prop_map(|(a, b)| What::Device(a, b)),
        1 => Just(What::Fifo),
        2 => (0_usize..8).prop_map(What::Link),
    ]
}

fn inode() -> impl Strategy<Value = Inode> {
    let attribute = ("(user|trusted)\\.[a-z=%]{1,20}", vec(any::<u8>(), 0..200));
    (
        what(),
        0_usize..6,
        0_u32..0o10000,
        (any::<u32>(), 0_u32..u32::MAX),
        (-2_000_000_000_i64..10_000_000_000, 0_i64..1_000_000_000),
        proptest::option::weighted(0.3, attribute),
    )
        .prop_map(|(what, dir, mode, owner, mtime, attribute)| Inode {
            what,
            dir,
            mode,
            owner: (owner.0.min(u32::MAX - 1), owner.1),
            mtime,
            attribute,
        })
}

/// Makes the tree; times of directories come last.
fn make(root: &Path, inodes: &[(Vec<u8>, Inode)]) {
    let mut dirs = vec![root.to_owned()];
    let mut files: Vec<PathBuf> = Vec::new();
    let mut made: Vec<(PathBuf, &Inode)> = Vec::new();
    for (name, inode) in inodes {
        let path = dirs[inode.dir % dirs.len()].join(OsStr::from_bytes(name));
        match &inode.what {
            What::Dir => {
                fs::create_dir(&path).unwrap();
                dirs.push(path.clone());
            }
            What::File(size, data) => {
                let file = File::create(&path).unwrap();
                file.set_len(*size).unwrap();
                for (offset, length) in data {
                    let room = size.saturating_sub(*offset);
                    let length = usize::try_from(room).unwrap().min(*length);
                    let bytes = noise(length, *offset);
                    file.write_all_at(&bytes, *offset).unwrap();
                }
                files.push(path.clone());
            }
            What::Symlink(target) => symlink(OsStr::from_bytes(target), &path).unwrap(),
            What::Device(major, minor) => {
                let device = makedev(*major, *minor);
                mknod(&path, SFlag::S_IFCHR, Mode::empty(), device).unwrap();
            }
            What::Fifo => mknod(&path, SFlag::S_IFIFO, Mode::empty(), 0).unwrap(),
            What::Link(back) => {
                if let Some(file) = files.iter().rev().nth(*back) {
                    fs::hard_link(file, &path).unwrap();
                }
                continue;
            }
        }
        made.push((path, inode));
    }
    for (path, inode) in made.iter().rev() {
        let is_symlink = matches!(inode.what, What::Symlink(_));
        let (uid, gid) = (Some(inode.owner.0), Some(inode.owner.1));
        if is_symlink {
            lchown(path, uid, gid).unwrap();
        } else {
            chown(path, uid, gid).unwrap();
            fs::set_permissions(path, Permissions::from_mode(inode.mode)).unwrap();
        }
        if let Some((name, value)) = &inode.attribute {
            // Only files and directories take those of the user's space.
            let is_plain = matches!(inode.what, What::File(..) | What::Dir);
            if is_plain || name.starts_with("trusted.") {
                xattr::set(path, name, value).unwrap();
            }
        }
        let time = TimeSpec::new(inode.mtime.0, inode.mtime.1);
        let flag = UtimensatFlags::NoFollowSymlink;
        utimensat(AT_FDCWD, path, &time, &time, flag).unwrap();
    }
}

fn pack_with(tree: &Path, out: &Path, codec: Codec, blocks: usize, threads: usize) -> Manifest {
    let options = PackOptions {
        plan: PackPlan {
            chunk_bytes: blocks * 512,
            level: 1,
            ..PackPlan::new(codec, PackMode::Default)
        },
        ..PackOptions::new(threads, 0)
    };
    pack(tree, &release(), &facts(), &options, out, &Silent).unwrap_or_else(|e| panic!("{e:#}"))
}

proptest! {
    #![proptest_config(Config { cases: 24, failure_persistence: None, ..Config::default() })]

    #[test]
    fn any_tree_comes_back_through_any_chunks_on_any_threads(
        inodes in btree_map(name(), inode(), 0..40),
        // Headers, too, then lie across the ends of chunks.
        blocks in 16_usize..400,
        threads in 1_usize..5,
        codec in prop::sample::select(vec![Codec::Xz, Codec::Zstd]),
    ) {
        let dir = temp_dir();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("tree")).unwrap();
        fs::create_dir(at("out")).unwrap();
        let inodes: Vec<(Vec<u8>, Inode)> = inodes.into_iter().collect();
        make(&at("tree"), &inodes);
        let manifest = pack_with(&at("tree"), &at("a.vab"), codec, blocks, threads);
        pack_with(&at("tree"), &at("b.vab"), codec, blocks, 5 - threads);
        prop_assert!(fs::read(at("a.vab")).unwrap() == fs::read(at("b.vab")).unwrap());

        let keyring = Keyring::default();
        let trust = Trust::SignedOrUnsigned(&keyring);
        let (bundle, _) = Sealed::open(&at("a.vab")).unwrap().authenticate(trust).unwrap();
        bundle.unpack(&at("out"), &UnpackOptions::new(threads), &Silent)
            .unwrap_or_else(|e| panic!("{e:#}"));
        assert_same(&at("tree"), &at("out"));
        let digest = digest_tree(&at("out"), 2, &Silent).unwrap();
        prop_assert_eq!(digest, manifest.tree.digest);
    }
}

/// An archive with one of everything that a header can say.
fn archive(dir: &Path) -> Vec<u8> {
    let (tree, archive) = (dir.join("tree"), dir.join("archive"));
    fs::create_dir(&tree).unwrap();
    make_tricky_tree(&tree);
    for large in ["boot", "usr", "srv/many-holes", "srv/holes"] {
        sh(&format!("rm -r '{}/{large}'", tree.display()));
    }
    sh(&format!(
        "tar --format=pax --sparse --xattrs --xattrs-include='*' --acls --numeric-owner \
         -C '{}' -cf '{}' .",
        tree.display(),
        archive.display()
    ));
    fs::read(archive).unwrap()
}

#[derive(Clone, Debug)]
struct Damage {
    at: prop::sample::Index,
    bytes: Vec<u8>,
}

fn damage() -> impl Strategy<Value = Damage> {
    let text = prop::sample::select(vec![
        "../",
        "/",
        "0",
        "9999999999",
        "\0",
        "-",
        "=",
        "\n",
        " ",
        "12 path=../x\n",
        "1",
        "2",
        "5",
        "L",
        "S",
    ]);
    let bytes = prop_oneof![
        3 => text.prop_map(|text| text.as_bytes().to_vec()),
        1 => vec(any::<u8>(), 1..4),
    ];
    (any::<prop::sample::Index>(), bytes).prop_map(|(at, bytes)| Damage { at, bytes })
}

/// Puts right the sums of what still looks like headers, or no damage to one
/// would be seen by anything but the check of the sum.
fn mend_sums(archive: &mut [u8]) {
    for block in archive.as_chunks_mut::<512>().0 {
        if &block[257..262] == b"ustar" {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
}

#[test]
fn a_hundred_damaged_archives_neither_panic_nor_write_outside() {
    let dir = temp_dir();
    let whole = archive(dir.path());
    let base = dir.path().join("base");
    let target = base.join("target");
    let mut runner = TestRunner::new(Config {
        cases: 100,
        failure_persistence: None,
        ..Config::default()
    });
    let outcome = runner.run(&vec(damage(), 1..4), |damages| {
        let mut bytes = whole.clone();
        for damage in &damages {
            let at = damage.at.index(bytes.len() - damage.bytes.len());
            bytes[at..at + damage.bytes.len()].copy_from_slice(&damage.bytes);
        }
        mend_sums(&mut bytes);
        fs::create_dir_all(&target).unwrap();
        let mut encoder = xz2::write::XzEncoder::new(Vec::new(), 0);
        encoder.write_all(&bytes).unwrap();
        let packed = encoder.finish().unwrap();
        // Most are refused, some damage only data: both are right.
        let _ = unpack_tar_xz(&packed[..], &target, &unpack_options(), &Silent);
        prop_assert_eq!(fs::read_dir(&base).unwrap().count(), 1);
        sh(&format!("rm -rf '{}'", target.display()));
        Ok(())
    });
    outcome.unwrap_or_else(|e| panic!("{e}"));
}
