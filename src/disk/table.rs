//! A partition table made anew: GPT for a machine that starts by BIOS.
//!
//! The boot code says in words that the disk cannot be started yet, until a boot
//! loader takes its place: a firmware that jumped into zeros would say nothing.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use gpt::disk::LogicalBlockSize;
use gpt::mbr::ProtectiveMBR;
use gpt::partition_types::{BIOS, LINUX_FS, LINUX_LVM, Type};

/// The sector that GRUB's boot code counts in.
pub const SECTOR_BYTES: u64 = 512;

/// What the second copy of the table takes at the end of a disk: 128 entries of 128
/// bytes and a header.
const TAIL_BYTES: u64 = 33 * SECTOR_BYTES;

/// What a partition is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// GRUB's core.
    BiosBoot,
    /// A file system.
    FileSystem,
    /// A physical volume of LVM.
    Lvm,
}

impl Purpose {
    fn kind(self) -> Type {
        match self {
            Purpose::BiosBoot => BIOS,
            Purpose::FileSystem => LINUX_FS,
            Purpose::Lvm => LINUX_LVM,
        }
    }
}

/// A partition to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partition {
    /// As in `/dev/sda2`.
    pub number: u32,
    /// Its name in the table.
    pub name: &'static str,
    /// What it is for.
    pub purpose: Purpose,
    /// Where it begins, in bytes.
    pub start_bytes: u64,
    /// How long it is, in bytes.
    pub size_bytes: u64,
}

/// The part of the first sector that holds boot code.
const CODE_BYTES: usize = 440;

/// Jumps over the 87 bytes that boot sectors leave to the parameters of a file system:
/// whoever writes boot code later keeps what is there.
const JUMP: [u8; 2] = [0xeb, 0x58];

/// Where it jumps to.
const PRINTER_AT: usize = 90;

/// Prints what follows it, up to a zero, through the firmware and halts; loaded at
/// 0x7c00 + 90.
const PRINTER: [u8; 25] = [
    0x31, 0xc0, // xor ax, ax
    0x8e, 0xd8, // mov ds, ax
    0xfc, // cld
    0xbe, 0x73, 0x7c, // mov si, 0x7c00 + 90 + 25
    0xac, // next: lodsb
    0x84, 0xc0, // test al, al
    0x74, 0x09, // jz halt
    0xb4, 0x0e, // mov ah, 0x0e
    0xbb, 0x07, 0x00, // mov bx, 7
    0xcd, 0x10, // int 0x10
    0xeb, 0xf2, // jmp next
    0xf4, // halt: hlt
    0xeb, 0xfd, // jmp halt
];

/// Writes a new table with `partitions` to the disk, or image of one, of `size_bytes`
/// at `disk`, and reads it back; its boot code says `notice`.
///
/// Everything the old table consisted of is to be saved before.
///
/// # Errors
/// When it cannot be written or reads back as another.
pub fn write(disk: &Path, size_bytes: u64, partitions: &[Partition], notice: &str) -> Result<()> {
    let write = || -> Result<()> {
        let file = OpenOptions::new().read(true).write(true).open(disk)?;
        let mut table = gpt::GptConfig::new()
            .writable(true)
            .logical_block_size(LogicalBlockSize::Lb512)
            .create_from_device(file.try_clone()?, None)?;
        for partition in partitions {
            // The crate looks for a free stretch of that length, not from there on.
            let end = partition.start_bytes + partition.size_bytes;
            ensure!(
                end + TAIL_BYTES <= size_bytes,
                "partition {} ends beyond the disk of {size_bytes} bytes",
                partition.number
            );
            table.add_partition_at(
                partition.name,
                partition.number,
                partition.start_bytes / SECTOR_BYTES,
                partition.size_bytes / SECTOR_BYTES,
                partition.purpose.kind(),
                0,
            )?;
        }
        table.write()?;
        // Last: whoever finds the sector finds the table it speaks of.
        file.sync_all()?;
        file.write_all_at(&first_sector(size_bytes, notice), 0)?;
        file.sync_all()?;
        check(&file, partitions)
    };
    write().with_context(|| format!("writing a partition table to {}", disk.display()))
}

