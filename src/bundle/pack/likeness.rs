//! Puts files that share content beside each other, where the packer still
//! remembers one when it comes to the other: a tool and the library of the same
//! project, tools with the same code linked into each of them, a database and
//! the text it was made from.
//!
//! Samples of the content are compared, a few in a thousand.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result};

use crate::signals;
use crate::tree::dirs::{Dirs, Missing};
use crate::tree::path::{show, split};
use crate::tree::walk::{OPEN_DIRS, open_file};

const SAMPLE_BYTES: usize = 32;
/// One in so many places is a sample at first, chosen by what is there.
const SAMPLE_RATE: u64 = 97;
/// Samples of all files together, in 16 MiB.
const MAX_SAMPLES: usize = 1 << 20;
/// Two files are alike from this many common samples on, some 12 KiB of
/// code or 1 KiB of text.
const MIN_COMMON: u32 = 8;
const READ_BYTES: usize = 1 << 20;

/// A path, and for a further name of a file the first one.
pub type Listed = (Vec<u8>, Vec<u8>);

/// Where in files samples may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Places {
    /// Anywhere.
    All,
    /// Where functions may begin: code linked from the same objects is the same
    /// at addresses that are multiples of 16.
    Functions,
}

impl Places {
    fn step_bytes(self) -> usize {
        match self {
            Places::All => 1,
            Places::Functions => 16,
        }
    }
}

/// Compares the files of one tree.
pub struct Likeness {
    dirs: Dirs,
    /// How far back the packer remembers.
    window_bytes: u64,
    buffer: Vec<u8>,
}

impl Likeness {
    /// Compares files below `root` for a packer with a window of `window_bytes`.
    pub fn new(root: &Path, window_bytes: u32) -> Result<Likeness> {
        Ok(Likeness {
            dirs: Dirs::new(root, OPEN_DIRS, Missing::Fail)?,
            window_bytes: window_bytes.into(),
            buffer: Vec::new(),
        })
    }

    /// Moves files to the first one that they share content with.
    pub fn arrange(&mut self, files: &mut Vec<Listed>, places: Places) -> Result<()> {
        let mut samples = Samples::new(MAX_SAMPLES);
        let mut groups = Groups::default();
        for (number, (path, _)) in files.iter().enumerate() {
            let size = self
                .sample(path, places, u32::try_from(number)?, &mut samples)
                .with_context(|| format!("reading {}", show(path)))?;
            groups.add(size);
        }
        self.buffer = Vec::new();
        for (a, b) in alike(samples.list) {
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

    /// Adds the samples of a file, unless it is too large to join another, and
    /// returns its size.
    fn sample(
        &mut self,
        path: &[u8],
        places: Places,
        number: u32,
        samples: &mut Samples,
    ) -> Result<u64> {
        let (dir, name) = split(path);
        let dir = self.dirs.get(dir)?;
        let file = open_file(&dir, OsStr::from_bytes(name))?;
        let size = file.metadata()?.len();
        if size > self.window_bytes {
            return Ok(size);
        }
        self.buffer.resize(READ_BYTES, 0);
        let mut offset = 0;
        loop {
            signals::check()?;
            let read = file.read_at(&mut self.buffer, offset)?;
            for place in self.buffer[..read]
                .windows(SAMPLE_BYTES)
                .step_by(places.step_bytes())
            {
                samples.offer(place, number);
            }
            offset += read as u64;
            if read == 0 {
                return Ok(size);
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Sample {
    hash: u64,
    file: u32,
}

/// Which places are samples is decided by their hash, so that equal ones are
/// samples in all files or in none.
struct Samples {
    list: Vec<Sample>,
    rate: u64,
    /// One more, and every other is dropped.
    max: usize,
}

impl Samples {
    fn new(max: usize) -> Samples {
        Samples {
            list: Vec::new(),
            rate: SAMPLE_RATE,
            max,
        }
    }

    fn offer(&mut self, place: &[u8], file: u32) {
        let hash = hash(place);
        if !hash.is_multiple_of(self.rate) || is_mostly_zeros(place) {
            return;
        }
        self.list.push(Sample { hash, file });
        if self.list.len() > self.max {
            self.rate *= 2;
            self.list
                .retain(|sample| sample.hash.is_multiple_of(self.rate));
        }
    }
}

fn hash(place: &[u8]) -> u64 {
    let mut hash = 0_u64;
    for word in place.as_chunks::<8>().0 {
        let word = u64::from_le_bytes(*word);
        // The golden ratio's bits, as in Fibonacci hashing (Knuth, TAOCP 6.4).
        hash = (hash.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
    hash ^ (hash >> 32)
}

fn is_mostly_zeros(place: &[u8]) -> bool {
    place.iter().filter(|byte| **byte == 0).count() > place.len() / 2
}

/// Lists the pairs of files that share content, those that share most first.
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

    /// Writes `files` and returns their names in the order they are arranged in.
    fn arranged(files: &[(&str, Vec<u8>)], places: Places, window_bytes: u32) -> String {
        let root = tempfile::tempdir().unwrap();
        for (name, content) in files {
            fs::write(root.path().join(name), content).unwrap();
        }
        let mut listed: Vec<Listed> = files
            .iter()
            .map(|(name, _)| (name.as_bytes().to_vec(), Vec::new()))
            .collect();
        let mut likeness = Likeness::new(root.path(), window_bytes).unwrap();
        likeness.arrange(&mut listed, places).unwrap();
        let names = listed.into_iter().map(|(path, _)| path);
        String::from_utf8(names.collect::<Vec<_>>().join(&b' ')).unwrap()
    }

    #[test]
    fn programs_that_share_code_come_together_as_far_as_the_packer_remembers() {
        let shared = code(1, 100_000);
        let program = |seed| [code(seed, 16_000), shared.clone(), code(seed + 1, 4800)].concat();
        let files = [
            ("alpha", program(10)),
            ("beta", code(20, 80_000)),
            ("libbeta.so", code(30, 80_000)),
            ("libzeta.so", program(40)),
            ("middle", code(50, 80_000)),
            ("omega", program(60)),
        ];
        assert_eq!(
            arranged(&files, Places::Functions, 1 << 20),
            "alpha libzeta.so omega beta libbeta.so middle"
        );
        assert_eq!(
            arranged(&files, Places::Functions, 1000),
            "alpha beta libbeta.so libzeta.so middle omega"
        );
    }

    #[test]
    fn text_is_found_again_wherever_it_stands() {
        let text = code(1, 20_000);
        let files = [
            ("db.bin", [code(2, 8), text.clone()].concat()),
            ("other.c", code(3, 20_000)),
            ("source.txt", [&b"odd"[..], &text, b"!"].concat()),
        ];
        assert_eq!(
            arranged(&files, Places::All, 1 << 20),
            "db.bin source.txt other.c"
        );
        assert_eq!(
            arranged(&files, Places::Functions, 1 << 20),
            "db.bin other.c source.txt"
        );
    }

    #[test]
    fn too_many_samples_become_fewer_but_stay_comparable() {
        let content = code(1, 200_000);
        let mut samples = Samples::new(1000);
        for (number, part) in [(0, &content[..]), (1, &content[100_000..])] {
            for place in part.windows(SAMPLE_BYTES) {
                samples.offer(place, number);
            }
        }
        assert!(samples.rate > SAMPLE_RATE && samples.list.len() <= 1000);
        assert_eq!(alike(samples.list), [(0, 1)]);
    }
}
