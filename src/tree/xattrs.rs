//! Extended attributes: which are kept, and how they are read and set.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use nix::errno::Errno;
use xattr::FileExt;

use super::acl;

/// The attribute that grants capabilities; any chown or write drops it.
pub const CAPABILITY: &[u8] = b"security.capability";
/// The attribute that holds the SELinux label.
pub const SELINUX: &[u8] = b"security.selinux";
/// The machine's own seal over the others; worthless anywhere else.
const EVM: &[u8] = b"security.evm";
/// What XFS also calls the ACLs of a file; no other file system knows the names.
const XFS_ACLS: [&[u8]; 2] = [b"trusted.SGI_ACL_FILE", b"trusted.SGI_ACL_DEFAULT"];

/// One extended attribute.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Xattr {
    /// The name, with its name space.
    pub name: Vec<u8>,
    /// The value.
    pub value: Vec<u8>,
}

/// Tells whether an attribute belongs to the tree and not to the machine or
/// the file system it lies on.
pub fn is_kept(name: &[u8]) -> bool {
    let spaces: [&[u8]; 3] = [b"user.", b"trusted.", b"security."];
    let in_space = spaces.iter().any(|space| name.starts_with(space));
    let is_own = name == EVM || XFS_ACLS.contains(&name);
    name == acl::ACCESS || name == acl::DEFAULT || (in_space && !is_own)
}

/// Reads the kept attributes of an open file or directory, sorted by name.
pub fn read_open(file: &File) -> io::Result<Vec<Xattr>> {
    collect(file.list_xattr(), |name| file.get_xattr(name))
}

/// Reads the kept attributes of `name` in `dir` without following it.
pub fn read_at(dir: BorrowedFd, name: &[u8]) -> io::Result<Vec<Xattr>> {
    let path = through_proc(dir, name);
    collect(xattr::list(&path), |name| xattr::get(&path, name))
}

/// Sets an attribute of an open file or directory.
pub fn set_open(file: &File, name: &[u8], value: &[u8]) -> io::Result<()> {
    file.set_xattr(OsStr::from_bytes(name), value)
}

/// Sets an attribute of `name` in `dir` without following it.
pub fn set_at(dir: BorrowedFd, name: &[u8], attr: &[u8], value: &[u8]) -> io::Result<()> {
    xattr::set(through_proc(dir, name), OsStr::from_bytes(attr), value)
}

/// Names an entry of an open directory for the calls that know no `*at` form.
fn through_proc(dir: BorrowedFd, name: &[u8]) -> PathBuf {
    let mut path = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd()));
    path.push(OsStr::from_bytes(name));
    path
}

fn collect(
    names: io::Result<xattr::XAttrs>,
    get: impl Fn(&OsStr) -> io::Result<Option<Vec<u8>>>,
) -> io::Result<Vec<Xattr>> {
    let names = match names {
        Err(error) if error.raw_os_error() == Some(Errno::ENOTSUP as i32) => return Ok(Vec::new()),
        other => other?,
    };
    let mut kept = Vec::new();
    for name in names {
        if !is_kept(name.as_bytes()) {
            continue;
        }
        if let Some(value) = get(&name)? {
            kept.push(Xattr {
                name: name.into_vec(),
                value,
            });
        }
    }
    kept.sort_unstable();
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_belongs_to_the_machine_is_not_kept() {
        for (name, kept) in [
            (&b"user.x"[..], true),
            (b"trusted.overlay.opaque", true),
            (b"security.capability", true),
            (b"security.ima", true),
            (b"system.posix_acl_default", true),
            (b"security.evm", false),
            (b"trusted.SGI_ACL_FILE", false),
            (b"trusted.SGI_ACL_DEFAULT", false),
            (b"system.nfs4_acl", false),
            (b"btrfs.compression", false),
        ] {
            assert_eq!(is_kept(name), kept, "{}", name.escape_ascii());
        }
    }
}
