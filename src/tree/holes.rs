//! Sparse files: where their data lies, and reading it.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::stat::FileStat;
use nix::unistd::{Whence, lseek};

use crate::signals;

/// The most extents kept of one file; smaller holes are then stored as zeros.
const MAX_EXTENTS: usize = 1 << 16;
const FIRST_MIN_HOLE: u64 = 4096;
const BLOCK: usize = 4096;

/// A stretch of data in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Where it begins, in bytes.
    pub offset: u64,
    /// How many bytes.
    pub length: u64,
}

impl Extent {
    /// Returns the first byte after the extent.
    pub fn end(&self) -> u64 {
        self.offset + self.length
    }
}

/// Lists where the data of an open file lies, in order and apart from each other.
pub fn data_extents(file: &File, stat: &FileStat) -> Result<Vec<Extent>> {
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    let allocated = u64::try_from(stat.st_blocks).unwrap_or(0) * 512;
    if size == 0 {
        return Ok(Vec::new());
    }
    if allocated >= size {
        return Ok(vec![Extent {
            offset: 0,
            length: size,
        }]);
    }
    let extents = bounded(|min_hole| seek_extents(file, size, min_hole))?;
    match extents.as_slice() {
        [only] if only.length == size && size - allocated >= FIRST_MIN_HOLE => {
            bounded(|min_hole| zero_extents(file, size, min_hole))
        }
        _ => Ok(extents),
    }
}

/// Calls `list` with ever larger holes that count, until there are not too many.
fn bounded(list: impl Fn(u64) -> Result<Option<Vec<Extent>>>) -> Result<Vec<Extent>> {
    let mut min_hole = FIRST_MIN_HOLE;
    loop {
        match list(min_hole)? {
            Some(extents) => return Ok(extents),
            None => min_hole *= 16,
        }
    }
}

/// Lists the extents of a file on a file system that says how much is allocated
/// but not where, as FUSE's do without lseek(2): what is zero is a hole.
fn zero_extents(file: &File, size: u64, min_hole: u64) -> Result<Option<Vec<Extent>>> {
    let mut extents: Vec<Extent> = Vec::new();
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0;
    while at < size {
        signals::check()?;
        let step = usize::try_from(size - at).map_or(buffer.len(), |l| l.min(buffer.len()));
        file.read_exact_at(&mut buffer[..step], at)
            .context("the file has become shorter meanwhile")?;
        for block in buffer[..step].chunks(BLOCK) {
            let length = block.len() as u64;
            if block.iter().any(|byte| *byte != 0) {
                push(&mut extents, Extent { offset: at, length }, min_hole);
            }
            at += length;
        }
        if extents.len() > MAX_EXTENTS {
            return Ok(None);
        }
    }
    Ok(Some(extents))
}

/// Adds an extent, joining it with the last one if less than `min_hole` parts them.
fn push(extents: &mut Vec<Extent>, next: Extent, min_hole: u64) {
    match extents.last_mut() {
        Some(last) if next.offset - last.end() < min_hole => {
            last.length = next.end() - last.offset;
        }
        _ => extents.push(next),
    }
}

/// Lists the extents, joining those parted by less than `min_hole`; `None` if too many.
fn seek_extents(file: &File, size: u64, min_hole: u64) -> Result<Option<Vec<Extent>>> {
    let mut extents: Vec<Extent> = Vec::new();
    let mut at = 0;
    while at < size {
        let data = match seek(file, at, Whence::SeekData) {
            Err(Errno::ENXIO) => break,
            other => other.context("looking for data")?,
        };
        let hole = seek(file, data, Whence::SeekHole).context("looking for a hole")?;
        let (data, hole) = (data.min(size), hole.min(size));
        let next = Extent {
            offset: data,
            length: hole - data,
        };
        push(&mut extents, next, min_hole);
        if extents.len() > MAX_EXTENTS {
            return Ok(None);
        }
        at = hole;
    }
    Ok(Some(extents))
}

fn seek(file: &File, offset: u64, whence: Whence) -> nix::Result<u64> {
    let offset = i64::try_from(offset).map_err(|_| Errno::EOVERFLOW)?;
    let found = lseek(file.as_fd(), offset, whence)?;
    u64::try_from(found).map_err(|_| Errno::EOVERFLOW)
}

/// What [`read_data`] comes upon.
pub enum Piece<'a> {
    /// The next bytes.
    Data(&'a [u8]),
    /// So many zeros.
    Hole(u64),
}

/// Reads a file of `size` bytes whose data lies in `extents`, in order.
pub fn read_data(
    file: &File,
    extents: &[Extent],
    size: u64,
    buffer: &mut [u8],
    take: &mut dyn FnMut(Piece) -> Result<()>,
) -> Result<()> {
    let mut at = 0;
    for extent in extents {
        take(Piece::Hole(extent.offset - at))?;
        at = extent.offset;
        while at < extent.end() {
            signals::check()?;
            let left = extent.end() - at;
            let step = usize::try_from(left).map_or(buffer.len(), |l| l.min(buffer.len()));
            file.read_exact_at(&mut buffer[..step], at)
                .context("the file has become shorter meanwhile")?;
            take(Piece::Data(&buffer[..step]))?;
            at += step as u64;
        }
    }
    take(Piece::Hole(size - at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::stat::fstat;

    #[test]
    fn where_the_file_system_cannot_tell_zeros_are_holes() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(3 << 20).unwrap();
        file.write_all_at(&[1; 10], (1 << 20) + 5000).unwrap();
        file.write_all_at(&[1; 10], (3 << 20) - 10).unwrap();
        let list = |min_hole| zero_extents(&file, 3 << 20, min_hole).unwrap().unwrap();
        let extents = [(1 << 20) + 4096, (3 << 20) - 4096].map(|offset| Extent {
            offset,
            length: 4096,
        });
        assert_eq!(list(FIRST_MIN_HOLE), extents);
        assert_eq!(list(4 << 20).len(), 1);
    }

    #[test]
    fn data_is_found_between_holes_at_both_ends() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(10 << 20).unwrap();
        file.write_all_at(&[1; 8192], 1 << 20).unwrap();
        file.write_all_at(&[1; 100], 5 << 20).unwrap();
        let stat = fstat(&file).unwrap();
        let extents = data_extents(&file, &stat).unwrap();
        let starts: Vec<u64> = extents.iter().map(|e| e.offset).collect();
        assert_eq!(starts, [1 << 20, 5 << 20]);
        let (mut data, mut holes) = (0, 0);
        read_data(&file, &extents, 10 << 20, &mut [0; 1000], &mut |piece| {
            match piece {
                Piece::Data(bytes) => data += bytes.len() as u64,
                Piece::Hole(length) => holes += length,
            }
            Ok(())
        })
        .unwrap();
        assert_eq!(data + holes, 10 << 20);
        assert_eq!(data, 8192 + 4096);
        assert_eq!(
            seek_extents(&file, 10 << 20, 16 << 20)
                .unwrap()
                .unwrap()
                .len(),
            1
        );
    }
}
