//! SHA-256 digests (FIPS 180-4): of bytes, of files, as text.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest as _, Sha256};

const READ_BYTES: usize = 1 << 20;

/// A SHA-256 digest, printed as 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sha(pub [u8; 32]);

impl Sha {
    /// Digests `bytes`.
    pub fn of(bytes: &[u8]) -> Sha {
        Sha(Sha256::digest(bytes).into())
    }

    /// Digests the file at `path`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn of_file(path: &Path) -> Result<Sha> {
        let read = || Sha::of_reader(File::open(path)?, &|_| Ok(()));
        read().with_context(|| format!("reading {}", path.display()))
    }

    /// Digests all that `reader` gives; `advance` is told after each piece how many
    /// bytes it had, and may end it.
    ///
    /// # Errors
    /// When it cannot be read, and those of `advance`.
    pub fn of_reader(mut reader: impl Read, advance: &dyn Fn(u64) -> Result<()>) -> Result<Sha> {
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; READ_BYTES];
        loop {
            match reader.read(&mut buffer)? {
                0 => return Ok(Sha(hasher.finalize().into())),
                n => {
                    hasher.update(&buffer[..n]);
                    advance(n as u64)?;
                }
            }
        }
    }
}

impl fmt::Display for Sha {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Sha {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Sha {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Sha> {
        let legal = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        ensure!(
            text.len() == 64 && text.bytes().all(legal),
            "{text:.70?} is not a SHA-256 digest of 64 hex digits"
        );
        let mut digest = [0; 32];
        for (i, byte) in digest.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16)?;
        }
        Ok(Sha(digest))
    }
}

impl Serialize for Sha {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Sha {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Sha, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}
