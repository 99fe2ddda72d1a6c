//! File systems that the old kernel, the new one and their tools all read.
//!
//! The features left out are those that Linux 3.10 cannot mount or e2fsck 1.42
//! and xfs_repair 4.5 refuse (ext4(5), xfs(5), mkfs.xfs(8)). Older mkfs programs
//! reject names they do not know, so each name goes only to versions that do.

use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::system::{Cmd, System};

/// A kind of file system a slot can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FsType {
    /// ext4.
    Ext4,
    /// XFS.
    Xfs,
}

impl FsType {
    /// Returns the name mount(8) knows.
    pub fn name(self) -> &'static str {
        match self {
            FsType::Ext4 => "ext4",
            FsType::Xfs => "xfs",
        }
    }

    /// Returns the type of that name.
    ///
    /// # Errors
    /// When a slot cannot have it.
    pub fn from_name(name: &str) -> Result<FsType> {
        match name {
            "ext4" => Ok(FsType::Ext4),
            "xfs" => Ok(FsType::Xfs),
            other => bail!("a slot is ext4 or xfs, not {other}"),
        }
    }

    /// Returns the program that makes it.
    pub fn program(self) -> &'static str {
        match self {
            FsType::Ext4 => "mkfs.ext4",
            FsType::Xfs => "mkfs.xfs",
        }
    }
}

/// Returns the command that makes a file system on `device` with room for
/// `inodes` files. It destroys what was there.
///
/// # Errors
/// When the program is missing or does not tell its version.
pub fn command(
    sys: &dyn System,
    fs_type: FsType,
    device: &Path,
    size_bytes: u64,
    inodes: u64,
) -> Result<Cmd> {
    // Both print their version, mke2fs to stderr.
    let ask = Cmd::new("sh").args(["-c", &format!("{} -V 2>&1", fs_type.program())]);
    let version = parse_version(&sys.run(&ask)?)
        .with_context(|| format!("{} does not tell its version", fs_type.program()))?;
    let cmd = match fs_type {
        FsType::Ext4 => ext4_command(version, size_bytes, inodes),
        FsType::Xfs => xfs_command(version),
    };
    Ok(cmd.arg(device))
}

fn ext4_command(version: (u32, u32), size_bytes: u64, inodes: u64) -> Cmd {
    let mut features = Vec::new();
    if version >= (1, 43) {
        features.extend([
            "^64bit",
            "^metadata_csum",
            "^metadata_csum_seed",
            "uninit_bg",
        ]);
    }
    if version >= (1, 47) {
        features.push("^orphan_file");
    }
    let mut cmd = Cmd::new("mkfs.ext4").args(["-q", "-F", "-E", "lazy_itable_init=0,nodiscard"]);
    // Below 512 MiB older ones make inodes of 128 bytes, which hold whole seconds only.
    cmd = cmd.args(["-I", "256"]);
    if !features.is_empty() {
        cmd = cmd.args(["-O", &features.join(",")]);
    }
    // mke2fs.conf(5): one inode for 16 KiB unless told; ask for more only when
    // the tree needs them, with a quarter to spare.
    let wanted = inodes + inodes / 4;
    if wanted > size_bytes / 16384 {
        cmd = cmd.args(["-N", &wanted.to_string()]);
    }
    cmd
}

fn xfs_command(version: (u32, u32)) -> Cmd {
    let mut metadata = "crc=1,finobt=1".to_owned();
    let mut inode = "size=512".to_owned();
    // Known to 4.2 upstream, but taken out of the 4.5 of Red Hat 7.
    if version >= (4, 16) {
        inode.push_str(",sparse=0");
    }
    if version >= (4, 9) {
        metadata.push_str(",reflink=0,rmapbt=0");
    }
    if version >= (5, 10) {
        metadata.push_str(",bigtime=0,inobtcount=0");
    }
    if version >= (6, 0) {
        inode.push_str(",nrext64=0");
    }
    // ftype=1 comes with crc=1; naming both is an error to old versions.
    let mut naming = Vec::new();
    if version >= (6, 10) {
        inode.push_str(",exchange=0");
        naming.extend(["-n", "parent=0"]);
    }
    Cmd::new("mkfs.xfs")
        .args(["-q", "-f", "-K", "-m", &metadata, "-i", &inode])
        .args(naming)
}

/// Finds the first `N.M` in what a program prints of its version.
fn parse_version(text: &str) -> Option<(u32, u32)> {
    text.split(|c: char| !c.is_ascii_digit() && c != '.')
        .find_map(|word| {
            let mut parts = word.split('.');
            Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_the_programs_print() {
        assert_eq!(
            parse_version("mke2fs 1.42.9 (28-Dec-2013)\n\tUsing EXT2FS"),
            Some((1, 42))
        );
        assert_eq!(parse_version("mkfs.xfs version 6.1.0\n"), Some((6, 1)));
        assert_eq!(parse_version("mkfs: not found"), None);
    }

    #[test]
    fn old_programs_are_not_given_names_they_do_not_know() {
        assert!(
            !ext4_command((1, 42), 1 << 30, 10)
                .to_string()
                .contains("-O")
        );
        let new = ext4_command((1, 47), 1 << 30, 10).to_string();
        assert!(
            new.contains("^metadata_csum_seed") && new.contains("^orphan_file"),
            "{new}"
        );
        assert!(
            !ext4_command((1, 46), 1 << 30, 10)
                .to_string()
                .contains("orphan")
        );
        let old = xfs_command((4, 5)).to_string();
        for word in ["sparse", "reflink", "bigtime", "ftype"] {
            assert!(!old.contains(word), "{old}");
        }
        assert!(
            xfs_command((6, 1))
                .to_string()
                .contains("bigtime=0,inobtcount=0")
        );
    }

    #[test]
    fn inodes_of_a_small_volume_hold_times_to_the_nanosecond() {
        let small = ext4_command((1, 46), 240 << 20, 10).to_string();
        assert!(small.contains("-I 256"), "{small}");
    }

    #[test]
    fn a_tree_of_many_small_files_gets_its_inodes() {
        assert!(
            !ext4_command((1, 46), 1 << 30, 50_000)
                .to_string()
                .contains("-N")
        );
        assert!(
            ext4_command((1, 46), 1 << 30, 60_000)
                .to_string()
                .contains("-N 75000")
        );
    }
}
