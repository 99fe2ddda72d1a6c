//! GRUB's core image in the bios_grub partition, switched by one sector.
//!
//! `grub-install` would write a new core over the running one, and a power cut
//! in between leaves neither. Here the new core goes to a part of the bios_grub
//! partition the current one does not use, is read back, and then the boot
//! sector (LBA 0), which names the core's first sector, is replaced: one sector,
//! whole or not at all.

use std::fs::{File, OpenOptions};
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use sha2::{Digest, Sha256};

use super::saved::Saved;
use super::sector::{
    BOOT_CODE_BYTES, SECTOR_BYTES, Sectors, block_list, boot_sector, kernel_sector, place_core,
};
use crate::sha::Sha;

/// The partition type "BIOS boot" (GRUB manual, "BIOS installation").
const BIOS_BOOT: &str = "21686148-6449-6E6F-744E-656564454649";

/// What an installer sets in a core when it has a place: the block list, and in
/// the second sector how many bytes behind it mend it (GRUB `util/setup.c`).
const SET_WHEN_PLACED: [Range<usize>; 2] = [500..512, 528..532];

/// Returns the disk's first bios_grub partition, the one GRUB uses.
///
/// # Errors
/// When the disk has no GPT or no such partition.
pub fn find_partition(disk: &Path) -> Result<Sectors> {
    let gpt = gpt::GptConfig::new()
        .writable(false)
        .open(disk)
        .with_context(|| format!("reading the partition table of {}", disk.display()))?;
    let mut found: Vec<Sectors> = gpt
        .partitions()
        .values()
        .filter(|p| {
            p.part_type_guid
                .guid
                .to_string()
                .eq_ignore_ascii_case(BIOS_BOOT)
        })
        .map(|p| Sectors {
            start_lba: p.first_lba,
            count: (p.last_lba + 1).saturating_sub(p.first_lba),
        })
        .collect();
    found.sort_by_key(|p| p.start_lba);
    found
        .first()
        .copied()
        .with_context(|| format!("{} has no bios_grub partition", disk.display()))
}

/// A disk whose boot sector and bios_grub partition are open for writing.
pub struct BootArea {
    disk: PathBuf,
    file: File,
    pub(super) partition: Sectors,
}

impl BootArea {
    /// Opens the boot area of `disk` for looking at it.
    ///
    /// # Errors
    /// When the disk has no bios_grub partition or cannot be opened.
    pub fn look(disk: &Path) -> Result<BootArea> {
        BootArea::open(disk, OpenOptions::new().read(true))
    }

    /// Opens the boot area of `disk` for changing it.
    ///
    /// # Errors
    /// When the disk has no bios_grub partition or cannot be opened.
    pub fn change(disk: &Path) -> Result<BootArea> {
        BootArea::open(disk, OpenOptions::new().read(true).write(true))
    }

    fn open(disk: &Path, options: &OpenOptions) -> Result<BootArea> {
        let partition = find_partition(disk)?;
        ensure!(
            partition.count * SECTOR_BYTES as u64 <= 64 << 20,
            "the bios_grub partition of {} has {} sectors, more than GRUB can use",
            disk.display(),
            partition.count
        );
        let file = options
            .open(disk)
            .with_context(|| format!("opening {}", disk.display()))?;
        Ok(BootArea {
            disk: disk.to_owned(),
            file,
            partition,
        })
    }

    /// Returns a copy of everything this module may change.
    ///
    /// # Errors
    /// When the disk cannot be read.
    pub fn save(&self) -> Result<Saved> {
        let boot_code = self.read(0, BOOT_CODE_BYTES)?;
        let content = self.read(self.partition.start_lba, self.partition_bytes()?)?;
        Ok(Saved {
            boot_code,
            partition: self.partition,
            content,
        })
    }

    /// Puts back what `saved` holds, where it differs: the boot sector first,
    /// so that it never names a core that is half restored.
    ///
    /// # Errors
    /// When the disk cannot be written or does not read back.
    pub fn restore(&self, saved: &Saved) -> Result<()> {
        for (lba, wanted) in [
            (0, &saved.boot_code),
            (saved.partition.start_lba, &saved.content),
        ] {
            if self.read(lba, wanted.len())? != *wanted {
                self.write(lba, wanted)?;
            }
        }
        Ok(())
    }

