//! Files of a tree that may be hostile: never left, and within bounds.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};

use crate::refuse;
use crate::tree::resolve;

/// Reads a file of a tree; `None` if there is none.
pub(super) fn read_inside(root: &Path, path: &Path, max_bytes: u64) -> Result<Option<Vec<u8>>> {
    let context = || format!("reading /{}", path.display());
    let Some(found) = resolve::resolve(root, path).with_context(context)? else {
        return Ok(None);
    };
    let file = root.join(found);
    // Opening a named pipe would wait for its other end.
    if !fs::symlink_metadata(&file).with_context(context)?.is_file() {
        refuse!("/{} is no file", path.display());
    }
    let mut bytes = Vec::new();
    let mut file = File::open(file).with_context(context)?.take(max_bytes + 1);
    file.read_to_end(&mut bytes).with_context(context)?;
    if bytes.len() as u64 > max_bytes {
        refuse!("/{} is larger than {} MiB", path.display(), max_bytes >> 20);
    }
    Ok(Some(bytes))
}

/// Tells whether a tree has a program for people to log in with.
pub(super) fn has_program(root: &Path, path: &Path) -> Result<bool> {
    let found =
        resolve::resolve(root, path).with_context(|| format!("looking up {}", path.display()))?;
    Ok(found.is_some_and(|file| {
        let meta = fs::symlink_metadata(root.join(file));
        meta.is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    }))
}
