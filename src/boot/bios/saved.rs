//! What lay in the boot area, in memory.

use anyhow::{Context, Result};

use super::sector::{SECTOR_BYTES, Sectors, block_list, kernel_sector};

/// What can be put back when a later step fails.
pub struct Saved {
    /// The boot code of LBA 0.
    pub(super) boot_code: Vec<u8>,
    /// The sectors of the bios_grub partition that are saved.
    pub(super) partition: Sectors,
    /// What lay on them.
    pub(super) content: Vec<u8>,
}

impl Saved {
    /// Returns the boot code, and what lay on the sectors of `place`.
    ///
    /// # Errors
    /// When they are not all inside the partition.
    pub fn parts_at(&self, place: Sectors) -> Result<(&[u8], &[u8])> {
        let first = place.start_lba.checked_sub(self.partition.start_lba);
        let start = usize::try_from(first.context("a sector before the partition")?)?;
        let end = start + usize::try_from(place.count)?;
        let bytes = self
            .content
            .get(start * SECTOR_BYTES..end * SECTOR_BYTES)
            .context("a sector behind the partition")?;
        Ok((&self.boot_code, bytes))
    }

    /// Returns the boot code, then the partition, for a file.
    pub fn bytes(&self) -> Vec<u8> {
        [&self.boot_code[..], &self.content[..]].concat()
    }

    /// Returns where in its partition the core lies that it starts.
    pub(super) fn core(&self) -> Vec<Sectors> {
        let first = Sectors {
            start_lba: kernel_sector(&self.boot_code),
            count: 1,
        };
        let Some(sector) = self.sectors(first) else {
            return Vec::new();
        };
        let rest = block_list(sector).into_iter();
        std::iter::once(first).chain(rest).collect()
    }

    /// Returns what was on sectors of its partition.
    pub(super) fn sectors(&self, run: Sectors) -> Option<&[u8]> {
        let start = run.start_lba.checked_sub(self.partition.start_lba)?;
        let start = usize::try_from(start).ok()?.checked_mul(SECTOR_BYTES)?;
        let length = usize::try_from(run.count).ok()?.checked_mul(SECTOR_BYTES)?;
        self.content.get(start..start.checked_add(length)?)
    }
}
