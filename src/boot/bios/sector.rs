//! The formats of the boot sector and of a core's first sector. Pure.
//!
//! Layout: GRUB's `grub-core/boot/i386/pc/{boot,diskboot}.S`,
//! `include/grub/i386/pc/boot.h` and `util/setup.c`.

use std::ops::Range;

use anyhow::{Context, Result, ensure};

/// The bytes in a sector of a disk that a BIOS can start from.
pub const SECTOR_BYTES: usize = 512;

/// The boot sector's code: what may be written and restored. Behind it lie the
/// disk signature and the protective partition table.
pub const BOOT_CODE_BYTES: usize = 440;

/// The BIOS parameter block, which belongs to the disk and not to the boot code.
const BPB: Range<usize> = 0x3..0x5a;
const KERNEL_SECTOR: Range<usize> = 0x5c..0x64;
const BOOT_DRIVE: usize = 0x64;
const DRIVE_CHECK: Range<usize> = 0x66..0x68;

/// One entry of the block list at the end of the core's first sector.
const BLOCK_BYTES: usize = 12;
/// Where the second and later sectors are loaded: 0x800 plus one sector.
pub const SECOND_SEGMENT: u16 = 0x820;

/// A range of sectors on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sectors {
    /// The first sector.
    pub start_lba: u64,
    /// How many.
    pub count: u64,
}

impl Sectors {
    /// Returns the first sector behind it.
    pub fn end(self) -> u64 {
        self.start_lba + self.count
    }

    /// Tells whether the two share a sector.
    pub fn overlaps(self, other: Sectors) -> bool {
        self.start_lba < other.end() && other.start_lba < self.end()
    }
}

/// Reads from a boot sector where the core begins.
pub fn kernel_sector(boot_sector: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&boot_sector[KERNEL_SECTOR]);
    u64::from_le_bytes(bytes)
}

/// Reads the block list that grows down from the end of a core's first sector.
pub fn block_list(first_sector: &[u8]) -> Vec<Sectors> {
    let mut blocks = Vec::new();
    for entry in first_sector.rchunks_exact(BLOCK_BYTES) {
        let (start, rest) = entry.split_at(8);
        let count = u64::from(u16::from_le_bytes([rest[0], rest[1]]));
        if count == 0 {
            break;
        }
        let start_lba = start
            .iter()
            .rev()
            .fold(0, |value, byte| value << 8 | u64::from(*byte));
        blocks.push(Sectors { start_lba, count });
    }
    blocks
}

/// Pads `core` to whole sectors and points its block list at `place`.
pub fn place_core(core: &[u8], place: Sectors) -> Result<Vec<u8>> {
    let mut bytes = core.to_vec();
    bytes.resize(core.len().div_ceil(SECTOR_BYTES) * SECTOR_BYTES, 0);
    let list = SECTOR_BYTES - BLOCK_BYTES;
    // grub-mkimage has filled in the only entry's length and segment.
    let segment = u16::from_le_bytes([bytes[list + 10], bytes[list + 11]]);
    ensure!(
        segment == SECOND_SEGMENT,
        "the core image does not begin with GRUB's disk loader"
    );
    let count = u16::try_from(place.count - 1)
        .context("the core image is larger than a block list can say")?;
    bytes[list..list + 8].copy_from_slice(&(place.start_lba + 1).to_le_bytes());
    bytes[list + 8..list + 10].copy_from_slice(&count.to_le_bytes());
    bytes[list - BLOCK_BYTES..list].fill(0);
    Ok(bytes)
}

/// Composes LBA 0 from GRUB's boot code and what the disk keeps there.
pub fn boot_sector(boot_img: &[u8], current: &[u8], core_lba: u64) -> Result<Vec<u8>> {
    ensure!(
        boot_img.len() == SECTOR_BYTES,
        "boot.img has {} bytes, not {SECTOR_BYTES}",
        boot_img.len()
    );
    let grub = boot_img[..BOOT_CODE_BYTES]
        .windows(5)
        .any(|w| w == b"GRUB ");
    ensure!(
        grub && boot_img[510..] == [0x55, 0xaa],
        "boot.img is not GRUB's boot sector"
    );
    let mut sector = current.to_vec();
    sector[..BOOT_CODE_BYTES].copy_from_slice(&boot_img[..BOOT_CODE_BYTES]);
    sector[BPB].copy_from_slice(&current[BPB]);
    sector[KERNEL_SECTOR].copy_from_slice(&core_lba.to_le_bytes());
    // "The drive the BIOS started from", and trust the number it passes unless
    // it is a floppy's: two no-ops in place of the jump around that repair.
    sector[BOOT_DRIVE] = 0xff;
    sector[DRIVE_CHECK].fill(0x90);
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    Ok(sector)
}
