//! From chunk to pieces: each proved genuine, decoded, and blamed by its number.

use anyhow::{Error, Result};

use super::feed::Feed;
use crate::bundle::codec::{Decoder, PIECE_BYTES};
use crate::bundle::format::index::Chunk;
use crate::signals;

/// Decodes the chunks of a feed one after the other, for one thread.
pub struct Pieces<'f, 'b, 'a> {
    feed: &'f Feed<'b, 'a>,
    decoder: Decoder,
    packed: Vec<u8>,
    /// The number of the chunk that is being decoded.
    index: usize,
}

impl<'f, 'b, 'a> Pieces<'f, 'b, 'a> {
    /// Begins with no chunk.
    ///
    /// # Errors
    /// When there is no memory for the decoder.
    pub fn of(feed: &'f Feed<'b, 'a>) -> Result<Pieces<'f, 'b, 'a>> {
        Ok(Pieces {
            feed,
            decoder: Decoder::new(feed.codec(), PIECE_BYTES)?,
            packed: Vec::new(),
            index: 0,
        })
    }

    /// Takes the next chunk from the feed; `None` at the end.
    ///
    /// # Errors
    /// Class `BadBundle` when the chunk is not what the manifest says.
    pub fn next_chunk(&mut self) -> Result<Option<(usize, &'b Chunk)>> {
        let Some((index, chunk)) = self.feed.next(&mut self.packed)? else {
            return Ok(None);
        };
        self.index = index;
        self.decoder
            .begin(chunk.size)
            .map_err(|error| self.blame(error))?;
        Ok(Some((index, chunk)))
    }

    /// Decodes the next piece of the chunk; `None` at its end.
    ///
    /// # Errors
    /// Class `BadBundle` when the chunk does not decode to what the manifest says.
    pub fn next_piece(&mut self) -> Result<Option<&[u8]>> {
        signals::check()?;
        let (feed, index) = (self.feed, self.index);
        let piece = self.decoder.next(&self.packed);
        let piece = piece.map_err(|error| feed.bad_chunk(index, error))?;
        Ok((!piece.is_empty()).then_some(piece))
    }

    /// Returns how many bytes of the chunk are still to come.
    pub fn left(&self) -> u64 {
        self.decoder.left()
    }

    /// Makes the error for the chunk that is being decoded.
    pub fn blame(&self, error: Error) -> Error {
        self.feed.bad_chunk(self.index, error)
    }
}
