//! Extended attributes: which are kept, and how they are read and set.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use anyhow::{Result, ensure};
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

/// Tells whether a kernel takes the value, which of ACLs and capabilities it reads.
pub fn is_legal(name: &[u8], value: &[u8]) -> bool {
    // linux/capability.h: revision, flags, then words that grow with the revision.
    const REVISIONS: [(u8, usize); 3] = [(1, 12), (2, 20), (3, 24)];
    match name {
        acl::ACCESS | acl::DEFAULT => acl::is_legal(value),
        CAPABILITY => REVISIONS
            .iter()
            .any(|(revision, bytes)| value.get(3) == Some(revision) && value.len() == *bytes),
        _ => true,
    }
}

/// Refuses values that no kernel takes.
///
/// # Errors
/// When one of them is such.
pub fn check_values(xattrs: &[Xattr]) -> Result<()> {
    for Xattr { name, value } in xattrs {
        ensure!(
            is_legal(name, value),
            "its attribute {} is malformed",
            name.escape_ascii()
        );
    }
    Ok(())
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

/// Removes an attribute of an open file or directory.
pub fn remove_open(file: &File, name: &[u8]) -> io::Result<()> {
    file.remove_xattr(OsStr::from_bytes(name))
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
    fn values_that_no_kernel_takes_are_refused() {
        let acl = |text: &str| acl::from_text(text.as_bytes()).unwrap();
        let capability =
            |revision: u8, bytes: usize| [vec![1, 0, 0, revision], vec![0; bytes - 4]].concat();
        for (name, value, is_fine) in [
            (acl::ACCESS, acl("u::rwx,g::r--,o::---"), true),
            (acl::ACCESS, b"\x02\0\0\0".to_vec(), false),
            (acl::ACCESS, acl("u::rwx,o::---"), false),
            (acl::ACCESS, acl("u::rwx,u:5:r--,g::r--,o::---"), false),
            (
                acl::ACCESS,
                acl("u::rwx,u:5:r--,g::r--,m::r--,o::---"),
                true,
            ),
            (acl::DEFAULT, acl("u::rwx,g::r--,g::r--,o::---"), false),
            (acl::DEFAULT, b"user::rwx".to_vec(), false),
            (CAPABILITY, capability(2, 20), true),
            (CAPABILITY, capability(3, 24), true),
            (CAPABILITY, capability(3, 20), false),
            (CAPABILITY, capability(9, 20), false),
            (CAPABILITY, vec![], false),
            (b"user.x", vec![], true),
        ] {
            let name = name.to_vec();
            let shown = format!("{} {value:?}", name.escape_ascii());
            let checked = check_values(&[Xattr { name, value }]);
            assert_eq!(checked.is_ok(), is_fine, "{shown}");
        }
    }

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
