//! What a system was delivered with, noted beside some of its files.
//!
//! Where a system's customer files travel without the system, its package database
//! and the list of its bundle stay behind. What they told of these files is noted in
//! lines of JSON, and the trees then compare as they did.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::record::{Delivered, ETC, Pristine, Sum, of_hex};
use crate::paths::PRISTINE_DIR;
use crate::sha::Sha;
use crate::system::files;
use crate::tree::resolve;

/// The file of notes, within [`PRISTINE_DIR`].
const NOTES: &str = "noted.jsonl";

/// The most that is read of it, in bytes.
const MAX_BYTES: u64 = 256 << 20;

/// One name; bytes are hexadecimal.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Note {
    path: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kind: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mode: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    owner: Option<(u32, u32)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    size_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    link_end: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sha256: Option<Sha>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    md5: Option<String>,
}

/// Notes in the tree at `root` what `delivered` tells of the names that `is_wanted`;
/// the copy of `/etc` in it is the caller's to bring.
///
/// # Errors
/// When the file cannot be written.
pub fn note(
    delivered: &Pristine,
    root: &Path,
    is_wanted: &mut dyn FnMut(&[u8]) -> bool,
) -> Result<()> {
    let mut text = Vec::new();
    for (path, told) in &delivered.list {
        if is_wanted(path) {
            let line = serde_json::to_string(&Note::of(path, told))?;
            writeln!(text, "{line}")?;
        }
    }
    let dir = root.join(PRISTINE_DIR.trim_start_matches('/'));
    fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
    files::write_atomic(&dir.join(NOTES), &text, 0o600)
}

/// Reads the notes in the tree at `root`; `None` where there are none.
pub(super) fn read(root: &Path) -> Result<Option<Pristine>> {
    let dir = resolve::place(root, Path::new(PRISTINE_DIR))?;
    let path = dir.join(NOTES);
    let file = match fs::File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.with_context(|| format!("reading {}", path.display()))?,
    };
    let read = || -> Result<BTreeMap<Vec<u8>, Delivered>> {
        ensure!(file.metadata()?.len() <= MAX_BYTES, "it is too large");
        let mut list = BTreeMap::new();
        for line in BufReader::new(file.take(MAX_BYTES)).lines() {
            let note: Note = serde_json::from_str(&line?)?;
            let (path, told) = note.into_delivered()?;
            list.insert(path, told);
        }
        Ok(list)
    };
    let etc = dir.join(ETC);
    Ok(Some(Pristine {
        list: read().with_context(|| format!("reading {}", path.display()))?,
        etc: etc.is_dir().then_some(etc),
        written: None,
    }))
}

impl Note {
    fn of(path: &[u8], told: &Delivered) -> Note {
        let (sha256, md5) = match told.sum {
            Some(Sum::Sha(sha)) => (Some(sha), None),
            Some(Sum::Md5(md5)) => (None, Some(hex(&md5))),
            None => (None, None),
        };
        Note {
            path: hex(path),
            kind: told.kind.clone(),
            mode: told.mode,
            owner: told.owner,
            size_bytes: told.size_bytes,
            link_end: told.link_end.as_deref().map(hex),
            sha256,
            md5,
        }
    }

    fn into_delivered(self) -> Result<(Vec<u8>, Delivered)> {
        let bytes = |text: &str| of_hex(Some(text).filter(|text| text.is_ascii()), None);
        let sum = match (self.sha256, self.md5) {
            (Some(sha), None) => Some(Sum::Sha(sha)),
            (None, Some(md5)) => {
                let md5 = bytes(&md5).and_then(|md5| md5.try_into().ok());
                Some(Sum::Md5(md5.context("a sum is none")?))
            }
            (None, None) => None,
            _ => bail!("a name has two sums"),
        };
        let path = bytes(&self.path).context("a path is no hexadecimal number")?;
        let told = Delivered {
            kind: self.kind,
            mode: self.mode,
            owner: self.owner,
            size_bytes: self.size_bytes,
            link_end: self.link_end.as_deref().and_then(bytes),
            sum,
        };
        Ok((path, told))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted_comes_back_and_only_what_was_wanted() {
        let told = |sum| Delivered {
            kind: Some("file".into()),
            mode: Some(0o4755),
            owner: Some((7, 8)),
            size_bytes: Some(9),
            link_end: Some(b"\xff".to_vec()),
            sum,
        };
        let mut list = BTreeMap::from([
            (b"etc/a".to_vec(), told(Some(Sum::Md5([3; 16])))),
            (b"etc/\xff".to_vec(), told(Some(Sum::Sha(Sha::of(b"x"))))),
            (b"usr".to_vec(), Delivered::default()),
            (b"usr/bin".to_vec(), Delivered::default()),
        ]);
        let pristine = Pristine {
            list: list.clone(),
            etc: None,
            written: None,
        };
        let root = tempfile::tempdir().unwrap();
        assert!(read(root.path()).unwrap().is_none());
        note(&pristine, root.path(), &mut |path| path != b"usr/bin").unwrap();
        let found = read(root.path()).unwrap().unwrap();
        list.remove(&b"usr/bin"[..]);
        assert_eq!(found.list, list);
        assert!(found.written.is_none() && found.etc.is_none());
        let path = root.path().join("usr/lib/va-upgrade/pristine/noted.jsonl");
        for text in ["{\"path\":\"x\"}", "{\"path\":\"61\",\"md5\":\"6\"}", "x"] {
            fs::write(&path, text).unwrap();
            assert!(read(root.path()).is_err(), "{text}");
        }
    }
}
