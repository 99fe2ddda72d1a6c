//! Whether every block of a volume can be read, before it is written.
//!
//! A disk tells of a sector that it cannot read any more only when it is asked for it;
//! who writes first and reads back later has nothing to go back to meanwhile.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::fcntl::OFlag;

use crate::refuse;
use crate::system::{Cmd, System};

/// What is read at once, in bytes.
const PIECE: usize = 4 << 20;

/// What no disk's sector is larger than, and memory is aligned to, in bytes.
const BLOCK: usize = 4096;

/// The unit in which Linux counts sectors, in bytes.
const SECTOR: u64 = 512;

/// How far the reading came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// To the end.
    All,
    /// To this byte, when the time was over.
    Until(u64),
}

/// Reads `size_bytes` of the volume `device` past the page cache, for no longer than
/// `limit`.
///
/// # Errors
/// Class `Refused` when a sector cannot be read, with its number on the disk; else when
/// the volume cannot be opened, or `advance` fails.
pub fn read(
    sys: &dyn System,
    device: &Path,
    size_bytes: u64,
    limit: Duration,
    advance: &mut dyn FnMut(u64) -> Result<()>,
) -> Result<Read> {
    let file = open(&sys.at(device)).with_context(|| format!("opening {}", device.display()))?;
    let start = Instant::now();
    let mut memory = vec![0; PIECE + BLOCK];
    let from = memory.as_ptr().align_offset(BLOCK);
    let buffer = &mut memory[from..from + PIECE];
    let mut at = 0;
    while at < size_bytes {
        if start.elapsed() > limit {
            return Ok(Read::Until(at));
        }
        let wanted = (size_bytes - at).min(PIECE as u64);
        let piece = &mut buffer[..usize::try_from(wanted)?];
        match file.read_at(piece, at) {
            Ok(0) => break,
            Ok(count) => {
                at += count as u64;
                advance(count as u64)?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                let read = |block: &mut [u8], at| file.read_at(block, at);
                let bad = first_bad(&read, piece, at).unwrap_or(at);
                let place = place_on_disk(sys, device, bad);
                refuse!(
                    "byte {bad} of {} cannot be read ({error}): {place}; replace the disk, or have \
                     the hypervisor move the machine to another datastore",
                    device.display()
                );
            }
        }
    }
    Ok(Read::All)
}

/// Opens it so that it is the disk that answers, where the file system can do that.
fn open(path: &Path) -> io::Result<File> {
    let open = |flags: OFlag| {
        File::options()
            .read(true)
            .custom_flags((flags | OFlag::O_NONBLOCK).bits())
            .open(path)
    };
    match open(OFlag::O_DIRECT) {
        Err(error) if error.raw_os_error() == Some(Errno::EINVAL as i32) => open(OFlag::empty()),
        outcome => outcome,
    }
}

/// Returns the first block of a piece at `at` that cannot be read.
fn first_bad(
    read: &dyn Fn(&mut [u8], u64) -> io::Result<usize>,
    piece: &mut [u8],
    at: u64,
) -> Option<u64> {
    let blocks = piece.chunks_mut(BLOCK).zip((at..).step_by(BLOCK));
    blocks
        .into_iter()
        .find_map(|(block, at)| read(block, at).is_err().then_some(at))
}

/// Says where on a disk a byte of a logical volume is.
fn place_on_disk(sys: &dyn System, device: &Path, byte: u64) -> String {
    let found = || -> Option<String> {
        let table = sys
            .run(&Cmd::new("dmsetup").arg("table").arg(device))
            .ok()?;
        let (number, sector) = below(&table, byte / SECTOR)?;
        let node = sys.at(Path::new(&format!("/sys/dev/block/{number}")));
        let value = |name: &str| fs::read_to_string(node.join(name)).ok();
        let start: u64 = value("start")
            .and_then(|it| it.trim().parse().ok())
            .unwrap_or(0);
        let uevent = value("uevent")?;
        let name = uevent
            .lines()
            .find_map(|line| line.strip_prefix("DEVNAME="))?;
        Some(format!(
            "sector {sector} of /dev/{name}, LBA {} of its disk",
            start + sector
        ))
    };
    found().unwrap_or_else(|| "where that is on the disk is not known".to_owned())
}

/// Reads `0 4194304 linear 252:3 2048` of dmsetup(8): on which device a sector of the
/// volume is, and which one of it.
fn below(table: &str, sector: u64) -> Option<(&str, u64)> {
    table.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [start, length, "linear", device, offset] = words[..] else {
            return None;
        };
        let start: u64 = start.parse().ok()?;
        let length: u64 = length.parse().ok()?;
        let inside = sector
            .checked_sub(start)
            .filter(|inside| *inside < length)?;
        Some((device, offset.parse::<u64>().ok()?.checked_add(inside)?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_block_is_found_in_its_piece_and_on_its_disk() {
        let bad = 5 * BLOCK as u64;
        let read = |block: &mut [u8], at: u64| match at == bad {
            true => Err(io::Error::from_raw_os_error(Errno::EIO as i32)),
            false => Ok(block.len()),
        };
        let mut piece = vec![0; 8 * BLOCK];
        assert_eq!(first_bad(&read, &mut piece, 0), Some(bad));
        assert_eq!(first_bad(&read, &mut piece, bad + BLOCK as u64), None);
        let table = "0 2048 linear 252:3 4096\n2048 1000 linear 252:4 100\n";
        assert_eq!(below(table, 40), Some(("252:3", 4136)));
        assert_eq!(below(table, 2049), Some(("252:4", 101)));
        assert_eq!(below(table, 5000), None);
        assert_eq!(below("0 8 striped 2 128 252:3 0 252:4 0\n", 1), None);
    }
}
