//! The kinds of member a tree is packed in: like things beside each other.

use std::os::unix::fs::FileExt;

use anyhow::Result;

use crate::tree::meta::Kind;
use crate::tree::walk::{Found, open_file};

/// The kinds of member, in the order they are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Directories with a default ACL, which come again among [`Group::Dirs`]:
    /// bsdtar gives one only to directories it makes itself.
    EarlyDirs,
    /// Everything without data.
    Nodes,
    /// Text and whatever else is not named below.
    Rest,
    /// Kernel modules, which no x86 filter helps.
    Modules,
    /// Executables and libraries.
    Programs,
    /// What is packed already.
    Packed,
    /// Further names of files, which are then all there.
    Links,
    /// Directories, each after its content: GNU tar and bsdtar set the time of
    /// one they know and do not look after it again.
    Dirs,
}

impl Group {
    pub const ALL: [Group; 8] = [
        Group::EarlyDirs,
        Group::Nodes,
        Group::Rest,
        Group::Modules,
        Group::Programs,
        Group::Packed,
        Group::Links,
        Group::Dirs,
    ];

    /// Tells where an entry belongs, looking at its name and first bytes.
    pub fn of(found: &Found) -> Result<Group> {
        match found.meta.kind {
            Kind::Dir => return Ok(Group::Dirs),
            Kind::File if found.meta.size_bytes > 0 => {}
            _ => return Ok(Group::Nodes),
        }
        let mut head = [0; 8];
        let file = open_file(found.dir, found.name)?;
        let length = file.read_at(&mut head, 0)?;
        Ok(group_of_file(found.path, &head[..length]))
    }
}

fn group_of_file(path: &[u8], head: &[u8]) -> Group {
    const PACKED: [&[u8]; 11] = [
        b"\x1f\x8b",
        b"BZh",
        b"\xfd7zXZ\0",
        b"\x28\xb5\x2f\xfd",
        b"\x04\x22\x4d\x18",
        b"\x89PNG",
        b"\xff\xd8\xff",
        b"PK\x03\x04",
        b"wOF2",
        b"7z\xbc\xaf",
        b"\x5d\0\0",
    ];
    // An initramfs may start with a plain cpio of microcode.
    const CPIO: [&[u8]; 2] = [b"070701", b"070702"];
    let starts = |magics: &[&[u8]]| magics.iter().any(|magic| head.starts_with(magic));
    let is_in_boot = path.starts_with(b"boot/");
    if starts(&PACKED) || (is_in_boot && (starts(&CPIO) || path.starts_with(b"boot/vmlinuz"))) {
        Group::Packed
    } else if path.ends_with(b".ko") {
        Group::Modules
    } else if head.starts_with(b"\x7fELF") {
        Group::Programs
    } else {
        Group::Rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_grouped_by_what_they_are() {
        for (path, head, group) in [
            ("usr/bin/ls", &b"\x7fELF\x02\x01\x01\0"[..], Group::Programs),
            (
                "lib/modules/6.1/a.ko",
                b"\x7fELF\x02\x01\x01\0",
                Group::Modules,
            ),
            (
                "lib/modules/6.1/a.ko.xz",
                b"\xfd7zXZ\0\0\x04",
                Group::Packed,
            ),
            (
                "boot/vmlinuz-6.1",
                b"MZ\xea\x07\0\xc0\x07\x8c",
                Group::Packed,
            ),
            ("boot/initrd.img-6.1", b"07070100", Group::Packed),
            ("usr/share/x.cpio", b"07070100", Group::Rest),
            ("etc/passwd", b"root:x:0", Group::Rest),
            ("etc/short", b"a", Group::Rest),
        ] {
            assert_eq!(group_of_file(path.as_bytes(), head), group, "{path}");
        }
    }
}
