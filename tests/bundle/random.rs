//! Random trees with all that docs/interface.md says is kept.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{Mode, SFlag, UtimensatFlags, makedev, mknod, utimensat};
use nix::sys::time::TimeSpec;
use proptest::collection::{btree_map, btree_set, vec};
use proptest::option::weighted;
use proptest::prelude::*;

use crate::compare::below;
use crate::kit::noise;

/// Of directories with such names, 17 in each other are out of reach of calls
/// that take paths.
const LONG_NAME_BYTES: usize = 240;

#[derive(Clone, Debug)]
enum What {
    Dir,
    /// As many directories in each other.
    Depth(usize),
    /// Size and stretches of data.
    File(u64, Vec<(u64, usize)>),
    Symlink(Vec<u8>),
    Char(u64, u64),
    Block(u64, u64),
    Fifo,
    /// A further name of the file that many entries before.
    Link(usize),
}

/// What a name stands for.
#[derive(Clone, Debug)]
pub struct Inode {
    what: What,
    /// The directory it lies in: one of those made before it.
    dir: prop::sample::Index,
    mode: u32,
    owner: (u32, u32),
    mtime: (i64, i64),
    attribute: Option<(String, Vec<u8>)>,
    label: Option<String>,
    acl: Option<Vec<u8>>,
    default_acl: Option<Vec<u8>>,
    capability: Option<Vec<u8>>,
}

/// Names of all kinds, and what they stand for.
pub type Names = Vec<(Vec<u8>, Inode)>;

/// Makes up a tree of up to `count` names.
pub fn names(count: usize) -> impl Strategy<Value = Names> {
    btree_map(name(), inode(), 0..count).prop_map(|names| names.into_iter().collect())
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    let byte = any::<u8>().prop_filter("not in a name", |b| *b != 0 && *b != b'/');
    let odd = vec(byte, 1..40);
    let long = (1_u8..=255, 200_usize..=255)
        .prop_map(|(b, n)| vec![if b == b'/' || b == b'.' { b'x' } else { b }; n]);
    let plain = "[a-z]{1,8}(\\.ko|\\.so|\\.py)?".prop_map(String::into_bytes);
    let special = ["proc", "sys", "dev", "run", "tmp", ".", ".."];
    prop_oneof![3 => plain, 2 => odd, 1 => long].prop_filter("is special", move |n| {
        !special.iter().any(|s| s.as_bytes() == n)
    })
}

fn what() -> impl Strategy<Value = What> {
    let data = vec((0_u64..3_000_000, 1_usize..70_000), 0..4);
    let size = prop_oneof![Just(0), 0_u64..100_000, 0_u64..6_000_000, Just(5 << 30)];
    let target = vec(1_u8..=255, 1..300);
    let device = (0_u64..4096, 0_u64..1_000_000);
    prop_oneof![
        6 => Just(What::Dir),
        2 => (14_usize..20).prop_map(What::Depth),
        12 => (size, data).prop_map(|(size, data)| What::File(size, data)),
        2 => target.prop_map(What::Symlink),
        1 => device.clone().prop_map(|(a, b)| What::Char(a, b)),
        1 => device.prop_map(|(a, b)| What::Block(a, b)),
        2 => Just(What::Fifo),
        4 => (0_usize..8).prop_map(What::Link),
    ]
}

fn inode() -> impl Strategy<Value = Inode> {
    let attribute = ("(user|trusted)\\.[a-z=%]{1,20}", vec(any::<u8>(), 0..200));
    let label = "system_u:object_r:[a-z_]{1,10}_t:s0(:c[0-9]{1,3})?\0";
    (
        (what(), any::<prop::sample::Index>()),
        0_u32..0o10000,
        (0..u32::MAX, 0..u32::MAX),
        (-2_000_000_000_i64..10_000_000_000, 0_i64..1_000_000_000),
        weighted(0.3, attribute),
        weighted(0.3, label),
        weighted(0.2, acl()),
        weighted(0.2, acl()),
        weighted(0.2, capability()),
    )
        .prop_map(
            |((what, dir), mode, owner, mtime, attribute, label, acl, default_acl, capability)| {
                Inode {
                    what,
                    dir,
                    mode,
                    owner,
                    mtime,
                    attribute,
                    label,
                    acl,
                    default_acl,
                    capability,
                }
            },
        )
}

/// Makes up an ACL with named users, named groups and a mask, as the kernel
/// keeps it.
fn acl() -> impl Strategy<Value = Vec<u8>> {
    // No two that a tool with 31 bits could take for each other.
    let ids = || {
        (
            btree_set(0..1_u32 << 31, 0..4),
            weighted(0.2, 1_u32 << 31..u32::MAX),
        )
    };
    let named = (ids(), ids())
        .prop_map(|((users, user), (groups, group))| {
            let users: Vec<u32> = users.into_iter().chain(user).collect();
            let groups: Vec<u32> = groups.into_iter().chain(group).collect();
            (users, groups)
        })
        .prop_filter("says no more than the mode", |(users, groups)| {
            users.len() + groups.len() > 0
        });
    (named, vec(0_u16..8, 16)).prop_map(|((users, groups), perms)| {
        const NO_ID: u32 = u32::MAX;
        let mut entries = vec![(1_u16, NO_ID)];
        entries.extend(users.into_iter().map(|id| (2, id)));
        entries.push((4, NO_ID));
        entries.extend(groups.into_iter().map(|id| (8, id)));
        entries.extend([(16, NO_ID), (32, NO_ID)]);
        let mut blob = 2_u32.to_le_bytes().to_vec();
        for ((tag, id), perm) in entries.into_iter().zip(perms) {
            blob.extend(tag.to_le_bytes());
            blob.extend(perm.to_le_bytes());
            blob.extend(id.to_le_bytes());
        }
        blob
    })
}

