//! The grains of a sparse VMDK: that each one its tables name is in the file.
//!
//! `qemu-img` reads what lies beyond the end of the file as zeros.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// The header's version is one of these; others are left to `qemu-img`.
const VERSIONS: std::ops::RangeInclusive<u32> = 1..=3;
const SECTOR: u64 = 512;
/// The entry of a grain directory or table that names nothing.
const NOTHING: u32 = 0;
/// The entry of a grain that holds zeros.
const ZEROS: u32 = 1;
/// The directory stands in a copy of the header, at the end of the file.
const AT_END: u64 = u64::MAX;
/// More grain tables than the largest disk has.
const MAX_TABLES: u64 = 1 << 20;

/// What is wrong with a sparse VMDK.
#[derive(Debug, PartialEq, Eq)]
pub enum Flaw {
    /// It ends before something that its tables name.
    CutOff,
    /// It holds fewer sectors of the disk than it should.
    Short,
}

/// Checks the sparse VMDK that fills `size` bytes of `file` from `offset` on and
/// should hold `sectors` sectors of the disk.
///
/// # Errors
/// When the file cannot be read.
pub fn check(file: &File, offset: u64, size: u64, sectors: u64) -> io::Result<Option<Flaw>> {
    let sparse = Sparse { file, offset, size };
    match sparse.check(sectors) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(Some(Flaw::CutOff)),
        other => other,
    }
}

struct Sparse<'f> {
    file: &'f File,
    offset: u64,
    size: u64,
}

/// Where the grains are, as the header says.
struct Layout {
    sectors: u64,
    grain_sectors: u64,
    directory: u64,
    tables: u64,
    table_entries: u64,
    has_markers: bool,
}

impl Sparse<'_> {
    fn check(&self, sectors: u64) -> io::Result<Option<Flaw>> {
        let Some(layout) = self.layout()? else {
            return Ok(None);
        };
        if layout.sectors < sectors {
            return Ok(Some(Flaw::Short));
        }
        let directory = self.entries(layout.directory, layout.tables)?;
        let table_bytes = layout.table_entries * 4;
        let mut left = self.size;
        for (table, place) in (0..).zip(directory) {
            if place == NOTHING {
                continue;
            }
            // A table has a place of its own, or a small file would take for ever.
            left = match left.checked_sub(table_bytes) {
                Some(left) => left,
                None => return Ok(Some(Flaw::CutOff)),
            };
            let grains = self.entries(u64::from(place), layout.table_entries)?;
            for (grain, place) in (table * layout.table_entries..).zip(grains) {
                if place != NOTHING && place != ZEROS && !self.has_grain(&layout, grain, place)? {
                    return Ok(Some(Flaw::CutOff));
                }
            }
        }
        Ok(None)
    }

    fn layout(&self) -> io::Result<Option<Layout>> {
        let header = self.read::<80>(0)?;
        let layout = match &header[..4] {
            b"COWD" => cowd(&header),
            _ if long(&header, 56) == AT_END => {
                let Some(at) = self.size.checked_sub(2 * SECTOR) else {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                };
                let footer = self.read::<80>(at)?;
                if !footer.starts_with(b"KDMV") || long(&footer, 56) == AT_END {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                kdmv(&footer)
            }
            _ => kdmv(&header),
        };
        Ok(layout.filter(|layout| layout.tables <= MAX_TABLES && layout.grain_sectors > 0))
    }

    fn has_grain(&self, layout: &Layout, grain: u64, place: u32) -> io::Result<bool> {
        let start = u64::from(place) * SECTOR;
        let length = if layout.has_markers {
            let marker = self.read::<12>(start)?;
            12 + u64::from(word(&marker, 8))
        } else {
            // The last grain may reach beyond the end of the disk.
            let left = layout
                .sectors
                .saturating_sub(grain.saturating_mul(layout.grain_sectors));
            left.min(layout.grain_sectors).saturating_mul(SECTOR)
        };
        Ok(start.saturating_add(length) <= self.size)
    }

    /// Reads `count` entries of a directory or table that starts at a sector.
    fn entries(&self, sector: u64, count: u64) -> io::Result<Vec<u32>> {
        let start = sector.saturating_mul(SECTOR);
        if start.saturating_add(count * 4) > self.size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut bytes = vec![0; usize::try_from(count * 4).map_err(io::Error::other)?];
        self.file.read_exact_at(&mut bytes, self.offset + start)?;
        let entries = bytes.chunks_exact(4).map(|entry| word(entry, 0));
        Ok(entries.collect())
    }

    fn read<const N: usize>(&self, at: u64) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        if at.saturating_add(N as u64) > self.size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.file.read_exact_at(&mut bytes, self.offset + at)?;
        Ok(bytes)
    }
}

/// Reads the header of hosted products and of OVF.
fn kdmv(header: &[u8]) -> Option<Layout> {
    const COMPRESSED: u32 = 1 << 16;
    const MARKERS: u32 = 1 << 17;
    let (sectors, grain_sectors) = (long(header, 12), long(header, 20));
    let table_entries = u64::from(word(header, 44));
    let covered = grain_sectors.checked_mul(table_entries)?;
    if !VERSIONS.contains(&word(header, 4)) || covered == 0 || table_entries > 1 << 16 {
        return None;
    }
    Some(Layout {
        sectors,
        grain_sectors,
        directory: long(header, 56),
        tables: sectors.div_ceil(covered),
        table_entries,
        has_markers: word(header, 8) & (COMPRESSED | MARKERS) == COMPRESSED | MARKERS,
    })
}

/// Reads the header of ESX's sparse disks.
fn cowd(header: &[u8]) -> Option<Layout> {
    const TABLE_ENTRIES: u64 = 4096;
    (word(header, 4) == 1).then(|| Layout {
        sectors: u64::from(word(header, 12)),
        grain_sectors: u64::from(word(header, 16)),
        directory: u64::from(word(header, 20)),
        tables: u64::from(word(header, 24)),
        table_entries: TABLE_ENTRIES,
        has_markers: false,
    })
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([0, 1, 2, 3].map(|i| bytes[at + i]))
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from(word(bytes, at)) | u64::from(word(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_that_share_a_place_are_not_all_read() {
        const TABLES: u32 = 1 << 19;
        const ENTRIES: u32 = 1 << 16;
        let directory_sectors = u64::from(TABLES) * 4 / SECTOR;
        let mut header = vec![0; 512];
        header[..4].copy_from_slice(b"KDMV");
        header[4..8].copy_from_slice(&1_u32.to_le_bytes());
        let sectors = u64::from(TABLES) * u64::from(ENTRIES);
        header[12..20].copy_from_slice(&sectors.to_le_bytes());
        header[20..28].copy_from_slice(&1_u64.to_le_bytes());
        header[44..48].copy_from_slice(&ENTRIES.to_le_bytes());
        header[56..64].copy_from_slice(&1_u64.to_le_bytes());
        let place = u32::try_from(1 + directory_sectors).unwrap();
        let mut image = header;
        image.extend(place.to_le_bytes().repeat(TABLES as usize));
        image.resize(image.len() + ENTRIES as usize * 4, 0);
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&image, 0).unwrap();
        let flaw = check(&file, 0, image.len() as u64, sectors).unwrap();
        assert_eq!(flaw, Some(Flaw::CutOff));
    }
}
