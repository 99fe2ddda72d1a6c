//! Unpacks a tar that is no bundle, with the same care.

use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result};

use super::dir_ends::DirEnds;
use super::place::{Place, UnpackOptions};
use super::shut::Shut;
use super::strand::Strand;
use crate::archive::batch::Batch;
use crate::failure::{Class, Classify};
use crate::progress::Progress;
use crate::signals;

/// How much is read at a time.
const PIECE_BYTES: usize = 1 << 20;

/// Unpacks the pax tar of `size_bytes` that `archive` reads beneath the empty directory `target`;
/// one thread does it. Ends with the data on disk.
///
/// # Errors
/// When something cannot be read or written. Class [`Class::BadBundle`] when the
/// archive is damaged or hostile.
pub fn unpack_tar(
    mut archive: impl Read,
    size_bytes: u64,
    target: &Path,
    options: &UnpackOptions,
    progress: &dyn Progress,
) -> Result<()> {
    let shut = Shut::new(target)?;
    let place = Place::new(target, options, size_bytes, progress);
    let mut extractor = place.extractor()?;
    let (mut strand, mut batch) = (Strand::default(), Batch::default());
    let mut ends = DirEnds::default();
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        signals::check()?;
        let read = archive.read(&mut piece).context("reading the archive")?;
        if read == 0 {
            break;
        }
        strand.read(&piece[..read], &mut batch)?;
        strand.write(&piece[..read], &batch, &mut extractor, &mut ends)?;
    }
    strand.parser.finish().class(Class::BadBundle)?;
    drop(extractor);
    place.settle(&[ends], shut)
}