/// Makes up a file's capabilities: revision 2, or 3 with the root of a
/// namespace.
fn capability() -> impl Strategy<Value = Vec<u8>> {
    let bits = || 0_u64..1 << 41;
    (
        bits(),
        bits(),
        any::<bool>(),
        weighted(0.3, 1_u32..1_000_000),
    )
        .prop_map(|(permitted, inheritable, is_effective, root)| {
            let revision = if root.is_some() { 3_u32 } else { 2 };
            let mut blob = (revision << 24 | u32::from(is_effective))
                .to_le_bytes()
                .to_vec();
            let (permitted, inheritable) = (permitted.to_le_bytes(), inheritable.to_le_bytes());
            for half in [0..4, 4..8] {
                blob.extend(&permitted[half.clone()]);
                blob.extend(&inheritable[half]);
            }
            blob.extend(root.map(u32::to_le_bytes).into_iter().flatten());
            blob
        })
}

/// Makes the tree beneath `root`, name by name relative to open directories,
/// because some paths are longer than any call takes.
pub fn make(root: &Path, names: &Names) {
    let mut dirs = vec![Rc::new(File::open(root).unwrap())];
    // Each file with the directory that its path leads through.
    let mut files: Vec<(Rc<File>, PathBuf)> = Vec::new();
    let mut made = Vec::new();
    for (name, inode) in names {
        let dir = Rc::clone(inode.dir.get(&dirs));
        let path = below(&dir, OsStr::from_bytes(name));
        match &inode.what {
            What::Dir => dirs.push(make_dir(&path)),
            What::Depth(depth) => {
                let mut last = make_dir(&path);
                for _ in 0..*depth {
                    last = make_dir(&below(&last, "d".repeat(LONG_NAME_BYTES)));
                }
                dirs.push(last);
            }
            What::File(size, data) => {
                make_file(&path, *size, data);
                files.push((Rc::clone(&dir), path.clone()));
            }
            What::Symlink(target) => symlink(OsStr::from_bytes(target), &path).unwrap(),
            What::Char(major, minor) => make_node(&path, SFlag::S_IFCHR, (*major, *minor)),
            What::Block(major, minor) => make_node(&path, SFlag::S_IFBLK, (*major, *minor)),
            What::Fifo => make_node(&path, SFlag::S_IFIFO, (0, 0)),
            What::Link(back) => {
                if let Some((_, file)) = files.iter().rev().nth(*back) {
                    fs::hard_link(file, &path).unwrap();
                }
                continue;
            }
        }
        made.push((dir, path, inode));
    }
    // What is made in a directory changes its time.
    for (_, path, inode) in made.iter().rev() {
        describe(path, inode);
    }
}

fn make_dir(path: &Path) -> Rc<File> {
    fs::create_dir(path).unwrap();
    Rc::new(File::open(path).unwrap())
}

fn make_file(path: &Path, size: u64, data: &[(u64, usize)]) {
    let file = File::create(path).unwrap();
    file.set_len(size).unwrap();
    for (offset, length) in data {
        let room = size.saturating_sub(*offset);
        let length = usize::try_from(room).unwrap().min(*length);
        file.write_all_at(&noise(length, *offset), *offset).unwrap();
    }
}

fn make_node(path: &Path, kind: SFlag, device: (u64, u64)) {
    mknod(path, kind, Mode::empty(), makedev(device.0, device.1)).unwrap();
}

fn describe(path: &Path, inode: &Inode) {
    let is_symlink = matches!(inode.what, What::Symlink(_));
    let is_file = matches!(inode.what, What::File(..));
    let is_dir = matches!(inode.what, What::Dir | What::Depth(_));
    let set = |name: &str, value: &[u8]| {
        xattr::set(path, name, value).unwrap_or_else(|e| panic!("{name}: {e}"));
    };
    let (uid, gid) = (Some(inode.owner.0), Some(inode.owner.1));
    if is_symlink {
        lchown(path, uid, gid).unwrap();
    } else {
        chown(path, uid, gid).unwrap();
        fs::set_permissions(path, Permissions::from_mode(inode.mode)).unwrap();
        if let Some(acl) = &inode.acl {
            set("system.posix_acl_access", acl);
        }
    }
    if let (true, Some(acl)) = (is_dir, &inode.default_acl) {
        set("system.posix_acl_default", acl);
    }
    if let Some((name, value)) = &inode.attribute
        // Only files and directories take those of the user's space.
        && (is_file || is_dir || name.starts_with("trusted."))
    {
        set(name, value);
    }
    if let Some(label) = &inode.label {
        set("security.selinux", label.as_bytes());
    }
    if let (true, Some(capability)) = (is_file, &inode.capability) {
        set("security.capability", capability);
    }
    let time = TimeSpec::new(inode.mtime.0, inode.mtime.1);
    let flag = UtimensatFlags::NoFollowSymlink;
    utimensat(AT_FDCWD, path, &time, &time, flag).unwrap();
}