    /// Returns what [`Saved::parts_at`] gave as something to restore.
    ///
    /// # Errors
    /// When it is not that of this disk.
    pub fn saved_at(&self, lba: u64, boot_code: Vec<u8>, sectors: Vec<u8>) -> Result<Saved> {
        let partition = Sectors {
            start_lba: lba,
            count: (sectors.len() / SECTOR_BYTES) as u64,
        };
        ensure!(
            boot_code.len() == BOOT_CODE_BYTES
                && sectors.len().is_multiple_of(SECTOR_BYTES)
                && partition.start_lba >= self.partition.start_lba
                && partition.end() <= self.partition.end(),
            "what was saved of the boot area is not of {}",
            self.disk.display()
        );
        Ok(Saved {
            boot_code,
            partition,
            content: sectors,
        })
    }

    /// Returns the word for the core that LBA 0 would start with the boot code of
    /// `saved`; see [`BootArea::current_core`].
    ///
    /// # Errors
    /// When the disk cannot be read.
    pub fn core_started_by(&self, saved: &Saved) -> Result<String> {
        let mut sector = self.read(0, SECTOR_BYTES)?;
        sector[..saved.boot_code.len()].copy_from_slice(&saved.boot_code);
        self.fingerprint(&self.used_from(kernel_sector(&sector))?)
    }

    /// Returns how many sectors of the partition are free for a second core.
    ///
    /// # Errors
    /// When the disk cannot be read.
    pub fn free_sectors(&self) -> Result<u64> {
        let used = self.used()?;
        Ok(self
            .gaps(&used)
            .iter()
            .map(|gap| gap.count)
            .max()
            .unwrap_or(0))
    }

    /// Returns the core that LBA 0 starts: its first sector and the SHA-256 of
    /// all its sectors, as one word that tells it from any other.
    ///
    /// # Errors
    /// When the disk cannot be read.
    pub fn current_core(&self) -> Result<String> {
        self.fingerprint(&self.used()?)
    }

    /// Tells whether LBA 0 starts a core in the partition at all.
    ///
    /// # Errors
    /// When the disk cannot be read.
    pub fn has_core(&self) -> Result<bool> {
        Ok(!self.used()?.is_empty())
    }

    /// Tells whether LBA 0 starts the core that was made of the file `core`, by us
    /// or by `grub-bios-setup`.
    ///
    /// # Errors
    /// When the disk cannot be read.
    pub fn starts(&self, core: &[u8]) -> Result<bool> {
        let place = Sectors {
            start_lba: self.current_sector()?,
            count: core.len().div_ceil(SECTOR_BYTES) as u64,
        };
        let is_inside =
            place.start_lba >= self.partition.start_lba && place.end() <= self.partition.end();
        if !is_inside || core.len() <= 2 * SECTOR_BYTES {
            return Ok(false);
        }
        let mut placed = self.read(place.start_lba, core.len())?;
        let mut core = core.to_vec();
        for bytes in [&mut placed, &mut core] {
            for range in SET_WHEN_PLACED {
                bytes[range].fill(0);
            }
        }
        Ok(placed == core)
    }

    /// Returns the same word for a core that lies at `place`.
    ///
    /// # Errors
    /// When the disk cannot be read.
    pub fn core_at(&self, place: Sectors) -> Result<String> {
        let first = Sectors { count: 1, ..place };
        let rest = Sectors {
            start_lba: place.start_lba + 1,
            count: place.count - 1,
        };
        self.fingerprint(&[first, rest])
    }

    fn fingerprint(&self, sectors: &[Sectors]) -> Result<String> {
        let mut hasher = Sha256::new();
        for run in sectors.iter().filter(|run| run.overlaps(self.partition)) {
            hasher.update(self.read(run.start_lba, usize::try_from(run.count)? * SECTOR_BYTES)?);
        }
        let digest = Sha(hasher.finalize().into());
        Ok(format!(
            "{} {digest}",
            sectors.first().map_or(0, |run| run.start_lba)
        ))
    }

    fn current_sector(&self) -> Result<u64> {
        Ok(kernel_sector(&self.read(0, SECTOR_BYTES)?))
    }

