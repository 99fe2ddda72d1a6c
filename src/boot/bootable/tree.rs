//! A tree looked into without leaving it.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::tree::resolve;

/// A directory tree looked at as its own processes would see it.
pub struct Tree<'a> {
    pub root: &'a Path,
}

impl Tree<'_> {
    /// Returns the path, without links and relative to the root, of what `path` names.
    pub fn resolve(&self, path: impl AsRef<Path>) -> Result<Option<PathBuf>> {
        let path = path.as_ref();
        resolve::resolve(self.root, path)
            .with_context(|| format!("looking up {} in {}", path.display(), self.root.display()))
    }

    /// Like [`Tree::resolve`], but only for regular files.
    pub fn resolve_file(&self, path: impl AsRef<Path>) -> Result<Option<PathBuf>> {
        let found = self.resolve(path)?;
        Ok(found.filter(|file| self.root.join(file).is_file()))
    }

    /// Returns the first of `paths` that names a regular file.
    pub fn first_file(&self, paths: &[&str]) -> Result<Option<PathBuf>> {
        for path in paths {
            if let Some(file) = self.resolve_file(path)? {
                return Ok(Some(file));
            }
        }
        Ok(None)
    }

    /// Opens a file that was found.
    pub fn open(&self, file: &Path) -> Result<File> {
        let path = self.root.join(file);
        File::open(&path).with_context(|| format!("opening {}", path.display()))
    }
}
