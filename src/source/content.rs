//! What a disk, partition or volume holds, by its superblock.

use std::io;

/// Reads bytes of the thing looked at: buffer and offset.
pub type ReadAt<'a> = &'a dyn Fn(&mut [u8], u64) -> io::Result<()>;

/// What was recognised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A file system that can be mounted.
    FileSystem(FileSystem),
    /// An LVM physical volume.
    PhysicalVolume,
    /// Something with data in it that cannot be opened here.
    Closed(Closed),
    /// Nothing of interest: swap, boot code, empty space.
    Other,
}

/// Something that cannot be opened here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Closed {
    /// What it is.
    pub reason: String,
    /// As fstab or crypttab writes it after `UUID=`; empty where it is not known.
    pub uuid: String,
    /// As fstab writes it after `LABEL=`; empty where it is not known.
    pub label: String,
}

impl Closed {
    /// Describes something of which only the reason is known.
    pub fn because(reason: impl Into<String>) -> Closed {
        Closed {
            reason: reason.into(),
            ..Closed::default()
        }
    }
}

/// A file system as its superblock describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSystem {
    /// The type for mount(8).
    pub kind: &'static str,
    /// As fstab writes it after `UUID=`.
    pub uuid: String,
    /// As fstab writes it after `LABEL=`.
    pub label: String,
    /// Whether it is fit to be read.
    pub health: Health,
}

/// What a superblock says of the state its file system is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Nothing is known against it.
    Sound,
    /// The journal holds changes that are not in place yet.
    NeedsReplay,
    /// The kernel found it damaged while it was in use.
    HasErrors,
    /// It is longer than the volume it is on.
    CutOff,
}

/// Recognises the content of something `size_bytes` long.
pub fn probe(read: ReadAt<'_>, size_bytes: u64) -> io::Result<Content> {
    let probe = Probe { read, size_bytes };
    if probe.has(0, b"LUKS\xba\xbe")? {
        let header: [u8; 512] = probe.bytes(0)?;
        return Ok(Content::Closed(Closed {
            uuid: text(&header[168..208]),
            ..Closed::because("encrypted (LUKS)")
        }));
    }
    for sector in 0..4 {
        if probe.has(sector * 512, b"LABELONE")? && probe.has(sector * 512 + 24, b"LVM2 001")? {
            return Ok(Content::PhysicalVolume);
        }
    }
    if probe.has(0x1_0040, b"_BHRfS_M")? {
        let block: [u8; 1024] = probe.bytes(0x1_0000)?;
        return Ok(Content::Closed(Closed {
            uuid: uuid(&block[32..48]),
            label: text(&block[299..555]),
            ..Closed::because("a btrfs file system")
        }));
    }
    if probe.has(4096, &0xa92b_4efc_u32.to_le_bytes())? {
        return Ok(Content::Closed(Closed::because(
            "a member of a software RAID",
        )));
    }
    let found = match probe.xfs()? {
        None => probe.ext()?,
        found => found,
    };
    let found = match found {
        None => probe.fat()?,
        found => found,
    };
    Ok(found.map_or(Content::Other, Content::FileSystem))
}

struct Probe<'a> {
    read: ReadAt<'a>,
    size_bytes: u64,
}

impl Probe<'_> {
    /// Reads `N` bytes; zeros where the volume ends before.
    fn bytes<const N: usize>(&self, offset: u64) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        if offset + N as u64 <= self.size_bytes {
            (self.read)(&mut bytes, offset)?;
        }
        Ok(bytes)
    }

    fn has(&self, offset: u64, magic: &[u8]) -> io::Result<bool> {
        let bytes: [u8; 8] = self.bytes(offset)?;
        Ok(bytes.starts_with(magic))
    }

    fn ext(&self) -> io::Result<Option<FileSystem>> {
        const HAS_ERRORS: u16 = 0x2;
        const RECOVER: u32 = 0x4;
        const JOURNAL_DEVICE: u32 = 0x8;
        const WIDE: u32 = 0x80;
        let block: [u8; 1024] = self.bytes(1024)?;
        let word = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|i| block[at + i]));
        let features = word(96);
        if block[56..58] != [0x53, 0xef] || features & JOURNAL_DEVICE != 0 {
            return Ok(None);
        }
        let high = if features & WIDE != 0 { word(336) } else { 0 };
        let blocks = u64::from(high) << 32 | u64::from(word(4));
        let state = u16::from_le_bytes([block[58], block[59]]);
        let health = if self.is_shorter_than(blocks, 1024_u64 << word(24).min(16)) {
            Health::CutOff
        } else if state & HAS_ERRORS != 0 {
            Health::HasErrors
        } else if features & RECOVER != 0 {
            Health::NeedsReplay
        } else {
            Health::Sound
        };
        Ok(Some(FileSystem {
            // The ext4 driver mounts ext2 and ext3 too.
            kind: "ext4",
            uuid: uuid(&block[104..120]),
            label: text(&block[120..136]),
            health,
        }))
    }

    fn xfs(&self) -> io::Result<Option<FileSystem>> {
        let block: [u8; 128] = self.bytes(0)?;
        if !block.starts_with(b"XFSB") {
            return Ok(None);
        }
        let number = |at: usize, length: usize| {
            let bytes = block[at..at + length].iter();
            bytes.fold(0, |number, byte| number << 8 | u64::from(*byte))
        };
        let health = match self.is_shorter_than(number(8, 8), number(4, 4)) {
            true => Health::CutOff,
            // Of changes in the log only the log tells; mounting finds out.
            false => Health::Sound,
        };
        Ok(Some(FileSystem {
            kind: "xfs",
            uuid: uuid(&block[32..48]),
            label: text(&block[108..120]),
            health,
        }))
    }

    fn is_shorter_than(&self, blocks: u64, block_bytes: u64) -> bool {
        blocks.saturating_mul(block_bytes) > self.size_bytes
    }

    fn fat(&self) -> io::Result<Option<FileSystem>> {
        let block: [u8; 512] = self.bytes(0)?;
        let ids = if block[82..90] == *b"FAT32   " {
            67
        } else if matches!(&block[54..62], b"FAT12   " | b"FAT16   ") {
            39
        } else {
            return Ok(None);
        };
        let [a, b, c, d] = [block[ids], block[ids + 1], block[ids + 2], block[ids + 3]];
        Ok(Some(FileSystem {
            kind: "vfat",
            uuid: format!("{d:02X}{c:02X}-{b:02X}{a:02X}"),
            label: text(&block[ids + 4..ids + 15]),
            health: Health::Sound,
        }))
    }
}

