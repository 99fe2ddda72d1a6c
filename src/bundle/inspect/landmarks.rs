//! Compares what the index says of each chunk with the members that are in it.

use anyhow::{Result, ensure};

use crate::bundle::format::index::Chunk;
use crate::tree::path::show;

/// How far the chunks have been compared.
#[derive(Default)]
pub struct LandmarkProof {
    /// The number of the chunk that the members have come to.
    number: usize,
    /// Where it begins in the payload.
    start: u64,
    /// A member begins in it.
    is_begun: bool,
    /// The last member.
    path: Vec<u8>,
}

impl LandmarkProof {
    /// Takes the next member, which begins at `begin`.
    ///
    /// # Errors
    /// When the index says that it begins elsewhere, or names it not.
    pub fn begin(&mut self, chunks: &[Chunk], begin: u64, path: &[u8]) -> Result<()> {
        self.pass(chunks, begin, begin)?;
        self.path.clear();
        self.path.extend_from_slice(path);
        if !self.is_begun {
            self.compare_first(chunks, begin - self.start)?;
        }
        self.is_begun = true;
        self.compare_name(chunks)
    }

    /// Ends at the end of the payload; the last member ends at `end`.
    ///
    /// # Errors
    /// Likewise.
    pub fn end(&mut self, chunks: &[Chunk], end: u64) -> Result<()> {
        self.pass(chunks, u64::MAX, end)
    }

    /// Passes the chunks that end at or before `until`; the last member goes on
    /// up to `end`.
    fn pass(&mut self, chunks: &[Chunk], until: u64, end: u64) -> Result<()> {
        while let Some(chunk) = chunks.get(self.number) {
            if self.start + chunk.size > until {
                break;
            }
            if !self.is_begun {
                self.compare_first(chunks, chunk.size)?;
            }
            self.start += chunk.size;
            self.number += 1;
            self.is_begun = false;
            if self.start < end && self.number < chunks.len() {
                self.compare_name(chunks)?;
            }
        }
        Ok(())
    }

    fn compare_first(&self, chunks: &[Chunk], first: u64) -> Result<()> {
        let said = chunks.get(self.number).and_then(|c| c.landmarks.as_ref());
        if let Some(said) = said {
            ensure!(
                said.first == first,
                "the first member of chunk {} begins at {first}, the index says at {}",
                self.number + 1,
                said.first
            );
        }
        Ok(())
    }

    fn compare_name(&self, chunks: &[Chunk]) -> Result<()> {
        let said = chunks.get(self.number).and_then(|c| c.landmarks.as_ref());
        ensure!(
            said.is_none_or(|said| said.names.hold(&self.path)),
            "chunk {} holds {}, which the index does not say",
            self.number + 1,
            show(&self.path)
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::format::landmarks::{Landmarks, Names};
    use crate::sha::Sha;

    /// Chunks of 1000 bytes: in the first begin `a` and `b/c`, which goes on
    /// through the second and into the third, which only the end follows.
    fn chunks() -> Vec<Chunk> {
        let said = [
            (0, &["a", "b/c"][..]),
            (1000, &["b/c"]),
            (1000, &["b/c"]),
            (1000, &[]),
        ];
        said.iter()
            .map(|(first, paths)| {
                let mut names = Names::default();
                paths.iter().for_each(|path| names.add(path.as_bytes()));
                names.sort();
                Chunk {
                    offset: 0,
                    packed: 1,
                    size: 1000,
                    sha256: Sha::of(b""),
                    landmarks: Some(Landmarks {
                        first: *first,
                        names,
                    }),
                }
            })
            .collect()
    }

    fn prove(chunks: &[Chunk]) -> Result<()> {
        let mut proof = LandmarkProof::default();
        proof.begin(chunks, 0, b"a")?;
        proof.begin(chunks, 512, b"b/c")?;
        proof.end(chunks, 2560)
    }

    #[test]
    fn what_the_index_says_of_chunks_is_compared() {
        prove(&chunks()).unwrap();
        for number in 0..4 {
            let mut lying = chunks();
            lying[number].landmarks.as_mut().unwrap().first = 7;
            let error = prove(&lying).unwrap_err().to_string();
            assert!(error.contains(&format!("chunk {}", number + 1)), "{error}");
        }
        for number in 0..3 {
            let mut lying = chunks();
            lying[number].landmarks.as_mut().unwrap().names = Names::default();
            let error = prove(&lying).unwrap_err().to_string();
            assert!(error.contains("the index does not say"), "{error}");
            lying[number].landmarks = None;
            prove(&lying).unwrap();
        }
    }
}
