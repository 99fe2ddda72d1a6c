//! Members of an archive in the order they stand in it: their headers are
//! read piece by piece, and what each piece holds is put on disk.

use std::sync::Arc;

use anyhow::Result;

use super::dir_ends::DirEnds;
use super::extract::{Extractor, Spanning};
use crate::archive::batch::Batch;
use crate::archive::parse::Parser;
use crate::failure::{Class, Classify};
use crate::signals;
use crate::tree::meta::Kind;

/// A place in the archive, and the file that goes on there.
#[derive(Default)]
pub struct Strand {
    pub parser: Parser,
    pub spanning: Option<Arc<Spanning>>,
}

impl Strand {
    /// Reads the headers of a piece into `batch`.
    pub fn read(&mut self, piece: &[u8], batch: &mut Batch) -> Result<()> {
        self.parser.parse(piece, batch).class(Class::BadBundle)
    }

    /// Returns the strand as it will be `bytes` further on, if a file fills
    /// them all and goes on.
    pub fn after_data(&self, bytes: u64) -> Option<Strand> {
        Some(Strand {
            parser: self.parser.after_data(bytes)?,
            spanning: self.spanning.clone(),
        })
    }

    /// Puts on disk what `batch` has read in `piece`.
    pub fn write(
        &mut self,
        piece: &[u8],
        batch: &Batch,
        extractor: &mut Extractor,
        ends: &mut DirEnds,
    ) -> Result<()> {
        if let Some(spanning) = &self.spanning {
            extractor.write_spanning(spanning, batch.carried(), piece)?;
        }
        let goes_on = batch.is_unfinished && !batch.members.is_empty();
        let whole = batch.members.len() - usize::from(goes_on);
        for member in &batch.members[..whole] {
            signals::check()?;
            match member.meta.kind {
                Kind::Dir => extractor.make_dir(batch.path(member), member, ends)?,
                _ => extractor.make(batch, member, piece)?,
            }
        }
        match batch.members.last() {
            Some(member) if goes_on => {
                let spanning = Arc::new(extractor.begin_spanning(batch, member)?);
                extractor.write_spanning(&spanning, batch.parts(member), piece)?;
                self.spanning = Some(spanning);
            }
            // The file from before fills the whole piece.
            None if batch.is_unfinished => {}
            _ => self.spanning = None,
        }
        Ok(())
    }
}
