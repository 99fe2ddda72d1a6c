//! What a file system's superblock asks of whoever reads it.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Features by the bit that stands for them.
type Names = &'static [(u32, &'static str)];

/// What GRUB 2.02 and newer read (`grub-core/fs/ext2.c`); ext4(5) has the names.
const EXT_READABLE: u32 = 0x0002 | 0x0004 | 0x0010 | 0x0040 | 0x0080 | 0x0200;
/// What only some of them read.
const EXT_DOUBTFUL: Names = &[
    (0x0100, "mmp"),
    (0x2000, "metadata_csum_seed"),
    (0x10000, "encrypt"),
];
const EXT_OTHER: Names = &[
    (0x0001, "compression"),
    (0x0008, "journal_dev"),
    (0x0400, "ea_inode"),
    (0x1000, "dirdata"),
    (0x4000, "large_dir"),
    (0x8000, "inline_data"),
    (0x20000, "casefold"),
];

/// The same for XFS (`grub-core/fs/xfs.c`): ftype, sparse inodes, metadata UUID.
const XFS_READABLE: u32 = 0x01 | 0x02 | 0x04;
const XFS_DOUBTFUL: Names = &[(0x08, "bigtime"), (0x20, "nrext64")];
const XFS_OTHER: Names = &[
    (0x10, "needsrepair"),
    (0x40, "exchange"),
    (0x80, "parent"),
    (0x100, "metadir"),
];

/// Features of a file system that are in a boot loader's way.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// Those that some versions of GRUB do not read.
    pub doubtful: Vec<String>,
    /// Those that no version of GRUB is known to read.
    pub unreadable: Vec<String>,
}

/// Reads the superblock of the ext or XFS file system on `device`; any other has
/// no features.
///
/// # Errors
/// When the device cannot be read.
pub fn read(device: &Path) -> io::Result<Features> {
    let mut start = Vec::new();
    File::open(device)?.take(4096).read_to_end(&mut start)?;
    Ok(parse(&start))
}

/// Reads the first 4 KiB of a file system.
fn parse(start: &[u8]) -> Features {
    let four = |at: usize| start.get(at..at + 4).and_then(|four| four.try_into().ok());
    let is_ext = start.get(1024 + 56..1024 + 58) == Some(&[0x53, 0xef]);
    if is_ext {
        let incompat = four(1024 + 96).map_or(0, u32::from_le_bytes);
        return sort(incompat & !EXT_READABLE, EXT_DOUBTFUL, EXT_OTHER);
    }
    let version = start.get(101).map_or(0, |low| low & 0xf);
    if start.starts_with(b"XFSB") && version == 5 {
        let incompat = four(216).map_or(0, u32::from_be_bytes);
        return sort(incompat & !XFS_READABLE, XFS_DOUBTFUL, XFS_OTHER);
    }
    Features::default()
}

/// Names each of `bits`.
fn sort(bits: u32, doubtful: Names, other: Names) -> Features {
    let mut features = Features::default();
    for bit in (0..u32::BITS).map(|shift| 1 << shift) {
        if bits & bit == 0 {
            continue;
        }
        let named = |names: Names| names.iter().find(|(value, _)| *value == bit);
        match (named(doubtful), named(other)) {
            (Some((_, name)), _) => features.doubtful.push((*name).to_owned()),
            (_, Some((_, name))) => features.unreadable.push((*name).to_owned()),
            _ => features.unreadable.push(format!("{bit:#x}")),
        }
    }
    features
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ext(incompat: u32) -> Vec<u8> {
        let mut start = vec![0; 4096];
        start[1080..1082].copy_from_slice(&[0x53, 0xef]);
        start[1120..1124].copy_from_slice(&incompat.to_le_bytes());
        start
    }

    fn xfs(version: u8, incompat: u32) -> Vec<u8> {
        let mut start = vec![0; 4096];
        start[..4].copy_from_slice(b"XFSB");
        start[101] = 0xb0 | version;
        start[216..220].copy_from_slice(&incompat.to_be_bytes());
        start
    }

    #[test]
    fn what_grub_may_not_read_is_named() {
        let features = |doubtful: &[&str], unreadable: &[&str]| Features {
            doubtful: doubtful.iter().map(|it| (*it).to_owned()).collect(),
            unreadable: unreadable.iter().map(|it| (*it).to_owned()).collect(),
        };
        for (start, wanted) in [
            (ext(0x02c6), features(&[], &[])),
            (ext(0x2242), features(&["metadata_csum_seed"], &[])),
            (
                ext(0x4000_4000),
                features(&[], &["large_dir", "0x40000000"]),
            ),
            (xfs(5, 0x03), features(&[], &[])),
            (xfs(5, 0x2b), features(&["bigtime", "nrext64"], &[])),
            (xfs(5, 0x80), features(&[], &["parent"])),
            (xfs(4, 0xffff), features(&[], &[])),
            (vec![0; 4096], features(&[], &[])),
            (b"XFSB".to_vec(), features(&[], &[])),
        ] {
            assert_eq!(parse(&start), wanted);
        }
    }
}
