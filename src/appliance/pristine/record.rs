//! The record of what a system was delivered with, kept inside it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use md5::{Digest, Md5};

use crate::bundle::FilesReader;
use crate::paths::PRISTINE_DIR;
use crate::sha::Sha;
use crate::system::{Cmd, System, files};
use crate::tree::resolve;
use crate::tree::walk::walk;

/// The bundle's list of files, within [`PRISTINE_DIR`].
const LIST: &str = "files.jsonl.xz";
/// The copy of the image's `/etc`, likewise.
pub(super) const ETC: &str = "etc";
/// The time of the first change in the tree, likewise.
const FIRST: &str = "first";
/// The largest file whose content is of use in a comparison of texts.
const MAX_CONTENT_BYTES: u64 = 1 << 20;

/// What is known of the content of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sum {
    Sha(Sha),
    Md5([u8; 16]),
}

impl Sum {
    pub fn is_of(self, path: &Path) -> Result<bool> {
        match self {
            Sum::Sha(sha) => Ok(Sha::of_file(path)? == sha),
            Sum::Md5(md5) => {
                let mut file = fs::File::open(path)?;
                let mut hasher = Md5::new();
                let mut buffer = vec![0; 64 << 10];
                loop {
                    let read = file.read(&mut buffer);
                    match read.with_context(|| format!("reading {}", path.display()))? {
                        0 => return Ok(<[u8; 16]>::from(hasher.finalize()) == md5),
                        n => hasher.update(&buffer[..n]),
                    }
                }
            }
        }
    }
}

/// One name that was delivered; what nobody told is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delivered {
    pub kind: Option<String>,
    pub mode: Option<u32>,
    pub owner: Option<(u32, u32)>,
    pub size_bytes: Option<u64>,
    pub link_end: Option<Vec<u8>>,
    pub sum: Option<Sum>,
}

/// What a system was delivered with; nothing, by default.
#[derive(Default)]
pub struct Pristine {
    /// By path, relative to the root.
    pub list: BTreeMap<Vec<u8>, Delivered>,
    /// The copy of `/etc`, which tells more than the list.
    pub etc: Option<PathBuf>,
    /// When it was written: an inode that was last changed then is as delivered.
    pub written: Option<Written>,
}

/// When the first and the last inode of a tree was written, by what the kernel
/// noted: seconds since 1970 and nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    pub first: (i64, i64),
    pub last: (i64, i64),
}

impl Written {
    /// The longest that counts, in seconds: a clock that was set in between says
    /// nothing of a later change.
    const LONGEST: i64 = 24 * 60 * 60;

    /// Returns the time between both; `None` where the clock was set in it.
    fn between(first: (i64, i64), last: (i64, i64)) -> Option<Written> {
        let is_sound = first < last && last.0.saturating_sub(first.0) <= Written::LONGEST;
        is_sound.then_some(Written { first, last })
    }

    /// Tells whether what was last changed at `time` was not changed afterwards.
    /// A later change is outside, whatever the clock said by then.
    pub fn has(&self, time: (i64, i64)) -> bool {
        self.first <= time && time < self.last
    }
}

/// Keeps, in the tree at `root`, what it was unpacked from: `list` is the bundle's
/// list of files, packed, and `/etc` is still the image's own.
///
/// # Errors
/// When it cannot be written, or is not what was copied.
pub fn keep(sys: &dyn System, root: &Path, list: Option<&[u8]>) -> Result<()> {
    let dir = resolve::place(root, Path::new(PRISTINE_DIR))?;
    files::remove_tree(&dir)?;
    if let Some(parent) = dir.parent() {
        fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
    }
    fs::DirBuilder::new()
        .mode(0o700)
        .create(&dir)
        .with_context(|| format!("making {}", dir.display()))?;
    let etc = resolve::place(root, Path::new("/etc"))?;
    let mut content = etc.clone().into_os_string();
    content.push("/.");
    let copy = Cmd::new("cp").args(["-a", "--"]).arg(content);
    let to = dir.join(ETC);
    fs::create_dir(&to).with_context(|| format!("making {}", to.display()))?;
    sys.run(&copy.arg(&to))
        .context("keeping the image's own settings")?;
    let (from, there) = (files::digests(&etc)?, files::digests(&to)?);
    ensure!(from == there, "{} is not what was copied", to.display());
    let (seconds, nanoseconds) = first_change(root)?;
    let text = format!("{seconds} {nanoseconds}\n");
    files::write_atomic(&dir.join(FIRST), text.as_bytes(), 0o600)?;
    // Written last: its own time is that after which changes count.
    files::write_atomic(&dir.join(LIST), list.unwrap_or_default(), 0o600)
}

