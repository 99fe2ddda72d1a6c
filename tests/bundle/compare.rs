//! Compares trees entry by entry, however long their paths are.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::unistd::{Whence, lseek};
use va_upgrade::sha::Sha;

/// What is compared at once.
const BLOCK: usize = 4096;

/// All there is to know of an entry but its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub mode: u32,
    pub owner: (u32, u32),
    /// Seconds and nanoseconds, which always count forwards.
    pub mtime: (i64, i64),
    pub device: u64,
    pub xattrs: BTreeMap<String, Vec<u8>>,
    /// Where a symbolic link points.
    pub target: Option<PathBuf>,
    pub file: Option<Content>,
    /// The first of an inode's names, where it has several.
    pub first_name: Option<PathBuf>,
}

/// What is in a regular file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    pub size_bytes: u64,
    /// More than half of it is in holes, and it is large enough for any tool to
    /// bother.
    pub is_sparse: bool,
    /// The digest of its blocks but those of zeros.
    pub digest: String,
}

/// A tree as a map from paths to what is there.
pub type Tree = BTreeMap<PathBuf, Entry>;

/// A path of any length below an open directory, for calls that take paths.
pub fn below(dir: &File, name: impl AsRef<Path>) -> PathBuf {
    Path::new("/proc/self/fd")
        .join(dir.as_raw_fd().to_string())
        .join(name)
}

/// Describes every entry of a tree.
pub fn snapshot(root: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut names = BTreeMap::new();
    let meta = fs::symlink_metadata(root).unwrap();
    tree.insert(PathBuf::new(), describe(root, &meta));
    if meta.is_dir() {
        let dir = File::open(root).unwrap();
        visit(&dir, Path::new(""), &mut tree, &mut names);
    }
    for paths in names.into_values().filter(|p: &Vec<_>| p.len() > 1) {
        let first = paths.iter().min().cloned();
        for path in paths {
            tree.get_mut(&path).unwrap().first_name.clone_from(&first);
        }
    }
    tree
}

fn visit(dir: &File, at: &Path, tree: &mut Tree, names: &mut BTreeMap<(u64, u64), Vec<PathBuf>>) {
    for entry in fs::read_dir(below(dir, ".")).unwrap() {
        let name = entry.unwrap().file_name();
        let (path, place) = (at.join(&name), below(dir, &name));
        let meta = fs::symlink_metadata(&place).unwrap();
        tree.insert(path.clone(), describe(&place, &meta));
        if meta.is_dir() {
            let is_hollow = path == Path::new("tmp") || path == Path::new("proc");
            if !is_hollow {
                visit(&File::open(place).unwrap(), &path, tree, names);
            }
        } else {
            let inode = (meta.dev(), meta.ino());
            names.entry(inode).or_default().push(path);
        }
    }
}

fn describe(place: &Path, meta: &Metadata) -> Entry {
    let xattrs = xattr::list(place).unwrap();
    let xattrs = xattrs.filter(|name| name != "security.evm").map(|name| {
        let value = xattr::get(place, &name).unwrap().unwrap_or_default();
        (name.into_vec().escape_ascii().to_string(), value)
    });
    let kind = meta.file_type();
    Entry {
        mode: meta.mode(),
        owner: (meta.uid(), meta.gid()),
        mtime: (meta.mtime(), meta.mtime_nsec()),
        device: meta.rdev(),
        xattrs: xattrs.collect(),
        target: kind.is_symlink().then(|| fs::read_link(place).unwrap()),
        file: kind
            .is_file()
            .then(|| content(&File::open(place).unwrap(), meta.len())),
        first_name: None,
    }
}

/// Looks at a file; in its digest, zeros and holes count the same.
fn content(file: &File, size: u64) -> Content {
    let mut sums = Vec::new();
    let mut block = vec![0; BLOCK];
    let (mut at, mut stored) = (0, 0);
    while at < size {
        let Ok(data) = lseek(file.as_fd(), at.cast_signed(), Whence::SeekData) else {
            break;
        };
        at = data.cast_unsigned() / BLOCK as u64 * BLOCK as u64;
        let hole = lseek(file.as_fd(), data, Whence::SeekHole).unwrap();
        while at < hole.cast_unsigned() {
            let length = file.read_at(&mut block, at).unwrap();
            if block[..length] != [0; BLOCK][..length] {
                sums.extend(at.to_le_bytes());
                sums.extend(Sha::of(&block[..length]).0);
            }
            at += BLOCK as u64;
            stored += length as u64;
        }
    }
    Content {
        size_bytes: size,
        is_sparse: size > 1 << 16 && stored < size / 2,
        digest: Sha::of(&sums).to_string(),
    }
}

/// Asserts that two trees are the same; prints only the entries that differ.
pub fn assert_same(expected: &Path, actual: &Path) {
    assert_same_but(expected, actual, |_, _| {});
}

/// Like [`assert_same`], after `adapt` has made of the expected tree what a
/// tool is known to make of it; it may look at what was found.
pub fn assert_same_but(expected: &Path, actual: &Path, adapt: impl FnOnce(&mut Tree, &mut Tree)) {
    let (mut expected, mut actual) = (snapshot(expected), snapshot(actual));
    adapt(&mut expected, &mut actual);
    let mut differences = Vec::new();
    for path in expected.keys().chain(actual.keys()) {
        let (a, b) = (expected.get(path), actual.get(path));
        if a != b {
            differences.push(format!("{path:?}\n  expected {a:?}\n  found    {b:?}"));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}
