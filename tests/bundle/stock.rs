//! What stock tools are known to make of a tree that they cannot keep.

use std::collections::BTreeMap;
use std::path::Path;

use nix::sys::stat::SFlag;

use crate::compare::{Entry, Tree};

/// The longest path that a call takes.
const MAX_PATH_BYTES: usize = 4095;
/// The longest path that fits behind `/proc/self/fd/N/`, as GNU tar reaches
/// attributes.
const MAX_ATTRIBUTE_PATH_BYTES: usize = MAX_PATH_BYTES - 16;
/// The attributes that hold ACLs.
const ACLS: [&str; 2] = ["system.posix_acl_access", "system.posix_acl_default"];

/// Leaves out what GNU tar cannot make: what has a path that no call takes,
/// and further names of a file whose first one it is. In paths that nearly are,
/// it neither sets attributes nor takes inherited ones away.
pub fn as_gnu_tar_restores(tree: &mut Tree, found: &mut Tree) {
    let is_short = |path: &Path| path.as_os_str().len() <= MAX_PATH_BYTES;
    tree.retain(|path, entry| is_short(path) && entry.first_name.as_deref().is_none_or(is_short));
    forget_lone_names(tree);
    for (path, entry) in tree.iter_mut().chain(found) {
        let made_as = entry.first_name.as_ref().unwrap_or(path);
        if made_as.as_os_str().len() > MAX_ATTRIBUTE_PATH_BYTES {
            entry.xattrs.clear();
        }
    }
}

/// Corrects what entries say of further names, after some have gone.
fn forget_lone_names(tree: &mut Tree) {
    let mut counts = BTreeMap::new();
    for name in tree.values().filter_map(|entry| entry.first_name.clone()) {
        *counts.entry(name).or_insert(0) += 1;
    }
    for entry in tree.values_mut() {
        entry.first_name.take_if(|name| counts[name] == 1);
    }
}

/// Changes what bsdtar changes when it unpacks. It goes down to paths that no
/// call takes, but makes no hard links there and keeps only kind and content.
pub fn as_bsdtar_restores(tree: &mut Tree, found: &mut Tree) {
    let is_short = |path: &Path| path.as_os_str().len() <= MAX_PATH_BYTES;
    tree.retain(|path, entry| {
        let first = entry.first_name.as_deref();
        first.is_none_or(|first| first == path || (is_short(path) && is_short(first)))
    });
    forget_lone_names(tree);
    for (path, entry) in tree.iter_mut().filter(|(path, _)| !is_short(path)) {
        if let Some(found) = found.get_mut(path) {
            for entry in [entry, found] {
                entry.mode &= SFlag::S_IFMT.bits();
                (entry.owner, entry.mtime) = Default::default();
                entry.xattrs.clear();
            }
        }
    }
    as_bsdtar_reads_times(tree);
    for entry in tree.values_mut() {
        limit_acl_ids(entry);
        // It does not undo what keeps `=` and `%` apart from the end of a key.
        let xattrs = std::mem::take(&mut entry.xattrs).into_iter();
        let escaped = |name: String| name.replace('%', "%25").replace('=', "%3D");
        entry.xattrs = xattrs.map(|(n, value)| (escaped(n), value)).collect();
    }
}

/// Puts the largest number of 31 bits in place of larger ids in ACLs.
fn limit_acl_ids(entry: &mut Entry) {
    for name in ACLS {
        let Some(acl) = entry.xattrs.get_mut(name) else {
            continue;
        };
        for entry in acl[4..].as_chunks_mut::<8>().0 {
            let [tag, _, _, _, id @ ..] = entry;
            let is_named = matches!(tag, 2 | 8);
            if is_named && u32::from_le_bytes(*id) > i32::MAX.cast_unsigned() {
                *id = i32::MAX.to_le_bytes();
            }
        }
    }
}

/// Changes times before 1970 as bsdtar does when it reads them: of -1.75, a
/// quarter after second -2, it takes the sign for the seconds alone.
pub fn as_bsdtar_reads_times(tree: &mut Tree) {
    for entry in tree.values_mut() {
        if let (..0, nanoseconds @ 1..) = entry.mtime {
            entry.mtime = (entry.mtime.0 + 1, 1_000_000_000 - nanoseconds);
        }
    }
}

/// Changes times before 1970 as bsdtar does when it writes them: a quarter
/// after second -2 becomes -2.25.
pub fn as_bsdtar_writes_times(tree: &mut Tree, _: &mut Tree) {
    for entry in tree.values_mut() {
        if let (..0, nanoseconds @ 1..) = entry.mtime {
            entry.mtime = (entry.mtime.0 - 1, 1_000_000_000 - nanoseconds);
        }
    }
}
