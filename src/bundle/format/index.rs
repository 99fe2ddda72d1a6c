//! index.json: which chunk of the payload is where, and what it holds.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::landmarks::Landmarks;
use super::manifest::{Payload, check_version};
use crate::sha::Sha;

/// The largest unpacked chunk accepted.
pub const MAX_CHUNK_BYTES: u64 = 64 << 20;
/// How much larger than its content a packed chunk may be.
const MAX_PACKING_LOSS: u64 = 1 << 20;

const MAX_TEXT_BYTES: usize = 4096;
const MAX_META: usize = 64;

/// The content of index.json.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Index {
    /// What the release is, in its makers' words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// What else they say of it, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub meta: BTreeMap<String, String>,
    /// The payload piece by piece.
    pub chunks: Vec<Chunk>,
}

/// One independently packed piece of the payload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    /// Where it starts in the payload member.
    pub offset: u64,
    /// Its size in the bundle.
    pub packed: u64,
    /// Its size unpacked.
    pub size: u64,
    /// The digest of its packed bytes.
    pub sha256: Sha,
    /// What is in it.
    #[serde(flatten, default, skip_serializing_if = "Option::is_none")]
    pub landmarks: Option<Landmarks>,
}

impl Index {
    /// Renders the member.
    ///
    /// # Errors
    /// When JSON cannot say it, which does not happen.
    pub fn render(&self) -> Result<Vec<u8>> {
        let mut text = serde_json::to_vec(self).context("rendering the index")?;
        text.push(b'\n');
        Ok(text)
    }

    /// Reads the member, whose digest has been compared, and checks everything
    /// it claims about `payload`.
    ///
    /// # Errors
    /// When it is no index or contradicts itself or the manifest.
    pub fn parse(text: &[u8], payload: &Payload) -> Result<Index> {
        let index: Index = serde_json::from_slice(text).context("the index is unreadable")?;
        index.check(payload)?;
        Ok(index)
    }

    fn check(&self, payload: &Payload) -> Result<()> {
        check_words(self.description.as_deref(), &self.meta)?;
        let (mut packed, mut size) = (0_u64, 0_u64);
        for (i, chunk) in self.chunks.iter().enumerate() {
            ensure!(
                chunk.offset == packed,
                "chunk {i} starts at {}, the one before it ends at {packed}",
                chunk.offset
            );
            ensure!(
                (1..=MAX_CHUNK_BYTES).contains(&chunk.size),
                "chunk {i} unpacks to {} bytes, not 1 to {MAX_CHUNK_BYTES}",
                chunk.size
            );
            ensure!(
                (1..=chunk.size + MAX_PACKING_LOSS).contains(&chunk.packed),
                "chunk {i} has {} packed bytes for {} bytes",
                chunk.packed,
                chunk.size
            );
            let first = chunk.landmarks.as_ref().map_or(0, |l| l.first);
            ensure!(
                first <= chunk.size,
                "chunk {i} has its first member at {first} of {} bytes",
                chunk.size
            );
            // Neither sum can overflow: both terms are bounded, and so is their number.
            packed += chunk.packed;
            size += chunk.size;
        }
        ensure!(
            packed == payload.packed_bytes && size == payload.size_bytes,
            "the chunks hold {packed} packed and {size} unpacked bytes, the payload {} and {}",
            payload.packed_bytes,
            payload.size_bytes
        );
        Ok(())
    }
}

/// Refuses words about a release that are too many, or have names that could be
/// taken for something else.
///
/// # Errors
/// When they do.
pub fn check_words(description: Option<&str>, meta: &BTreeMap<String, String>) -> Result<()> {
    ensure!(
        description.unwrap_or_default().len() <= MAX_TEXT_BYTES && meta.len() <= MAX_META,
        "description has more than {MAX_TEXT_BYTES} bytes, or meta more than {MAX_META} names"
    );
    for (name, value) in meta {
        check_version("a name in meta", name)?;
        ensure!(
            value.len() <= MAX_TEXT_BYTES,
            "meta {name} has more than {MAX_TEXT_BYTES} bytes"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::codec::Codec;

    fn sample() -> (Index, Payload) {
        let chunk = |offset, packed, size| Chunk {
            offset,
            packed,
            size,
            sha256: Sha::of(b"x"),
            landmarks: Some(Landmarks::default()),
        };
        let index = Index {
            description: Some("a release".into()),
            meta: BTreeMap::from([("commit".into(), "1a2b".into())]),
            chunks: vec![chunk(0, 10, 1024), chunk(10, 20, 2048)],
        };
        let payload = Payload {
            member: "rootfs.tar.xz".into(),
            codec: Codec::Xz,
            packed_bytes: 30,
            size_bytes: 3072,
        };
        (index, payload)
    }

    #[test]
    fn an_index_is_read_back_and_unknown_fields_are_ignored() {
        let (index, payload) = sample();
        let text = index.render().unwrap();
        assert_eq!(Index::parse(&text, &payload).unwrap(), index);
        let mut newer: serde_json::Value = serde_json::from_slice(&text).unwrap();
        newer["later"] = serde_json::json!([1]);
        newer["chunks"][0]["later"] = serde_json::json!([1]);
        let newer = serde_json::to_vec(&newer).unwrap();
        assert_eq!(Index::parse(&newer, &payload).unwrap(), index);
    }

    #[test]
    fn indexes_that_lie_are_refused_by_name() {
        type Lie = fn(&mut Index, &mut Payload);
        let lies: [(Lie, &str); 10] = [
            (
                |i, _| i.description = Some("x".repeat(MAX_TEXT_BYTES + 1)),
                "description",
            ),
            (
                |i, _| drop(i.meta.insert("a\nb".into(), String::new())),
                "meta",
            ),
            (
                |i, _| i.chunks[1].landmarks.as_mut().unwrap().first = 2049,
                "first member",
            ),
            (|i, _| i.chunks[1].offset = 9, "chunk 1 starts"),
            (|i, _| i.chunks[1].offset = 11, "chunk 1 starts"),
            (|i, _| i.chunks[0].size = 0, "chunk 0 unpacks"),
            (|i, _| i.chunks[0].size = 10_000_000_000, "chunk 0 unpacks"),
            (|i, _| i.chunks[0].packed = u64::MAX, "chunk 0 has"),
            (|_, p| p.packed_bytes = 31, "the payload 31"),
            (|_, p| p.size_bytes = 1, "the payload"),
        ];
        for (lie, word) in lies {
            let (mut index, mut payload) = sample();
            lie(&mut index, &mut payload);
            let text = serde_json::to_vec(&index).unwrap();
            let error = format!("{:#}", Index::parse(&text, &payload).unwrap_err());
            assert!(error.contains(word), "{word}: {error}");
        }
        assert!(Index::parse(b"{}", &sample().1).is_err());
    }
}
