//! The files that a description refers to, found among an OVA's members: whole,
//! or split into chunks; as they are, or compressed.

use std::collections::VecDeque;
use std::io::{self, Read};

use anyhow::{Context, Result};
use flate2::read::MultiGzDecoder;

use super::archive::{Member, Members, Window};
use super::envelope::FileRef;
use crate::failure::{Class, Classify};
use crate::progress::{Progress, Step};
use crate::refuse;
use crate::source::raw::RawImage;

impl Members<'_> {
    /// Returns the members that make up `file`, in order.
    ///
    /// # Errors
    /// Class `Refused` when one is missing or they have not the size they should.
    pub fn parts_of(&self, file: &FileRef) -> Result<Vec<&Member>> {
        let (shown, href) = (self.shown(), &file.href);
        let parts = match file.chunk_bytes {
            None | Some(0) => vec![self.part(href)?],
            Some(chunk_bytes) => self.chunks_of(file, chunk_bytes)?,
        };
        let found: u64 = parts.iter().map(|part| part.size_bytes).sum();
        if let Some(wanted) = file.size_bytes.filter(|wanted| *wanted != found) {
            refuse!(
                "{href} in {shown} has {found} bytes, and its description (OVF) says {wanted}; \
                 copy it again, or export the VM again"
            );
        }
        Ok(parts)
    }

    fn part(&self, href: &str) -> Result<&Member> {
        match self
            .find(href)
            .or_else(|| self.find(&percent_decoded(href)))
        {
            Some(member) => Ok(member),
            None => refuse!(
                "{} does not hold {href}, which its description (OVF) names; copy it again, \
                 or export the VM again",
                self.shown()
            ),
        }
    }

    fn chunks_of(&self, file: &FileRef, chunk_bytes: u64) -> Result<Vec<&Member>> {
        let count = file.size_bytes.map(|size| size.div_ceil(chunk_bytes));
        let mut chunks = Vec::new();
        loop {
            let number = u64::try_from(chunks.len())?;
            if count.is_some_and(|count| number >= count.max(1)) {
                return Ok(chunks);
            }
            let name = format!("{}.{number:09}", file.href);
            let found = self.find(&name);
            if found.is_none() && number > 0 && count.is_none() {
                return Ok(chunks);
            }
            chunks.push(match found {
                Some(chunk) => chunk,
                None => self.part(&name)?,
            });
        }
    }

    /// Joins and unpacks the file into a temporary one without a name.
    ///
    /// # Errors
    /// Class `Refused` when it cannot be unpacked or there is no room.
    pub fn assemble(
        &self,
        file: &FileRef,
        parts: &[&Member],
        progress: &dyn Progress,
    ) -> Result<RawImage> {
        let (shown, href) = (self.shown(), &file.href);
        let joined = Joined {
            parts: parts.iter().map(|part| self.bytes(part)).collect(),
        };
        progress.start(Step::Read(href.clone()), None);
        let unpacked = match file.compression.as_deref() {
            None => RawImage::from_reader(joined, progress),
            Some("gzip") => RawImage::from_reader(MultiGzDecoder::new(joined), progress),
            Some(other) => refuse!(
                "{href} in {shown} is compressed with {other:?}; only gzip can be read: unpack \
                 the OVA and the disk, and give the disk"
            ),
        };
        progress.finish();
        unpacked
            .with_context(|| format!("unpacking {href} in {shown}"))
            .class(Class::Refused)
    }
}

/// Several members as if they were one file.
struct Joined<'m> {
    parts: VecDeque<Window<'m>>,
}

impl Read for Joined<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(part) = self.parts.front_mut() {
            let count = part.read(buffer)?;
            if count > 0 || buffer.is_empty() {
                return Ok(count);
            }
            self.parts.pop_front();
        }
        Ok(0)
    }
}

/// Undoes `%20` and its like, as names are written as parts of URLs.
fn percent_decoded(href: &str) -> String {
    let bytes = href.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let code = href
            .get(at + 1..at + 3)
            .filter(|_| bytes[at] == b'%')
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        plain.push(code.unwrap_or(bytes[at]));
        at += if code.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&plain).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_written_as_urls_are_undone() {
        assert_eq!(percent_decoded("my%20disk%2.vmdk"), "my disk%2.vmdk");
        assert_eq!(percent_decoded("%c3%a9%"), "\u{e9}%");
        assert_eq!(percent_decoded("%\u{e9}x"), "%\u{e9}x");
    }
}
