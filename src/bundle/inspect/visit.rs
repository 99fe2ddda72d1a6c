//! Reads a payload member by member and writes nothing.
//!
//! Each chunk is proved genuine before it is decoded, as in unpacking. Memory
//! does not grow with the tree; what a [`Visitor`] keeps is its own affair.

use std::collections::HashSet;

use anyhow::{Context, Result, ensure};

use crate::archive::batch::Batch;
use crate::archive::parse::Parser;
use crate::bundle::format::index::Chunk;
use crate::bundle::open::bundle::Bundle;
use crate::bundle::open::pieces::Pieces;
use crate::failure::{Class, Classify};
use crate::progress::{Progress, Step};
use crate::tree::acl;
use crate::tree::meta::{Kind, Meta};
use crate::tree::xattrs::Xattr;

/// A name in the tree, as it goes by.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// Where it is, relative to the root; empty is the root.
    pub path: &'a [u8],
    /// Where a symbolic link points, or the path of a hard link's file.
    pub link_end: &'a [u8],
    /// It is a further name of a file that came before it.
    pub is_hard_link: bool,
    /// What is kept of the inode; of a hard link only what the archive repeats.
    pub meta: &'a Meta,
    /// The extended attributes.
    pub xattrs: &'a [Xattr],
}

/// What a name that is held takes besides its bytes, roughly.
pub const NAME_OVERHEAD: usize = 128;

/// Sees the names of a tree and the data of its files go by.
pub trait Visitor {
    /// Takes the next name. Directories may come after what is in them.
    ///
    /// # Errors
    /// Whatever should end the reading.
    fn entry(&mut self, entry: &Entry) -> Result<()>;

    /// Takes data that begin at `offset` of the file that came last; what is
    /// between stretches, and after the last one, is a hole.
    ///
    /// # Errors
    /// Whatever should end the reading.
    fn data(&mut self, offset: u64, data: &[u8]) -> Result<()>;

    /// Takes where the next member begins in the payload, which is in `chunks`; one
    /// that comes twice is not an [`entry`](Visitor::entry) again.
    ///
    /// # Errors
    /// Whatever should end the reading.
    fn begins(&mut self, _chunks: &[Chunk], _begin: u64, _path: &[u8]) -> Result<()> {
        Ok(())
    }

    /// Takes where the last member ends.
    ///
    /// # Errors
    /// Whatever should end the reading.
    fn ends(&mut self, _chunks: &[Chunk], _end: u64) -> Result<()> {
        Ok(())
    }
}

/// Decodes the whole payload and shows every name in it to `visitor`, in
/// the order of the bundle and each name once.
///
/// # Errors
/// What `visitor` says. Class [`BadBundle`](crate::failure::Class::BadBundle)
/// when the bundle is damaged or its payload is not an archive.
pub fn visit(
    bundle: &mut Bundle,
    visitor: &mut dyn Visitor,
    progress: &dyn Progress,
) -> Result<()> {
    let step = Step::Read(bundle.label().to_owned());
    progress.start(step, Some(bundle.manifest().payload.size_bytes));
    let count = bundle.chunks().len();
    let feed = bundle.feed();
    let mut pieces = Pieces::of(&feed)?;
    let mut parser = Parser::default();
    let mut batch = Batch::default();
    let mut repeated = Repeated::default();
    while let Some((index, _)) = pieces.next_chunk()? {
        while let Some(piece) = pieces.next_piece()? {
            let parsed = parser.parse(piece, &mut batch);
            parsed.map_err(|error| feed.bad_chunk(index, error))?;
            show(&batch, piece, feed.chunks(), &mut repeated, visitor)?;
            progress.advance(piece.len() as u64);
        }
    }
    let members_end = parser.members_end();
    let ended = parser.finish();
    ended.map_err(|error| feed.bad_chunk(count.saturating_sub(1), error))?;
    visitor.ends(feed.chunks(), members_end)?;
    bundle.check_end()?;
    progress.finish();
    Ok(())
}

fn show(
    batch: &Batch,
    piece: &[u8],
    chunks: &[Chunk],
    repeated: &mut Repeated,
    visitor: &mut dyn Visitor,
) -> Result<()> {
    for part in batch.carried() {
        visitor.data(part.offset, part.of(piece))?;
    }
    for member in &batch.members {
        let entry = Entry {
            path: batch.path(member),
            link_end: batch.link_end(member),
            is_hard_link: member.is_hard_link,
            meta: &member.meta,
            xattrs: &member.xattrs,
        };
        visitor.begins(chunks, member.begin, entry.path)?;
        if repeated
            .has_come(&entry)
            .class(Class::BadBundle)
            .context("looking for what comes twice")?
        {
            continue;
        }
        visitor.entry(&entry)?;
        for part in batch.parts(member) {
            visitor.data(part.offset, part.of(piece))?;
        }
    }
    Ok(())
}

/// The most that the names of directories with a default ACL may take.
const MAX_REPEATED_BYTES: usize = 64 << 20;

/// The directories that a bundle holds twice: those with a default ACL.
#[derive(Default)]
struct Repeated {
    paths: HashSet<Vec<u8>>,
    bytes: usize,
}

impl Repeated {
    fn has_come(&mut self, entry: &Entry) -> Result<bool> {
        let may_repeat =
            entry.meta.kind == Kind::Dir && entry.xattrs.iter().any(|x| x.name == acl::DEFAULT);
        if !may_repeat {
            return Ok(false);
        }
        if self.paths.contains(entry.path) {
            return Ok(true);
        }
        self.bytes += NAME_OVERHEAD + entry.path.len();
        ensure!(
            self.bytes <= MAX_REPEATED_BYTES,
            "the names of directories with a default ACL take more than {MAX_REPEATED_BYTES} bytes"
        );
        self.paths.insert(entry.path.to_vec());
        Ok(false)
    }
}