    /// Writes `core` beside the current one and reads it back; returns where.
    ///
    /// Nothing starts it yet.
    ///
    /// # Errors
    /// When there is no room or the write does not read back.
    pub fn write_core(&self, core: &[u8]) -> Result<Sectors> {
        ensure!(
            core.len() > 2 * SECTOR_BYTES,
            "the core image has only {} bytes",
            core.len()
        );
        let count = core.len().div_ceil(SECTOR_BYTES) as u64;
        let used = self.used()?;
        let gap = self.gaps(&used).into_iter().find(|gap| gap.count >= count);
        let Some(gap) = gap else {
            bail!(
                "the bios_grub partition has no room for a second core of {count} sectors \
                 beside the current one; enlarge it to 1 MiB or more"
            );
        };
        let place = Sectors {
            start_lba: gap.start_lba,
            count,
        };
        self.write(place.start_lba, &place_core(core, place)?)?;
        Ok(place)
    }

    /// Makes LBA 0 start the core at `start_lba`: the switch, one sector.
    ///
    /// `boot_img` is GRUB's boot.img of the same build as the core.
    ///
    /// # Errors
    /// When `boot_img` is not GRUB's or the sector does not read back.
    pub fn switch(&self, boot_img: &[u8], start_lba: u64) -> Result<()> {
        let current = self.read(0, SECTOR_BYTES)?;
        let sector = boot_sector(boot_img, &current, start_lba)?;
        self.write(0, &sector)
    }

    fn partition_bytes(&self) -> Result<usize> {
        Ok(usize::try_from(self.partition.count)? * SECTOR_BYTES)
    }

    /// Returns the sectors that the core started by LBA 0 lies on.
    fn used(&self) -> Result<Vec<Sectors>> {
        self.used_from(self.current_sector()?)
    }

    /// Returns the sectors that a core lies on whose first sector is `first`.
    fn used_from(&self, first: u64) -> Result<Vec<Sectors>> {
        let start = Sectors {
            start_lba: first,
            count: 1,
        };
        if !self.partition.overlaps(start) {
            return Ok(Vec::new());
        }
        let mut used = vec![start];
        used.extend(block_list(&self.read(first, SECTOR_BYTES)?));
        Ok(used)
    }

    /// Returns the runs of the partition that none of `used` touches.
    fn gaps(&self, used: &[Sectors]) -> Vec<Sectors> {
        let mut taken: Vec<Sectors> = used
            .iter()
            .copied()
            .filter(|u| u.overlaps(self.partition))
            .collect();
        taken.sort_by_key(|u| u.start_lba);
        let mut gaps = Vec::new();
        let mut at = self.partition.start_lba;
        let end = Sectors {
            start_lba: self.partition.end(),
            count: 0,
        };
        for next in taken.into_iter().chain([end]) {
            if next.start_lba > at {
                gaps.push(Sectors {
                    start_lba: at,
                    count: next.start_lba - at,
                });
            }
            at = at.max(next.end());
        }
        gaps
    }

    pub(super) fn read(&self, lba: u64, len: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.file
            .read_exact_at(&mut bytes, lba * SECTOR_BYTES as u64)
            .with_context(|| {
                format!(
                    "reading {len} bytes at sector {lba} of {}",
                    self.disk.display()
                )
            })?;
        Ok(bytes)
    }

