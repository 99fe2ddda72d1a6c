//! Unpacks some paths of a bundle, reading only the chunks that hold them.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::batch::{Batch, Member};
use super::beneath::show;
use super::codec::Decoder;
use super::dir_ends::DirEnds;
use super::fields::clean_path;
use super::reader::Bundle;
use super::strand::Strand;
use super::unpack::{PIECE_BYTES, Shared, UnpackOptions};
use crate::failure::{Class, Classify};
use crate::progress::Progress;
use crate::refuse;

/// A path that was asked for.
struct Wanted {
    path: Vec<u8>,
    is_found: bool,
}

impl Wanted {
    fn new(path: &[u8]) -> Result<Wanted> {
        let start = path.iter().position(|byte| *byte != b'/');
        let relative = start.map_or(&b"."[..], |start| &path[start..]);
        let path = clean_path(relative)
            .with_context(|| format!("looking for {}", show(path)))
            .class(Class::Refused)?;
        if path.is_empty() {
            refuse!("the whole tree was asked for; unpack without naming a path");
        }
        Ok(Wanted {
            path,
            is_found: false,
        })
    }

    /// Tells whether `path` is the one asked for or below it.
    fn covers(&self, path: &[u8]) -> bool {
        let rest = path.strip_prefix(&self.path[..]);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
    }
}

impl Bundle<'_> {
    /// Unpacks `paths`, and what is below them, beneath the directory
    /// `target`. Directories above them are made, but not described.
    ///
    /// # Errors
    /// Class `Refused` when a path is not in the bundle, or is a further name
    /// of a file that was not asked for. Otherwise like [`Bundle::unpack`].
    pub fn unpack_only(
        mut self,
        paths: &[&[u8]],
        target: &Path,
        options: &UnpackOptions,
        progress: &dyn Progress,
    ) -> Result<()> {
        let mut wanted = Vec::new();
        for path in paths {
            wanted.push(Wanted::new(path)?);
        }
        let chunks = &self.manifest().chunks;
        let holds = |index: &usize| {
            let known = chunks[*index].index.as_ref();
            known.is_none_or(|i| wanted.iter().any(|w| i.names.may_hold(&w.path)))
        };
        let order: Vec<usize> = (0..chunks.len()).filter(holds).collect();
        let bytes = order.iter().map(|index| chunks[*index].size).sum();
        progress.start("unpacking", Some(bytes));

        let shared = Shared::new(target, options, progress);
        let feed = self.feed_of(order)?;
        let mut extractor = shared.extractor()?;
        let mut decoder = Decoder::new(feed.codec(), PIECE_BYTES)?;
        let mut packed = Vec::new();
        let (mut strand, mut ends) = (Strand::default(), DirEnds::default());
        let mut batch = Batch::default();
        let mut expected = 0;
        while let Some((index, chunk)) = feed.next(&mut packed)? {
            let blame = |error| feed.bad_chunk(index, error);
            let mut skip = 0;
            if index != expected {
                check_end(&strand).map_err(|error| feed.bad_chunk(expected - 1, error))?;
                // What the chunks before it began is not wanted.
                strand = Strand::default();
                skip = chunk.index.as_ref().map_or(0, |index| index.first);
            }
            expected = index + 1;
            decoder.begin(chunk.size).map_err(blame)?;
            loop {
                let piece = decoder.next(&packed).map_err(blame)?;
                if piece.is_empty() {
                    break;
                }
                progress.advance(piece.len() as u64);
                let skipped = usize::try_from(skip).map_or(piece.len(), |s| s.min(piece.len()));
                skip -= skipped as u64;
                let piece = &piece[skipped..];
                strand.read(piece, &mut batch).map_err(blame)?;
                batch.keep(|path| {
                    let mut covering = wanted.iter_mut().filter(|w| w.covers(path));
                    let is_covered = covering.next().map(|w| w.is_found = true).is_some();
                    covering.for_each(|w| w.is_found = true);
                    is_covered
                });
                check_links(&batch, &wanted)?;
                strand.write(piece, &batch, &mut extractor, &mut ends)?;
            }
        }
        check_end(&strand).map_err(|error| feed.bad_chunk(expected - 1, error))?;
        drop(extractor);
        if let Some(missing) = wanted.iter().find(|w| !w.is_found) {
            refuse!("{} holds no {}", self.label(), show(&missing.path));
        }
        shared
            .settle(&[ends])
            .with_context(|| format!("unpacking {} to {}", self.label(), target.display()))?;
        progress.finish();
        Ok(())
    }
}

/// Checks that no wanted file goes on in a chunk that is left out.
fn check_end(strand: &Strand) -> Result<()> {
    ensure!(
        strand.spanning.is_none(),
        "its last file goes on in a chunk that does not hold it, as the manifest says"
    );
    Ok(())
}

/// A link to what is not unpacked would fail without saying what to do.
fn check_links(batch: &Batch, wanted: &[Wanted]) -> Result<()> {
    let is_astray = |member: &&Member| {
        let target = batch.target(member);
        member.is_hard_link && !wanted.iter().any(|w| w.covers(target))
    };
    if let Some(member) = batch.members.iter().find(is_astray) {
        refuse!(
            "{} is another name of {}; ask for that too",
            show(batch.path(member)),
            show(batch.target(member))
        );
    }
    Ok(())
}
