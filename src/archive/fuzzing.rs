//! Shows the fuzz targets what the parser makes of an archive; no part of
//! any other build.

use super::batch::{Batch, Part};
use super::parse::Parser;
use crate::tree::meta::Meta;
use crate::tree::xattrs::Xattr;

/// What an archive turned out to hold, up to its end or the first error.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Archive {
    /// The members, in order.
    pub members: Vec<SeenMember>,
    /// Why it was refused.
    pub error: Option<String>,
}

/// One member of an archive.
#[derive(Debug, PartialEq, Eq)]
pub struct SeenMember {
    /// Where it goes.
    pub path: Vec<u8>,
    /// Where a link points.
    pub link_end: Vec<u8>,
    /// It is a further name of a file.
    pub is_hard_link: bool,
    /// What is kept of the inode.
    pub meta: Meta,
    /// The extended attributes.
    pub xattrs: Vec<Xattr>,
    /// Bytes of file data that were announced.
    pub stored: u64,
    /// Stretches of data with their offsets; neighbours are one.
    pub data: Vec<(u64, Vec<u8>)>,
}

/// Parses `archive`, which comes in pieces: `next_piece` is told how much is
/// left and answers how much of it comes next.
///
/// Wherever a file fills the next piece, the parser that is handed over to the
/// piece after it takes the place of the one that has read everything.
pub fn parse(mut archive: &[u8], mut next_piece: impl FnMut(usize) -> usize) -> Archive {
    let mut parser = Parser::default();
    let mut batch = Batch::default();
    let mut seen = Archive::default();
    while !archive.is_empty() && seen.error.is_none() {
        let length = next_piece(archive.len()).clamp(1, archive.len());
        let (piece, rest) = archive.split_at(length);
        let after = parser.after_data(piece.len() as u64);
        let parsed = parser.parse(piece, &mut batch);
        seen.add(&batch, piece);
        seen.error = parsed.err().map(|error| format!("{error:#}"));
        if let Some(after) = after {
            assert!(batch.members.is_empty() && batch.is_unfinished);
            parser = after;
        }
        archive = rest;
    }
    if seen.error.is_none() {
        seen.error = parser.finish().err().map(|error| format!("{error:#}"));
    }
    seen
}

impl Archive {
    fn add(&mut self, batch: &Batch, piece: &[u8]) {
        for part in batch.carried() {
            let last = self.members.last_mut().expect("a file was begun");
            last.add(part, piece);
        }
        for member in &batch.members {
            let mut seen = SeenMember {
                path: batch.path(member).to_vec(),
                link_end: batch.link_end(member).to_vec(),
                is_hard_link: member.is_hard_link,
                meta: member.meta,
                xattrs: member.xattrs.clone(),
                stored: member.stored,
                data: Vec::new(),
            };
            for part in batch.parts(member) {
                seen.add(part, piece);
            }
            self.members.push(seen);
        }
    }
}

impl SeenMember {
    /// Takes over a part; cutting it out of the piece fails if it lies outside.
    fn add(&mut self, part: &Part, piece: &[u8]) {
        let bytes = part.of(piece);
        match self.data.last_mut() {
            Some((at, data)) if *at + data.len() as u64 == part.offset => {
                data.extend_from_slice(bytes);
            }
            _ => self.data.push((part.offset, bytes.to_vec())),
        }
    }
}
