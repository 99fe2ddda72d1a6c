//! The digest of a file whose data go by in stretches.

use super::digest::InodeHasher;
use super::meta::Meta;
use super::xattrs::Xattr;
use crate::sha::Sha;

/// Digests a file; what is between the stretches counts as zeros.
pub struct FileHasher {
    hasher: InodeHasher,
    at: u64,
    size_bytes: u64,
}

impl FileHasher {
    /// Begins a file with all that makes up its inode.
    pub fn of_inode(meta: &Meta, xattrs: &[Xattr]) -> FileHasher {
        FileHasher {
            hasher: InodeHasher::new(meta, xattrs, b""),
            at: 0,
            size_bytes: meta.size_bytes,
        }
    }

    /// Begins a file of which only size and data count.
    pub fn of_content(size_bytes: u64) -> FileHasher {
        let meta = Meta {
            size_bytes,
            ..Meta::default()
        };
        FileHasher::of_inode(&meta, &[])
    }

    /// Takes in the data that begin at `offset`; the parser has checked that
    /// stretches neither overlap nor go back.
    pub fn data(&mut self, offset: u64, data: &[u8]) {
        self.hasher.hole(offset.saturating_sub(self.at));
        self.hasher.data(data);
        self.at = offset + data.len() as u64;
    }

    /// Returns the digest.
    pub fn finish(mut self) -> Sha {
        self.hasher.hole(self.size_bytes.saturating_sub(self.at));
        self.hasher.finish()
    }
}