fn uuid(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(36);
    for (i, byte) in bytes.iter().enumerate() {
        if matches!(i, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probed(parts: &[(usize, &[u8])]) -> Content {
        let mut disk = vec![0; 128 * 1024];
        for (at, bytes) in parts {
            disk[*at..*at + bytes.len()].copy_from_slice(bytes);
        }
        let read = |buffer: &mut [u8], offset: u64| {
            let at = usize::try_from(offset).unwrap();
            buffer.copy_from_slice(&disk[at..at + buffer.len()]);
            Ok(())
        };
        probe(&read, disk.len() as u64).unwrap()
    }

    #[test]
    fn superblocks_are_told_apart() {
        let id: Vec<u8> = (0..16).collect();
        assert_eq!(
            probed(&[
                (1080, b"\x53\xef"),
                (1120, &[0x46, 0, 0, 0]),
                (1128, &id),
                (1144, b"boot")
            ]),
            Content::FileSystem(FileSystem {
                kind: "ext4",
                uuid: "00010203-0405-0607-0809-0a0b0c0d0e0f".into(),
                label: "boot".into(),
                health: Health::NeedsReplay,
            })
        );
        assert_eq!(
            probed(&[(0, b"XFSB"), (32, &id), (108, b"rootrootroot")]),
            Content::FileSystem(FileSystem {
                kind: "xfs",
                uuid: "00010203-0405-0607-0809-0a0b0c0d0e0f".into(),
                label: "rootrootroot".into(),
                health: Health::Sound,
            })
        );
        assert_eq!(
            probed(&[
                (67, &[0x78, 0x56, 0x34, 0x12]),
                (71, b"ESP        "),
                (82, b"FAT32   ")
            ]),
            Content::FileSystem(FileSystem {
                kind: "vfat",
                uuid: "1234-5678".into(),
                label: "ESP".into(),
                health: Health::Sound,
            })
        );
        assert_eq!(
            probed(&[(512, b"LABELONE"), (536, b"LVM2 001")]),
            Content::PhysicalVolume
        );
        let closed = |uuid: &str, label: &str, reason: &str| {
            Content::Closed(Closed {
                uuid: uuid.into(),
                label: label.into(),
                ..Closed::because(reason)
            })
        };
        assert_eq!(
            probed(&[(0, b"LUKS\xba\xbe"), (168, b"12-34")]),
            closed("12-34", "", "encrypted (LUKS)")
        );
        assert_eq!(
            probed(&[
                (0x1_0040, b"_BHRfS_M"),
                (0x1_0020, &id),
                (0x1_012b, b"pool")
            ]),
            closed(
                "00010203-0405-0607-0809-0a0b0c0d0e0f",
                "pool",
                "a btrfs file system"
            )
        );
        assert_eq!(probed(&[(4086, b"SWAPSPACE2")]), Content::Other);
        assert_eq!(probed(&[]), Content::Other);
    }

    #[test]
    fn a_file_system_in_a_bad_state_is_known() {
        let ext = |at: usize, bytes: &[u8]| probed(&[(1080, b"\x53\xef"), (at, bytes)]);
        let xfs = |blocks: u8| probed(&[(0, b"XFSB\0\0\x10\0\0\0\0\0\0\0\0"), (15, &[blocks])]);
        for (content, wanted) in [
            (ext(1082, &[1]), Health::Sound),
            (ext(1082, &[3]), Health::HasErrors),
            (ext(1028, &[129]), Health::CutOff),
            (ext(1028, &[128]), Health::Sound),
            (xfs(32), Health::Sound),
            (xfs(33), Health::CutOff),
        ] {
            let Content::FileSystem(found) = content else {
                panic!("{content:?}");
            };
            assert_eq!(found.health, wanted);
        }
    }

    #[test]
    fn a_volume_too_small_for_a_superblock_holds_nothing() {
        let read = |_: &mut [u8], _: u64| Err(io::ErrorKind::UnexpectedEof.into());
        assert_eq!(probe(&read, 0).unwrap(), Content::Other);
    }
}
