//! Paths waiting in an unnamed file, so that memory does not grow with the tree.

use std::fs::File;
use std::io::{BufReader, BufWriter, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::Path;

use anyhow::{Context, Result};

use super::group::Group;
use super::likeness::{Likeness, Listed};
use super::order::arrange;
use crate::system::draft;

/// How many bytes of paths are sorted at a time.
const WINDOW_BYTES: usize = 4 << 20;

/// What is called with each path, and for a further name of a file the first one.
type Visit<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> Result<()>;

/// The paths of one group, waiting on disk.
pub struct Spill {
    file: BufWriter<File>,
    group: Group,
}

impl Spill {
    /// Starts an empty one on the file system of `target`.
    pub fn new(target: &Path, group: Group) -> Result<Spill> {
        let file = draft::scratch(target)?;
        Ok(Spill {
            file: BufWriter::new(file),
            group,
        })
    }

    /// Adds a path, and for a further name of a file the first one.
    pub fn push(&mut self, path: &[u8], first_name: &[u8]) -> Result<()> {
        for bytes in [path, first_name] {
            let length = u32::try_from(bytes.len()).context("a path is longer than 4 GiB")?;
            self.file
                .write_all(&length.to_le_bytes())
                .and_then(|()| self.file.write_all(bytes))
                .context("writing the list of files")?;
        }
        Ok(())
    }

    /// Visits all paths in packing order.
    pub fn drain(self, likeness: &mut Likeness, visit: Visit) -> Result<()> {
        let mut file = self
            .file
            .into_inner()
            .context("writing the list of files")?;
        file.seek(SeekFrom::Start(0))?;
        let mut input = BufReader::new(file);
        let mut window = Vec::new();
        let mut bytes = 0;
        while let Some(path) = read_bytes(&mut input)? {
            let first_name = read_bytes(&mut input)?.context("reading the list of files")?;
            bytes += path.len() + first_name.len();
            window.push((path, first_name));
            if bytes >= WINDOW_BYTES {
                arrange(self.group, &mut window, likeness)?;
                visit_all(&mut window, visit)?;
                bytes = 0;
            }
        }
        arrange(self.group, &mut window, likeness)?;
        visit_all(&mut window, visit)
    }
}

fn visit_all(window: &mut Vec<Listed>, visit: Visit) -> Result<()> {
    for (path, first_name) in window.drain(..) {
        visit(&path, &first_name)?;
    }
    Ok(())
}

fn read_bytes(input: &mut impl Read) -> Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    match input.read_exact(&mut length) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        other => other.context("reading the list of files")?,
    }
    let mut bytes = vec![0; u32::from_le_bytes(length) as usize];
    input
        .read_exact(&mut bytes)
        .context("reading the list of files")?;
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_come_back_sorted_by_ending() {
        let dir = tempfile::tempdir().unwrap();
        let out = tempfile::tempdir().unwrap();
        let mut spill = Spill::new(&out.path().join("out"), Group::Rest).unwrap();
        for path in [
            "b/x.py", "a/README", "fr/a.mo", "a/x.c", "de/b.mo", "a/y.py", "de/a.mo", ".py",
        ] {
            let file = dir.path().join(path);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, path).unwrap();
            spill.push(path.as_bytes(), b"").unwrap();
        }
        let mut seen = Vec::new();
        let mut likeness = Likeness::new(dir.path(), 1 << 20).unwrap();
        spill
            .drain(&mut likeness, &mut |path, _| {
                seen.push(String::from_utf8(path.to_vec()).unwrap());
                Ok(())
            })
            .unwrap();
        let sorted = [
            ".py", "a/README", "a/x.c", "de/a.mo", "fr/a.mo", "de/b.mo", "a/y.py", "b/x.py",
        ];
        assert_eq!(seen, sorted);
        assert_eq!(std::fs::read_dir(out.path()).unwrap().count(), 0);
    }
}
