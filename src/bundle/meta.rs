//! What is kept of an inode besides its data and extended attributes.

use nix::sys::stat::{FileStat, SFlag, major, minor};

/// The kinds of inode a tree may hold; sockets are not kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Kind {
    #[default]
    File,
    Dir,
    Symlink,
    Char,
    Block,
    Fifo,
}

/// The fixed-size part of an inode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Meta {
    pub(super) kind: Kind,
    /// Permissions with setuid, setgid and sticky.
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: Mtime,
    /// Major and minor number of a device node.
    pub(super) device: (u64, u64),
    /// The apparent size of a file.
    pub(super) size_bytes: u64,
}

/// A point in time; the nanoseconds always count forwards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Mtime {
    pub(super) seconds: i64,
    pub(super) nanoseconds: u32,
}

impl Meta {
    /// Reads a stat result; `None` stands for a kind that is not kept.
    pub(super) fn from_stat(stat: &FileStat) -> Option<Meta> {
        let kind = match SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) {
            SFlag::S_IFREG => Kind::File,
            SFlag::S_IFDIR => Kind::Dir,
            SFlag::S_IFLNK => Kind::Symlink,
            SFlag::S_IFCHR => Kind::Char,
            SFlag::S_IFBLK => Kind::Block,
            SFlag::S_IFIFO => Kind::Fifo,
            _ => return None,
        };
        let device = match kind {
            Kind::Char | Kind::Block => (major(stat.st_rdev), minor(stat.st_rdev)),
            _ => (0, 0),
        };
        Some(Meta {
            kind,
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: Mtime {
                seconds: stat.st_mtime,
                nanoseconds: u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
            },
            device,
            size_bytes: match kind {
                Kind::File => u64::try_from(stat.st_size).unwrap_or(0),
                _ => 0,
            },
        })
    }
}
