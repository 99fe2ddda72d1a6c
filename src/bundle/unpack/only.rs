//! Unpacks some paths of a bundle, reading only the chunks that hold them.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::dir_ends::DirEnds;
use super::listed::Listed;
use super::place::{Place, UnpackOptions};
use super::shut::Shut;
use super::strand::Strand;
use super::wanted::Wanted;
use crate::archive::batch::{Batch, Member};
use crate::bundle::format::index::Chunk;
use crate::bundle::open::bundle::Bundle;
use crate::bundle::open::feed::Feed;
use crate::bundle::open::pieces::Pieces;
use crate::progress::{Progress, Step};
use crate::refuse;
use crate::tree::path::show;

/// Unpacks `paths` of `bundle`, and what is below them, beneath the directory
/// `target`. Directories above them are made, but not described.
///
/// # Errors
/// Class `Refused` when a path is not in the bundle, or is a further name
/// of a file that was not asked for; `BadBundle` when what is unpacked is not what
/// the list of files says. Otherwise like [`unpack`](super::unpack).
pub fn unpack_only(
    mut bundle: Bundle,
    paths: &[&[u8]],
    target: &Path,
    options: &UnpackOptions,
    progress: &dyn Progress,
) -> Result<()> {
    let mut wanted = Wanted::all(paths)?;
    let chunks = bundle.chunks();
    let order = chunks_of(chunks, &wanted);
    let bytes = order.iter().map(|index| chunks[*index].size).sum();
    progress.start(Step::Unpack, Some(bytes));

    let list = bundle.files()?;
    let read = |member: Vec<u8>| Listed::read(&member, &wanted);
    let mut listed = list
        .map(read)
        .transpose()
        .with_context(|| format!("reading the list of files of {}", bundle.label()))?;
    let shut = Shut::new(target)?;
    let payload_bytes = bundle.manifest().payload.size_bytes;
    let place = Place::new(target, options, payload_bytes, progress);
    let feed = bundle.feed_of(order)?;
    let ends = unpack_wanted(&feed, &mut wanted, listed.as_mut(), &place)?;
    listed.map_or(Ok(()), Listed::finish)?;
    if let Some(missing) = wanted.iter().find(|w| !w.is_found) {
        refuse!("{} holds no {}", bundle.label(), show(&missing.path));
    }
    place
        .settle(&[ends], shut)
        .with_context(|| format!("unpacking {} to {}", bundle.label(), target.display()))?;
    progress.finish();
    Ok(())
}

/// Returns the numbers of the chunks that may hold what is wanted.
fn chunks_of(chunks: &[Chunk], wanted: &[Wanted]) -> Vec<usize> {
    let may_hold = |chunk: &Chunk| {
        let known = chunk.landmarks.as_ref();
        known.is_none_or(|i| wanted.iter().any(|w| i.names.may_hold(&w.path)))
    };
    let chunks = chunks.iter().enumerate();
    chunks
        .filter(|(_, chunk)| may_hold(chunk))
        .map(|(index, _)| index)
        .collect()
}

/// Unpacks what is wanted out of the chunks of `feed`, and marks it as found.
fn unpack_wanted(
    feed: &Feed,
    wanted: &mut [Wanted],
    mut listed: Option<&mut Listed>,
    place: &Place,
) -> Result<DirEnds> {
    let mut extractor = place.extractor()?;
    let mut pieces = Pieces::of(feed)?;
    let (mut strand, mut ends) = (Strand::default(), DirEnds::default());
    let mut batch = Batch::default();
    let mut expected = 0;
    while let Some((index, chunk)) = pieces.next_chunk()? {
        let mut skip = 0;
        if index != expected {
            check_end(&strand).map_err(|error| feed.bad_chunk(expected - 1, error))?;
            // What the chunks before it began is not wanted.
            strand = Strand::default();
            skip = chunk.landmarks.as_ref().map_or(0, |l| l.first);
        }
        expected = index + 1;
        while let Some(piece) = pieces.next_piece()? {
            place.progress.advance(piece.len() as u64);
            let skipped = usize::try_from(skip).map_or(piece.len(), |s| s.min(piece.len()));
            skip -= skipped as u64;
            let piece = &piece[skipped..];
            let read = strand.read(piece, &mut batch);
            read.map_err(|error| feed.bad_chunk(index, error))?;
            batch.keep(|path| Wanted::mark(wanted, path));
            check_links(&batch, wanted)?;
            if let Some(listed) = &mut listed {
                listed.compare(&batch, piece)?;
            }
            strand.write(piece, &batch, &mut extractor, &mut ends)?;
        }
    }
    check_end(&strand).map_err(|error| feed.bad_chunk(expected - 1, error))?;
    Ok(ends)
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
        let link_end = batch.link_end(member);
        member.is_hard_link && !wanted.iter().any(|w| w.covers(link_end))
    };
    if let Some(member) = batch.members.iter().find(is_astray) {
        refuse!(
            "{} is another name of {}; ask for that too",
            show(batch.path(member)),
            show(batch.link_end(member))
        );
    }
    Ok(())
}
