//! The maps of sparse files in the four dialects GNU tar has had.

use anyhow::{Result, bail, ensure};

use super::block::BLOCK;
use crate::tree::holes::Extent;

/// The most extents accepted for one file.
const MAX_EXTENTS: usize = 1 << 20;

/// Checks that extents are in order, inside the file, and hold `stored` bytes.
pub fn check_map(map: Vec<Extent>, size: u64, stored: u64) -> Result<Vec<Extent>> {
    ensure!(
        i64::try_from(size).is_ok(),
        "it has {size} bytes, more than any file can have"
    );
    let (mut at, mut sum) = (0_u64, 0_u64);
    for extent in &map {
        let end = extent.offset.checked_add(extent.length);
        match end {
            Some(end) if extent.offset >= at && end <= size => at = end,
            _ => bail!(
                "its sparse map is out of order at {}+{} of {size} bytes",
                extent.offset,
                extent.length
            ),
        }
        sum += extent.length;
    }
    ensure!(
        sum == stored,
        "its sparse map holds {sum} bytes, the archive {stored}"
    );
    Ok(map.into_iter().filter(|e| e.length > 0).collect())
}

/// Collects the numbers of a map, each an offset or a length in turn.
#[derive(Debug, Default)]
pub struct MapBuilder {
    extents: Vec<Extent>,
    offset: Option<u64>,
}

impl MapBuilder {
    pub fn push(&mut self, number: u64) -> Result<()> {
        match self.offset.take() {
            None => self.offset = Some(number),
            Some(offset) => {
                ensure!(
                    self.extents.len() < MAX_EXTENTS,
                    "its sparse map has more than {MAX_EXTENTS} extents"
                );
                self.extents.push(Extent {
                    offset,
                    length: number,
                });
            }
        }
        Ok(())
    }

    pub fn finish(self) -> Result<Vec<Extent>> {
        ensure!(self.offset.is_none(), "its sparse map ends half-way");
        Ok(self.extents)
    }
}

/// Reads the map that format 1.0 keeps before the data, block by block.
#[derive(Debug, Default)]
pub struct MapReader {
    builder: MapBuilder,
    count: Option<u64>,
    seen: u64,
    number: Option<u64>,
    /// Blocks read so far.
    pub blocks: u64,
}

impl MapReader {
    /// Takes a block; the map is whole when it answers with it.
    pub fn take(&mut self, block: &[u8]) -> Result<Option<Vec<Extent>>> {
        self.blocks += 1;
        debug_assert_eq!(block.len(), BLOCK);
        for byte in block {
            match byte {
                b'0'..=b'9' => {
                    let digit = u64::from(byte - b'0');
                    let number = self.number.unwrap_or(0).checked_mul(10);
                    match number.and_then(|n| n.checked_add(digit)) {
                        Some(number) => self.number = Some(number),
                        None => bail!("its sparse map has a number beyond 64 bits"),
                    }
                }
                b'\n' => {
                    let Some(number) = self.number.take() else {
                        bail!("its sparse map has an empty line");
                    };
                    if self.end_number(number)? {
                        return Ok(Some(std::mem::take(&mut self.builder).finish()?));
                    }
                }
                _ => bail!("its sparse map has something else than numbers"),
            }
        }
        Ok(None)
    }

    fn end_number(&mut self, number: u64) -> Result<bool> {
        match self.count {
            None => {
                ensure!(
                    number <= MAX_EXTENTS as u64,
                    "its sparse map has {number} extents, more than {MAX_EXTENTS}"
                );
                self.count = Some(number);
            }
            Some(_) => {
                self.builder.push(number)?;
                self.seen += 1;
            }
        }
        Ok(self.count.is_some_and(|count| self.seen == 2 * count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Option<Vec<Extent>>> {
        let mut block = text.as_bytes().to_vec();
        block.resize(BLOCK, 0);
        MapReader::default().take(&block)
    }

    #[test]
    fn maps_are_read_and_bogus_ones_refused() {
        let extents = read("2\n0\n10\n4096\n0\n").unwrap().unwrap();
        assert_eq!(extents.len(), 2);
        assert_eq!(read("0\n").unwrap().unwrap(), []);
        for text in [
            "",
            "x",
            "1\n\n",
            "99999999999999999999\n",
            "2000000\n",
            "1\n5",
        ] {
            assert!(read(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn maps_that_lie_are_refused() {
        let extent = |offset, length| Extent { offset, length };
        for (map, size, stored) in [
            (vec![extent(0, 10), extent(5, 10)], 100, 20),
            (vec![extent(50, 10), extent(0, 10)], 100, 20),
            (vec![extent(95, 10)], 100, 10),
            (vec![extent(u64::MAX, 10)], u64::MAX, 10),
            (vec![extent(0, 10)], 100, 11),
            (vec![], 1 << 63, 0),
        ] {
            assert!(check_map(map.clone(), size, stored).is_err(), "{map:?}");
        }
        let kept = check_map(vec![extent(0, 10), extent(100, 0)], 100, 10).unwrap();
        assert_eq!(kept, [extent(0, 10)]);
    }
}
