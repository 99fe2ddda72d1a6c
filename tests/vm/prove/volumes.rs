//! Where the parts of an appliance's disk are, and its volumes as file systems.

use std::collections::HashMap;
use std::error::Error as StdError;

use anyhow::{Context, Result, anyhow, ensure};
use ext4_view::{Ext4, Ext4Read};

use super::disk_state::DiskState;
use super::journal::{Newer, newer_blocks};

const MIB: u64 = 1 << 20;

/// `/boot` on the disks that `lab::disk` makes.
pub const BOOT_START: u64 = 3 * MIB;
/// Where LVM's part begins; all before it is firmware's and GRUB's.
pub const PV_START: u64 = 515 * MIB;
/// LVM's label and metadata lie before the first extent.
pub const METADATA_BYTES: u64 = MIB;
const EXTENT_BYTES: u64 = 4 * MIB;
/// The metadata area begins here in the physical volume (`pvcreate` writes no other).
const AREA: u64 = 4096;

/// How a file system is read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum As {
    /// Its blocks as they are: GRUB replays no journal.
    Grub,
    /// With what the journal holds, as the kernel sees it.
    Kernel,
}

struct Reader {
    disk: DiskState,
    start: u64,
    block_bytes: u64,
    /// Blocks that are newer in the journal.
    newer: HashMap<u64, Newer>,
}

/// The superblock's words on a journal: `s_feature_compat`, `s_feature_incompat`.
const JOURNAL_WORDS: [(u64, u8); 2] = [(1024 + 0x5c, !0x04), (1024 + 0x60, !0x04)];

impl Reader {
    /// Reads what lies in one block.
    fn read_part(&self, block: u64, skip: u64, into: &mut [u8]) -> Result<()> {
        let Some(newer) = self.newer.get(&block) else {
            let at = self.start + block * self.block_bytes + skip;
            return self.disk.read(at, into);
        };
        self.disk.read(self.start + newer.at + skip, into)?;
        if newer.is_escaped && skip == 0 {
            let magic = 0xc03b_3998_u32.to_be_bytes();
            let count = into.len().min(magic.len());
            into[..count].copy_from_slice(&magic[..count]);
        }
        Ok(())
    }
}

impl Ext4Read for Reader {
    fn read(
        &mut self,
        start_byte: u64,
        dst: &mut [u8],
    ) -> Result<(), Box<dyn StdError + Send + Sync>> {
        if self.newer.is_empty() {
            self.disk.read(self.start + start_byte, dst)?;
        } else {
            let mut done = 0;
            while done < dst.len() {
                let at = start_byte + u64::try_from(done)?;
                let (block, skip) = (at / self.block_bytes, at % self.block_bytes);
                let count = usize::try_from(self.block_bytes - skip)?.min(dst.len() - done);
                self.read_part(block, skip, &mut dst[done..done + count])?;
                done += count;
            }
        }
        // The journal has been read already, or is not to be.
        for (at, mask) in JOURNAL_WORDS {
            if let Some(index) = at.checked_sub(start_byte)
                && let Some(byte) = dst.get_mut(usize::try_from(index)?)
            {
                *byte &= mask;
            }
        }
        Ok(())
    }
}

/// Opens the ext4 file system at byte `start` of the disk.
pub fn file_system(disk: &DiskState, start: u64, reads: As) -> Result<Ext4> {
    let (newer, block_bytes) = match reads {
        As::Grub => (HashMap::new(), 0),
        As::Kernel => newer_blocks(disk, start).context("its journal")?,
    };
    let reader = Reader {
        disk: disk.clone(),
        start,
        block_bytes,
        newer,
    };
    Ext4::load(Box::new(reader)).map_err(|error| anyhow!("{error}"))
}

/// Finds the volume `name` in LVM's metadata, which must have one linear segment;
/// returns its first byte on the disk.
pub fn volume(disk: &DiskState, name: &str) -> Result<u64> {
    let text = metadata(disk)?;
    let body = text
        .split_once(&format!("\n{name} {{"))
        .with_context(|| format!("no volume {name} in LVM's metadata"))?
        .1;
    let (_, stripes) = body.split_once("stripes = [").context("no stripes")?;
    let (stripes, _) = stripes.split_once(']').context("no end of stripes")?;
    let (_, extent) = stripes.split_once("\"pv0\",").context("not on pv0")?;
    let extent: u64 = extent.trim().parse().context("no extent")?;
    Ok(PV_START + METADATA_BYTES + extent * EXTENT_BYTES)
}

/// Reads the text that the metadata area's header leads to.
fn metadata(disk: &DiskState) -> Result<String> {
    let mut label = [0; 8];
    disk.read(PV_START + 512, &mut label)?;
    ensure!(&label == b"LABELONE", "LVM's label is gone");
    let mut head = [0; 56];
    disk.read(PV_START + AREA, &mut head)?;
    ensure!(
        &head[4..20] == b" LVM2 x[5A%r0N*>",
        "LVM's metadata area is gone"
    );
    let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|byte| head[at + byte]));
    let (offset, size) = (word(40), word(48));
    ensure!(offset + size <= METADATA_BYTES, "LVM's metadata wraps");
    let mut text = vec![0; usize::try_from(size)?];
    disk.read(PV_START + AREA + offset, &mut text)?;
    // The volumes' sections are indented by tabs.
    Ok(String::from_utf8_lossy(&text).replace('\t', ""))
}
