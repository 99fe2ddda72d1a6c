//! Which names a chunk holds, so that one file is found without reading all.
//!
//! The index keeps 18 bits of each name's digest, three letters: a chunk
//! that holds a name always says so, and one in thousands says so wrongly.

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest, Sha256};

const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const WIDTH: usize = 3;

/// What helps to find a member of the tar without unpacking what is before it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Landmarks {
    /// Where in the unpacked chunk the first member begins that begins in it;
    /// the chunk's size if none does.
    pub first: u64,
    /// The names of the members in the chunk and of the directories above them.
    pub names: Names,
}

/// The marks of names, sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names(Vec<u32>);

impl Names {
    /// Adds a path and the directories above it.
    pub fn add(&mut self, path: &[u8]) {
        self.0.extend(marks(path));
    }

    /// Adds the names of `other`.
    pub fn extend(&mut self, other: &Names) {
        self.0.extend(&other.0);
    }

    /// Forgets all names.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Brings the marks into the order in which they are looked up.
    pub fn sort(&mut self) {
        self.0.sort_unstable();
        self.0.dedup();
    }

    /// Tells whether the chunk may hold `path` or something below it.
    pub fn may_hold(&self, path: &[u8]) -> bool {
        self.0.binary_search(&mark(path)).is_ok()
    }

    /// Tells whether the chunk is said to hold `path` and the directories above it.
    pub fn hold(&self, path: &[u8]) -> bool {
        marks(path).all(|mark| self.0.binary_search(&mark).is_ok())
    }

    fn render(&self) -> String {
        let mut text = String::with_capacity(self.0.len() * WIDTH);
        for mark in &self.0 {
            for shift in [12, 6, 0] {
                text.push(char::from(LETTERS[(mark >> shift & 63) as usize]));
            }
        }
        text
    }

    fn parse(text: &str) -> Result<Names> {
        let mut marks: Vec<u32> = Vec::with_capacity(text.len() / WIDTH);
        ensure!(text.len().is_multiple_of(WIDTH), "the names are cut short");
        for letters in text.as_bytes().chunks_exact(WIDTH) {
            let mut mark = 0;
            for letter in letters {
                let value = LETTERS.iter().zip(0_u32..).find(|(l, _)| *l == letter);
                let (_, value) = value.context("the names have a strange letter in them")?;
                mark = mark << 6 | value;
            }
            ensure!(
                marks.last().is_none_or(|last| *last < mark),
                "the names are out of order"
            );
            marks.push(mark);
        }
        Ok(Names(marks))
    }
}

/// Returns the marks of the directories above a path, and last its own.
fn marks(path: &[u8]) -> impl Iterator<Item = u32> {
    let mut hasher = Sha256::new();
    let mut is_first = true;
    path.split(|byte| *byte == b'/').map(move |name| {
        if !std::mem::take(&mut is_first) {
            hasher.update(b"/");
        }
        hasher.update(name);
        let [a, b, c, ..]: [u8; 32] = hasher.clone().finalize().into();
        (u32::from(a) << 16 | u32::from(b) << 8 | u32::from(c)) >> 6
    })
}

fn mark(path: &[u8]) -> u32 {
    marks(path).last().unwrap_or_default()
}

impl Serialize for Names {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.render())
    }
}

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Names, D::Error> {
        let text = String::deserialize(deserializer)?;
        Names::parse(&text).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sha::Sha;

    #[test]
    fn names_are_found_with_the_directories_above_them_and_survive_the_text() {
        let mut names = Names::default();
        for path in ["usr/bin/ls", "usr/bin/cat", "etc"] {
            names.add(path.as_bytes());
        }
        names.sort();
        let text = names.render();
        assert_eq!(text.len(), 5 * WIDTH);
        let read = Names::parse(&text).unwrap();
        assert_eq!(read, names);
        for path in ["usr/bin/ls", "usr/bin", "usr", "etc"] {
            assert!(read.may_hold(path.as_bytes()), "{path}");
        }
        for path in ["usr/bin/l", "bin", "etc/passwd"] {
            assert!(!read.may_hold(path.as_bytes()), "{path}");
            assert!(!read.hold(path.as_bytes()), "{path}");
        }
        assert!(read.hold(b"usr/bin/cat"));
        // It is what every bundle so far says of it.
        assert_eq!(mark(b"usr/bin/ls"), {
            let Sha([a, b, c, ..]) = Sha::of(b"usr/bin/ls");
            (u32::from(a) << 16 | u32::from(b) << 8 | u32::from(c)) >> 6
        });
    }

    #[test]
    fn names_that_nobody_would_write_are_refused() {
        for text in ["AAAA", "AA!", "AABAAA", "AABAAB"] {
            assert!(Names::parse(text).is_err(), "{text}");
        }
    }
}
