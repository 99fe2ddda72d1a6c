//! A boot area kept in a file, to be put back when GRUB may be another meanwhile.

use anyhow::{Result, ensure};

use super::area::{BootArea, Saved};
use super::sector::{BOOT_CODE_BYTES, SECTOR_BYTES, Sectors, block_list, kernel_sector};

impl Saved {
    /// Returns the boot code, then the partition, for a file.
    pub fn bytes(&self) -> Vec<u8> {
        [&self.boot_code[..], &self.content[..]].concat()
    }

    /// Returns where in its partition the core lies that it starts.
    fn core(&self) -> Vec<Sectors> {
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
    fn sectors(&self, run: Sectors) -> Option<&[u8]> {
        let start = run.start_lba.checked_sub(self.partition.start_lba)?;
        let start = usize::try_from(start).ok()?.checked_mul(SECTOR_BYTES)?;
        let length = usize::try_from(run.count).ok()?.checked_mul(SECTOR_BYTES)?;
        self.content.get(start..start.checked_add(length)?)
    }
}

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
