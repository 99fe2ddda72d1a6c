//! A boot area kept in a file, to be put back when GRUB may be another meanwhile.

use anyhow::{Result, ensure};

use super::area::BootArea;
use super::saved::Saved;
use super::sector::{BOOT_CODE_BYTES, SECTOR_BYTES};

impl BootArea {
    /// Returns what [`Saved::bytes`] gave of this very area.
    ///
    /// # Errors
    /// When it is of another size.
    pub fn saved(&self, bytes: &[u8]) -> Result<Saved> {
        let partition_bytes = usize::try_from(self.partition.count)? * SECTOR_BYTES;
        ensure!(
            bytes.len() == BOOT_CODE_BYTES + partition_bytes,
            "the saved boot area has {} bytes and is of another disk",
            bytes.len()
        );
        let (boot_code, content) = bytes.split_at(BOOT_CODE_BYTES);
        Ok(Saved {
            boot_code: boot_code.to_vec(),
            partition: self.partition,
            content: content.to_vec(),
        })
    }

    /// Tells whether the core that `saved` starts is still on the disk, so that
    /// [`BootArea::restore`] names a whole core from its first write on.
    ///
    /// # Errors
    /// When the disk cannot be read.
    pub fn still_holds(&self, saved: &Saved) -> Result<bool> {
        for run in saved.core() {
            let Some(wanted) = saved.sectors(run) else {
                return Ok(false);
            };
            if self.read(run.start_lba, wanted.len())? != wanted {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
