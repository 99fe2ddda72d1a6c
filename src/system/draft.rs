//! Output that is there whole or not at all.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::files;

/// A file being written beside `output`; dropped unfinished, it is removed.
pub struct Draft {
    file: File,
    path: PathBuf,
    output: PathBuf,
    kept: bool,
}

impl Draft {
    /// Starts a draft of `output`.
    pub fn create(output: &Path) -> Result<Draft> {
        let path = beside(output, ".part");
        let file = create(&path)?;
        Ok(Draft {
            file,
            path,
            output: output.to_owned(),
            kept: false,
        })
    }

    /// Returns the file to write to.
    pub fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Makes the draft durable and puts it in the output's place.
    pub fn commit(mut self) -> Result<()> {
        self.file
            .sync_all()
            .and_then(|()| fs::rename(&self.path, &self.output))
            .with_context(|| format!("writing {}", self.output.display()))?;
        self.kept = true;
        files::sync_dir(parent(&self.output))
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        if let Err(error) = fs::remove_file(&self.path) {
            eprintln!("warning: removing {}: {error}", self.path.display());
        }
    }
}

/// Opens a file on the file system of `output` that has no name.
pub fn scratch(output: &Path) -> Result<File> {
    files::unnamed_file(parent(output))
}

fn create(path: &Path) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)
        .with_context(|| format!("creating {}", path.display()))
}

fn beside(output: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(output.file_name().unwrap_or_default());
    name.push(suffix);
    parent(output).join(name)
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn an_unfinished_draft_leaves_nothing_and_the_old_file_alone() {
        let dir = tempfile::tempdir().unwrap();
        let output = dir.path().join("a.vab");
        fs::write(&output, "old").unwrap();
        let mut draft = Draft::create(&output).unwrap();
        draft.file().write_all(b"new").unwrap();
        drop(draft);
        assert_eq!(fs::read(&output).unwrap(), b"old");
        let mut draft = Draft::create(&output).unwrap();
        draft.file().write_all(b"new").unwrap();
        draft.commit().unwrap();
        assert_eq!(fs::read(&output).unwrap(), b"new");
        scratch(&output).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