fn first_sector(size_bytes: u64, notice: &str) -> [u8; 512] {
    let sectors = size_bytes / SECTOR_BYTES - 1;
    let mut record = ProtectiveMBR::with_lb_size(u32::try_from(sectors).unwrap_or(u32::MAX));
    let mut code = [0; CODE_BYTES];
    code[..JUMP.len()].copy_from_slice(&JUMP);
    let text_at = PRINTER_AT + PRINTER.len();
    code[PRINTER_AT..text_at].copy_from_slice(&PRINTER);
    // One zero stays at the end.
    let room = &mut code[text_at..CODE_BYTES - 1];
    for (place, byte) in room.iter_mut().zip(notice.bytes()) {
        *place = byte;
    }
    record.set_bootcode(code);
    record.to_bytes()
}

/// Looks whether both copies of the table on `disk` have these partitions.
///
/// # Errors
/// When they have not, or cannot be read.
pub fn verify(disk: &Path, partitions: &[Partition]) -> Result<()> {
    let file = File::open(disk);
    file.map_err(Into::into)
        .and_then(|file| check(&file, partitions))
        .with_context(|| format!("reading the partition table of {}", disk.display()))
}

fn check(file: &File, partitions: &[Partition]) -> Result<()> {
    let table = gpt::GptConfig::new()
        .only_valid_headers(true)
        .open_from_device(file.try_clone()?)?;
    let found: Vec<(u32, u64, u64)> = table
        .partitions()
        .iter()
        .filter(|(_, entry)| entry.is_used())
        .map(|(number, entry)| (*number, entry.first_lba, entry.last_lba + 1))
        .collect();
    let wanted: Vec<(u32, u64, u64)> = partitions
        .iter()
        .map(|partition| {
            let end = partition.start_bytes + partition.size_bytes;
            let start = partition.start_bytes / SECTOR_BYTES;
            (partition.number, start, end / SECTOR_BYTES)
        })
        .collect();
    ensure!(found == wanted, "it reads back as {found:?}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_there_twice_and_the_boot_code_speaks() {
        const SIZE: u64 = 64 << 20;
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(SIZE).unwrap();
        let partition = |number, name, purpose, start_mib: u64, mib: u64| Partition {
            number,
            name,
            purpose,
            start_bytes: start_mib << 20,
            size_bytes: mib << 20,
        };
        let partitions = [
            partition(1, "grub", Purpose::BiosBoot, 1, 2),
            partition(2, "boot", Purpose::FileSystem, 3, 20),
            partition(3, "lvm", Purpose::Lvm, 23, 40),
        ];
        write(file.path(), SIZE, &partitions, "not yet").unwrap();
        write(file.path(), SIZE, &partitions[..2], "not yet").unwrap();
        let bytes = std::fs::read(file.path()).unwrap();
        assert_eq!(&bytes[PRINTER_AT + 25..][..8], b"not yet\0");
        assert_eq!(bytes[3..PRINTER_AT], [0; 87]);
        assert_eq!(bytes[510..512], [0x55, 0xaa]);
        assert_eq!(&bytes[512..520], b"EFI PART");
        assert_eq!(&bytes[bytes.len() - 512..][..8], b"EFI PART");
        let beyond = partition(1, "x", Purpose::Lvm, 60, 10);
        assert!(write(file.path(), SIZE, &[beyond], "").is_err());
    }

    #[test]
    fn a_notice_that_is_too_long_ends_in_time() {
        let sector = first_sector(1 << 30, &"x".repeat(1000));
        assert_eq!(sector[CODE_BYTES - 1], 0);
        assert_eq!(sector[510..], [0x55, 0xaa]);
    }
}
