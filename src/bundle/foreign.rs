//! Unpacks what others have packed.

use std::io::{ErrorKind, Read};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use xz2::stream::{Action, CONCATENATED, Status, Stream};

use super::batch::Batch;
use super::dir_ends::DirEnds;
use super::strand::Strand;
use super::unpack::{PIECE_BYTES, Shared, UnpackOptions};
use crate::failure::{Class, Classify};
use crate::progress::Progress;
use crate::system::signals;

const DECODER_BYTES: u64 = 256 << 20;

/// Unpacks a `.tar.xz` made by any of the usual tars beneath `target`.
///
/// # Errors
/// When something cannot be read or written. Class [`Class::BadBundle`] when
/// the archive is damaged or hostile.
pub fn unpack_tar_xz(
    mut input: impl Read,
    target: &Path,
    options: &UnpackOptions,
    progress: &dyn Progress,
) -> Result<()> {
    let shared = Shared::new(target, options, progress);
    let mut extractor = shared.extractor()?;
    let (mut strand, mut ends) = (Strand::default(), DirEnds::default());
    let mut batch = Batch::default();
    let mut stream = Stream::new_stream_decoder(DECODER_BYTES, CONCATENATED)?;
    let mut packed = vec![0; PIECE_BYTES];
    let mut piece = Vec::with_capacity(PIECE_BYTES);
    let (mut start, mut end) = (0, 0);
    loop {
        signals::check()?;
        if start == end {
            start = 0;
            end = read_some(&mut input, &mut packed)?;
        }
        let action = if end == 0 {
            Action::Finish
        } else {
            Action::Run
        };
        let before = stream.total_in();
        let status = stream
            .process_vec(&packed[start..end], &mut piece, action)
            .context("decoding the archive")
            .class(Class::BadBundle)?;
        start += usize::try_from(stream.total_in() - before)?;
        let is_stuck = end == 0 && piece.is_empty() && status != Status::StreamEnd;
        ensure!(!is_stuck, "the archive ends inside its xz stream");
        strand.read(&piece, &mut batch)?;
        strand.write(&piece, &batch, &mut extractor, &mut ends)?;
        piece.clear();
        if status == Status::StreamEnd {
            break;
        }
    }
    drop(extractor);
    strand.parser.finish().class(Class::BadBundle)?;
    shared.settle(&[ends])
}

fn read_some(input: &mut impl Read, buffer: &mut [u8]) -> Result<usize> {
    loop {
        match input.read(buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            other => return other.context("reading the archive"),
        }
    }
}
