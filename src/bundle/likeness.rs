//! Puts programs that share code beside each other, where the packer still
//! remembers one when it comes to the other: a tool and the library of the same
//! project, tools with the same code linked into each of them.
//!
//! Code that was linked from the same objects is the same at addresses that are
//! multiples of 16. So samples of it are compared, a few in a thousand.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result};

use super::beneath::{Dirs, Missing, show, split};
use super::order::Listed;
use super::walk::{OPEN_DIRS, open_file};
use crate::system::signals;

/// Functions begin at multiples of this.
const STEP_BYTES: usize = 16;
const SAMPLE_BYTES: usize = 32;
/// One in so many places is a sample, chosen by what is there.
const SAMPLE_RATE: u64 = 97;
/// Samples of all files together; those beyond are done without.
const MAX_SAMPLES: usize = 1 << 19;
/// Two files are alike from this many common samples on, some 12 KiB of code.
const MIN_COMMON: u32 = 8;
const READ_BYTES: usize = 1 << 20;

/// Compares the files of one tree.
pub(super) struct Likeness {
    dirs: Dirs,
    /// How far back the packer remembers.
    window_bytes: u64,
    buffer: Vec<u8>,
}

impl Likeness {
    /// Compares files below `root` for a packer with a window of `window_bytes`.
    pub(super) fn new(root: &Path, window_bytes: u32) -> Result<Likeness> {
        Ok(Likeness {
            dirs: Dirs::new(root, OPEN_DIRS, Missing::Fail)?,
            window_bytes: window_bytes.into(),
            buffer: Vec::new(),
        })
    }

    /// Moves files to the first one that they share code with.
    pub(super) fn arrange(&mut self, files: &mut Vec<Listed>) -> Result<()> {
        let mut samples = Vec::new();
        let mut groups = Groups::default();
        for (number, (path, _)) in files.iter().enumerate() {
            let size = self
                .sample(path, u32::try_from(number)?, &mut samples)
                .with_context(|| format!("reading {}", show(path)))?;
            groups.add(size);
        }
        self.buffer = Vec::new();
        for (a, b) in alike(samples) {
            groups.join(a, b, self.window_bytes);
        }
        let mut sorted: Vec<(usize, Listed)> = std::mem::take(files)
            .into_iter()
            .enumerate()
            .map(|(number, file)| (groups.first(number), file))
            .collect();
        sorted.sort_by_key(|(first, _)| *first);
        files.extend(sorted.into_iter().map(|(_, file)| file));
        Ok(())
    }

    /// Adds the samples of a file and returns its size.
    fn sample(&mut self, path: &[u8], number: u32, samples: &mut Vec<Sample>) -> Result<u64> {
        let (dir, name) = split(path);
        let dir = self.dirs.get(dir)?;
        let file = open_file(&dir, OsStr::from_bytes(name))?;
        self.buffer.resize(READ_BYTES, 0);
        let mut offset = 0;
        loop {
            signals::check()?;
            let read = file.read_at(&mut self.buffer, offset)?;
            for start in (0..read.saturating_sub(SAMPLE_BYTES - 1)).step_by(STEP_BYTES) {
                let place = &self.buffer[start..start + SAMPLE_BYTES];
                if let Some(hash) = sample_hash(place)
                    && samples.len() < MAX_SAMPLES
                {
                    samples.push(Sample { hash, file: number });
                }
            }
            offset += read as u64;
            if read == 0 {
                return Ok(offset);
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Sample {
    hash: u64,
    file: u32,
}

/// Returns the hash of a place that is a sample: one with more than zeros in it.
fn sample_hash(place: &[u8]) -> Option<u64> {
    let mut hash = 0_u64;
    for word in place.as_chunks::<8>().0 {
        let word = u64::from_le_bytes(*word);
        // The golden ratio's bits, as in Fibonacci hashing (Knuth, TAOCP 6.4).
        hash = (hash.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
    hash ^= hash >> 32;
    let zeros = place.iter().filter(|byte| **byte == 0).count();
    (hash.is_multiple_of(SAMPLE_RATE) && zeros <= SAMPLE_BYTES / 2).then_some(hash)
}

/// Lists the pairs of files that share code, those that share most first.
fn alike(mut samples: Vec<Sample>) -> Vec<(usize, usize)> {
    samples.sort_unstable();
    samples.dedup();
    let mut common: HashMap<(u32, u32), u32> = HashMap::new();
    for pair in samples.windows(2) {
        if pair[0].hash == pair[1].hash {
            *common.entry((pair[0].file, pair[1].file)).or_default() += 1;
        }
    }
    let mut pairs: Vec<_> = common
        .into_iter()
        .filter(|(_, count)| *count >= MIN_COMMON)
        .collect();
    pairs.sort_by_key(|(pair, count)| (std::cmp::Reverse(*count), *pair));
    let number = |file: u32| file as usize;
    pairs
        .into_iter()
        .map(|((a, b), _)| (number(a), number(b)))
        .collect()
}

/// Files that are to stand together: a forest, each group's root its first file.
#[derive(Default)]
struct Groups {
    parents: Vec<usize>,
    sizes: Vec<u64>,
}

impl Groups {
    fn add(&mut self, size: u64) {
        self.parents.push(self.parents.len());
        self.sizes.push(size);
    }

    fn first(&self, mut file: usize) -> usize {
        while self.parents[file] != file {
            file = self.parents[file];
        }
        file
    }

    /// Joins two groups, if the packer remembers as much as both have.
    fn join(&mut self, a: usize, b: usize, limit: u64) {
        let (a, b) = (self.first(a), self.first(b));
        let (first, later) = (a.min(b), a.max(b));
        let size = self.sizes[first] + self.sizes[later];
        if first != later && size <= limit {
            self.parents[later] = first;
            self.sizes[first] = size;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// Bytes that do not repeat.
    fn code(seed: u64, length: usize) -> Vec<u8> {
        let mut state = seed;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        (0..length / 8).flat_map(|_| next().to_le_bytes()).collect()
    }

    #[test]
    fn programs_that_share_code_come_together_as_far_as_the_packer_remembers() {
        let root = tempfile::tempdir().unwrap();
        let shared = code(1, 100_000);
        let program = |seed| [code(seed, 16_000), shared.clone(), code(seed + 1, 4800)].concat();
        for (name, content) in [
            ("alpha", program(10)),
            ("beta", code(20, 80_000)),
            ("libbeta.so", code(30, 80_000)),
            ("libzeta.so", program(40)),
            ("middle", code(50, 80_000)),
            ("omega", program(60)),
        ] {
            fs::write(root.path().join(name), content).unwrap();
        }
        let arranged = |window_bytes| {
            let mut files: Vec<Listed> = fs::read_dir(root.path())
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_encoded_bytes())
                .map(|name| (name, Vec::new()))
                .collect();
            files.sort();
            let mut likeness = Likeness::new(root.path(), window_bytes).unwrap();
            likeness.arrange(&mut files).unwrap();
            let names = files.into_iter().map(|(path, _)| path);
            String::from_utf8(names.collect::<Vec<_>>().join(&b' ')).unwrap()
        };
        assert_eq!(
            arranged(1 << 20),
            "alpha libzeta.so omega beta libbeta.so middle"
        );
        assert_eq!(
            arranged(1000),
            "alpha beta libbeta.so libzeta.so middle omega"
        );
    }
}