    /// Writes, makes durable, and compares with what the device then returns.
    fn write(&self, lba: u64, bytes: &[u8]) -> Result<()> {
        let write = || -> Result<()> {
            self.file.write_all_at(bytes, lba * SECTOR_BYTES as u64)?;
            self.file.sync_all()?;
            // Drop the cached pages, so that the device itself answers.
            posix_fadvise(
                self.file.as_fd(),
                0,
                0,
                PosixFadviseAdvice::POSIX_FADV_DONTNEED,
            )?;
            ensure!(
                self.read(lba, bytes.len())? == bytes,
                "the device does not return what was written"
            );
            Ok(())
        };
        write().with_context(|| {
            let disk = self.disk.display();
            format!("writing {} bytes at sector {lba} of {disk}", bytes.len())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boot_img() -> Vec<u8> {
        let mut bytes = vec![0xcc; SECTOR_BYTES];
        bytes[0x180..0x185].copy_from_slice(b"GRUB ");
        bytes[510..].copy_from_slice(&[0x55, 0xaa]);
        bytes
    }

    fn core_img(sectors: usize, fill: u8) -> Vec<u8> {
        let mut bytes = vec![fill; sectors * SECTOR_BYTES - 100];
        bytes[400..512].fill(0);
        bytes[500 + 10..512]
            .copy_from_slice(&crate::boot::bios::sector::SECOND_SEGMENT.to_le_bytes());
        bytes
    }

    /// A disk with a bios_grub partition of `count` sectors at 2048.
    fn disk(count: u64) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(8 << 20).unwrap();
        let mbr = gpt::mbr::ProtectiveMBR::with_lb_size((8 << 20) / 512 - 1);
        mbr.overwrite_lba0(&mut file.reopen().unwrap()).unwrap();
        let mut table = gpt::GptConfig::new()
            .writable(true)
            .logical_block_size(gpt::disk::LogicalBlockSize::Lb512)
            .create(file.path())
            .unwrap();
        table
            .add_partition(
                "grub",
                count * 512,
                gpt::partition_types::BIOS,
                0,
                Some(2048),
            )
            .unwrap();
        table.write().unwrap();
        file
    }

    #[test]
    fn a_new_core_never_touches_the_current_one_and_the_switch_is_one_sector() {
        let file = disk(100);
        let area = BootArea::change(file.path()).unwrap();
        let before_table = area.read(0, SECTOR_BYTES).unwrap()[BOOT_CODE_BYTES..].to_vec();
        let first = area.write_core(&core_img(30, 1)).unwrap();
        area.switch(&boot_img(), first.start_lba).unwrap();
        assert_eq!(area.current_core().unwrap(), area.core_at(first).unwrap());
        assert!(area.starts(&core_img(30, 1)).unwrap());
        assert!(!area.starts(&core_img(30, 2)).unwrap());
        assert!(!area.starts(&core_img(200, 1)).unwrap());
        let first_bytes = area.read(first.start_lba, 30 * SECTOR_BYTES).unwrap();
        let second = area.write_core(&core_img(40, 2)).unwrap();
        assert!(!first.overlaps(second));
        assert_eq!(
            area.read(first.start_lba, 30 * SECTOR_BYTES).unwrap(),
            first_bytes
        );
        assert_eq!(area.current_core().unwrap(), area.core_at(first).unwrap());
        area.switch(&boot_img(), second.start_lba).unwrap();
        let third = area.write_core(&core_img(30, 3)).unwrap();
        assert!(!third.overlaps(second));
        assert_eq!(
            area.read(0, SECTOR_BYTES).unwrap()[BOOT_CODE_BYTES..],
            before_table
        );
    }

    #[test]
    fn without_room_beside_the_current_core_nothing_is_written() {
        let file = disk(60);
        let area = BootArea::change(file.path()).unwrap();
        let first = area.write_core(&core_img(40, 1)).unwrap();
        area.switch(&boot_img(), first.start_lba).unwrap();
        let saved = area.save().unwrap();
        assert!(area.write_core(&core_img(40, 2)).is_err());
        assert_eq!(area.save().unwrap().content, saved.content);
    }

    #[test]
    fn restore_puts_every_byte_back() {
        let file = disk(100);
        let area = BootArea::change(file.path()).unwrap();
        let saved = area.save().unwrap();
        let before = std::fs::read(file.path()).unwrap();
        let place = area.write_core(&core_img(30, 7)).unwrap();
        area.switch(&boot_img(), place.start_lba).unwrap();
        assert_ne!(std::fs::read(file.path()).unwrap(), before);
        area.restore(&saved).unwrap();
        // The boot signature lies behind the boot code; it was there before.
        assert_eq!(std::fs::read(file.path()).unwrap(), before);
    }

    #[test]
    fn foreign_images_are_refused() {
        let file = disk(100);
        let area = BootArea::change(file.path()).unwrap();
        assert!(area.write_core(&vec![0; 4096]).is_err());
        assert!(area.switch(&[0; 512], 2048).is_err());
    }
}
