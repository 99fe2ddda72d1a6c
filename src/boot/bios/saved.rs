//! What lay in the boot area, in memory.

use anyhow::{Context, Result};

use super::sector::{SECTOR_BYTES, Sectors};

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
}
