//! The SHA-256 of a file's content, as sha256sum(1) prints it.

use sha2::{Digest, Sha256};

use crate::sha::Sha;

/// The holes of a file that are worth reading as zeros.
const MAX_HOLE_BYTES: u64 = 1 << 30;
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// Digests a file whose data go by in stretches; what is between them is zeros.
pub struct ContentHasher {
    hasher: Sha256,
    at: u64,
    size_bytes: u64,
    hole_bytes: u64,
}

impl ContentHasher {
    /// Begins a file of `size_bytes`.
    pub fn new(size_bytes: u64) -> ContentHasher {
        ContentHasher {
            hasher: Sha256::new(),
            at: 0,
            size_bytes,
            hole_bytes: 0,
        }
    }

    /// Takes in the data that begin at `offset`, which never goes back.
    pub fn data(&mut self, offset: u64, data: &[u8]) {
        self.hole(offset.saturating_sub(self.at));
        self.hasher.update(data);
        self.at = offset + data.len() as u64;
    }

    /// Returns the digest; `None` for a file that is more hole than is worth reading.
    pub fn finish(mut self) -> Option<Sha> {
        self.hole(self.size_bytes.saturating_sub(self.at));
        (self.hole_bytes <= MAX_HOLE_BYTES).then(|| Sha(self.hasher.finalize().into()))
    }

    fn hole(&mut self, length: u64) {
        self.hole_bytes = self.hole_bytes.saturating_add(length);
        if self.hole_bytes > MAX_HOLE_BYTES {
            return;
        }
        let mut left = length;
        while left > 0 {
            let step = usize::try_from(left).map_or(ZEROS.len(), |l| l.min(ZEROS.len()));
            self.hasher.update(&ZEROS[..step]);
            left -= step as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_count_as_zeros_up_to_what_is_worth_reading() {
        let mut whole = ContentHasher::new(200_000);
        whole.data(0, b"ab");
        whole.data(100_000, b"c");
        let mut bytes = vec![0; 200_000];
        bytes[..2].copy_from_slice(b"ab");
        bytes[100_000] = b'c';
        assert_eq!(whole.finish(), Some(Sha::of(&bytes)));
        assert_eq!(ContentHasher::new(0).finish(), Some(Sha::of(b"")));
        assert_eq!(ContentHasher::new(5 << 40).finish(), None);
    }
}