/// Returns the earliest time of a change in the tree at `root`.
fn first_change(root: &Path) -> Result<(i64, i64)> {
    let mut first = (i64::MAX, 0);
    walk(root, &[], &mut |entry| {
        first = first.min((entry.stat.st_ctime, entry.stat.st_ctime_nsec));
        Ok(())
    })?;
    Ok(first)
}

/// Reads when the tree whose record is in `dir` was written; `None` where an earlier
/// version wrote it down in part.
fn written(dir: &Path) -> Option<Written> {
    let text = fs::read_to_string(dir.join(FIRST)).ok()?;
    let (seconds, nanoseconds) = text.trim().split_once(' ')?;
    let first = (seconds.parse().ok()?, nanoseconds.parse().ok()?);
    let list = fs::metadata(dir.join(LIST)).ok()?;
    Written::between(first, (list.ctime(), list.ctime_nsec()))
}

impl Pristine {
    /// Reads what the tree at `root` was delivered with; `None` where it did not
    /// come from a bundle.
    ///
    /// # Errors
    /// When it is there and damaged.
    pub fn kept(root: &Path) -> Result<Option<Pristine>> {
        let dir = resolve::place(root, Path::new(PRISTINE_DIR))?;
        let path = dir.join(LIST);
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read.with_context(|| format!("reading {}", path.display()))?,
        };
        let mut list = BTreeMap::new();
        if !bytes.is_empty() {
            let mut reader = FilesReader::new(&bytes[..])?;
            while let Some(line) = reader.next_line()? {
                let delivered = Delivered {
                    mode: u32::from_str_radix(&line.mode, 8).ok(),
                    owner: Some((line.uid, line.gid)),
                    size_bytes: line.size,
                    link_end: of_hex(line.target_hex.as_deref(), line.target),
                    sum: line.sha256.map(Sum::Sha),
                    kind: (line.kind != "hardlink").then_some(line.kind),
                };
                let path = of_hex(line.path_hex.as_deref(), Some(line.path));
                list.extend(path.map(|path| (path, delivered)));
            }
        }
        let etc = dir.join(ETC);
        Ok(Some(Pristine {
            written: written(&dir).filter(|_| !list.is_empty()),
            etc: etc.is_dir().then_some(etc),
            list,
        }))
    }

    /// Tells whether `path`, relative to the root, was delivered.
    pub fn has(&self, path: &Path) -> bool {
        match self.in_etc(path) {
            Some(copy) => copy.symlink_metadata().is_ok(),
            None => self.list.contains_key(path.as_os_str().as_bytes()),
        }
    }

    /// Returns the delivered content of the file `path`, relative to the root;
    /// `None` where it is not known, no regular file, or larger than 1 MiB.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn content(&self, path: &Path) -> Result<Option<Vec<u8>>> {
        let Some(copy) = self.in_etc(path) else {
            return Ok(None);
        };
        match copy.symlink_metadata() {
            Ok(meta) if meta.is_file() && meta.len() <= MAX_CONTENT_BYTES => {}
            _ => return Ok(None),
        }
        let content = fs::read(&copy).with_context(|| format!("reading {}", copy.display()))?;
        Ok(Some(content))
    }

    /// Returns the tree whose `etc` is the delivered one, where there is one.
    pub fn tree(&self) -> Option<&Path> {
        self.etc.as_deref().and_then(Path::parent)
    }

    /// Returns where the copy of `path` is, if it is one of `/etc`.
    pub fn in_etc(&self, path: &Path) -> Option<PathBuf> {
        let etc = self.etc.as_ref()?;
        let below = path.strip_prefix("etc").ok()?;
        Some(etc.join(below))
    }
}

/// Returns the bytes of a name that is given as text, or as hexadecimal where it
/// is none.
pub fn of_hex(hex: Option<&str>, text: Option<String>) -> Option<Vec<u8>> {
    let Some(hex) = hex else {
        return text.map(String::into_bytes);
    };
    let digits = (0..hex.len()).step_by(2);
    let bytes = digits.map(|at| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok());
    bytes.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_changed_later_is_seen_whatever_the_clock_said_then() {
        let written = Written::between((1000, 5), (1200, 7)).unwrap();
        for (time, is_delivered) in [
            ((1000, 5), true),
            ((1200, 6), true),
            ((1200, 7), false),
            ((5000, 0), false),
            // The clock was ahead while it was written, or stood in 1970 later.
            ((999, 0), false),
            ((0, 0), false),
            ((-1, 0), false),
        ] {
            assert_eq!(written.has(time), is_delivered, "{time:?}");
        }
    }

    #[test]
    fn a_clock_that_was_set_while_a_tree_was_written_tells_nothing() {
        for (first, last) in [
            ((60, 0), (1_700_000_000, 0)),
            ((1_700_000_000, 0), (60, 0)),
            ((60, 0), (60, 0)),
            ((i64::MIN, 0), (i64::MAX, 0)),
        ] {
            assert_eq!(Written::between(first, last), None);
        }
    }
}
