//! A physical volume's label and its ring of metadata texts.

use anyhow::{Context, Result, bail};

use crate::source::content::ReadAt;

const SECTOR: usize = 512;
const MAGIC: &[u8] = b" LVM2 x[5A%r0N*>";
/// A volume group of a thousand volumes has one megabyte.
const MAX_TEXT: u64 = 4 << 20;
/// The flag of a metadata area that is not in use.
const IGNORED: u32 = 1;

/// What the label leads to.
pub struct Label {
    /// Without hyphens.
    pub uuid: String,
    /// The current metadata text, when this volume holds a copy.
    pub metadata: Option<String>,
}

/// Reads the label in one of the first four sectors and what it points to.
pub fn read(read: ReadAt<'_>, size_bytes: u64) -> Result<Label> {
    let mut start = vec![0; 4 * SECTOR];
    read(&mut start, 0).context("reading the label")?;
    let label = start
        .chunks(SECTOR)
        .find(|sector| sector.starts_with(b"LABELONE"))
        .context("no label")?;
    if u32_at(label, 16)? != checksum(&label[20..]) {
        bail!("the label's checksum is wrong");
    }
    let header = usize::try_from(u32_at(label, 20)?)?;
    let header = label.get(header..).context("the label points nowhere")?;
    let uuid = header.get(..32).context("the label is cut off")?;
    let uuid = std::str::from_utf8(uuid)
        .context("its UUID is not text")?
        .to_owned();
    let mut at = 40;
    skip_areas(header, &mut at)?;
    let mut damage = None;
    while let Some((offset, size)) = next_area(header, &mut at)? {
        if offset.checked_add(size).is_none_or(|end| end > size_bytes) {
            bail!("a metadata area ends beyond it");
        }
        match read_area(read, offset, size) {
            Ok(Some(text)) => {
                return Ok(Label {
                    uuid,
                    metadata: Some(text),
                });
            }
            Ok(None) => {}
            Err(error) => damage = Some(error),
        }
    }
    match damage {
        Some(error) => Err(error),
        None => Ok(Label {
            uuid,
            metadata: None,
        }),
    }
}

/// Returns the text of one metadata area; `None` when it holds none.
fn read_area(read: ReadAt<'_>, offset: u64, size: u64) -> Result<Option<String>> {
    let mut header = [0; SECTOR];
    read(&mut header, offset).context("reading a metadata area")?;
    if u32_at(&header, 0)? != checksum(&header[4..]) || &header[4..20] != MAGIC {
        bail!("a metadata area's checksum is wrong");
    }
    let text_offset = u64_at(&header, 40)?;
    let text_size = u64_at(&header, 48)?;
    let text_checksum = u32_at(&header, 56)?;
    if text_offset == 0 || u32_at(&header, 60)? & IGNORED != 0 {
        return Ok(None);
    }
    let ring = SECTOR as u64;
    if text_size > MAX_TEXT || text_size > size.saturating_sub(ring) || text_offset >= size {
        bail!("a metadata text of {text_size} bytes at {text_offset} does not fit its area");
    }
    // The area is a ring: a text may go on behind the header.
    let mut text = vec![0; usize::try_from(text_size)?];
    let first = usize::try_from(text_size.min(size - text_offset))?;
    read(&mut text[..first], offset + text_offset).context("reading a metadata text")?;
    read(&mut text[first..], offset + ring).context("reading a metadata text")?;
    if checksum(&text) != text_checksum {
        bail!("a metadata text's checksum is wrong");
    }
    let end = text.iter().position(|b| *b == 0).unwrap_or(text.len());
    text.truncate(end);
    String::from_utf8(text)
        .map(Some)
        .context("a metadata text is not text")
}

fn skip_areas(header: &[u8], at: &mut usize) -> Result<()> {
    while next_area(header, at)?.is_some() {}
    Ok(())
}

/// Reads the next entry of a list of areas that ends with a zero entry.
fn next_area(header: &[u8], at: &mut usize) -> Result<Option<(u64, u64)>> {
    let area = (u64_at(header, *at)?, u64_at(header, *at + 8)?);
    *at += 16;
    Ok((area.0 != 0).then_some(area))
}

/// CRC-32 as LVM uses it: its own start value, nothing inverted at the end.
pub(super) fn checksum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0xf597_a6cf, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
        })
    })
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32> {
    let word = bytes.get(at..at + 4).context("the label is cut off")?;
    Ok(u32::from_le_bytes(word.try_into()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Result<u64> {
    let word = bytes.get(at..at + 8).context("the label is cut off")?;
    Ok(u64::from_le_bytes(word.try_into()?))
}
