//! What the parser hands on: the members of one piece of an
//! archive, in buffers that are used again for the next piece.

use std::ops::Range;

use crate::tree::meta::Meta;
use crate::tree::xattrs::Xattr;

/// What one piece of the stream held.
#[derive(Debug, Default)]
pub struct Batch {
    /// Paths and ends of links, one after the other.
    names: Vec<u8>,
    pub parts: Vec<Part>,
    pub members: Vec<Member>,
    /// Parts of the file that an earlier piece began.
    carried: Range<usize>,
    /// The last file goes on in the next piece.
    pub is_unfinished: bool,
}

/// A stretch of the piece that belongs into a file.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// Where it goes in the file.
    pub offset: u64,
    pub start: usize,
    pub length: usize,
}

impl Part {
    /// Cuts the part out of its piece.
    pub fn of<'a>(&self, piece: &'a [u8]) -> &'a [u8] {
        &piece[self.start..self.start + self.length]
    }
}

/// One member of the archive.
#[derive(Debug)]
pub struct Member {
    /// Where its first header begins, in what the parser has read.
    pub begin: u64,
    pub path: Range<usize>,
    pub link_end: Range<usize>,
    pub is_hard_link: bool,
    pub meta: Meta,
    pub xattrs: Vec<Xattr>,
    /// Bytes of file data in the archive.
    pub stored: u64,
    pub parts: Range<usize>,
}

impl Member {
    /// Tells whether the file has holes.
    pub fn is_sparse(&self) -> bool {
        self.stored != self.meta.size_bytes
    }
}

impl Batch {
    /// Returns a member's path, checked and relative; empty is the root.
    pub fn path(&self, member: &Member) -> &[u8] {
        &self.names[member.path.clone()]
    }

    /// Returns where a symlink points, or the checked path of a hard link's file.
    pub fn link_end(&self, member: &Member) -> &[u8] {
        &self.names[member.link_end.clone()]
    }

    /// Returns the parts of a member's data that this piece holds.
    pub fn parts(&self, member: &Member) -> &[Part] {
        &self.parts[member.parts.clone()]
    }

    /// Returns the parts of the file that an earlier piece began.
    pub fn carried(&self) -> &[Part] {
        &self.parts[self.carried.clone()]
    }

    /// Drops the members whose paths are not wanted.
    pub fn keep(&mut self, mut is_wanted: impl FnMut(&[u8]) -> bool) {
        let names = &self.names;
        let mut is_last_wanted = true;
        self.members.retain(|member| {
            is_last_wanted = is_wanted(&names[member.path.clone()]);
            is_last_wanted
        });
        self.is_unfinished &= is_last_wanted;
    }

    /// Empties the batch for the next piece.
    pub fn clear(&mut self) {
        self.names.clear();
        self.parts.clear();
        self.members.clear();
        self.carried = 0..0;
        self.is_unfinished = false;
    }

    /// Keeps a name and returns where.
    pub fn add_name(&mut self, name: &[u8]) -> Range<usize> {
        let start = self.names.len();
        self.names.extend_from_slice(name);
        start..self.names.len()
    }

    /// Gives the parts so far to the file they belong to.
    pub fn end_parts(&mut self, is_carried: bool) {
        let end = self.parts.len();
        match self.members.last_mut() {
            Some(member) if !is_carried => member.parts.end = end,
            _ => self.carried.end = end,
        }
    }
}
