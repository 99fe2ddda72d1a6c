//! The paths of which a part of a bundle is unpacked.

use anyhow::{Context, Result};

use crate::failure::{Class, Classify};
use crate::refuse;
use crate::tree::path::{clean_path, show};

/// A path that was asked for.
pub struct Wanted {
    /// Relative to the root, and clean.
    pub path: Vec<u8>,
    /// Something of it has been found.
    pub is_found: bool,
}

impl Wanted {
    fn new(path: &[u8]) -> Result<Wanted> {
        let start = path.iter().position(|byte| *byte != b'/');
        let relative = start.map_or(&b"."[..], |start| &path[start..]);
        let path = clean_path(relative)
            .with_context(|| format!("looking for {}", show(path)))
            .class(Class::Refused)?;
        if path.is_empty() {
            refuse!("the whole tree was asked for; unpack without naming a path");
        }
        Ok(Wanted {
            path,
            is_found: false,
        })
    }

    /// Reads the paths.
    ///
    /// # Errors
    /// Class `Refused` when one leads out of the tree or is all of it.
    pub fn all(paths: &[&[u8]]) -> Result<Vec<Wanted>> {
        paths.iter().map(|path| Wanted::new(path)).collect()
    }

    /// Marks all that cover `path` as found; tells whether any does.
    pub fn mark(wanted: &mut [Wanted], path: &[u8]) -> bool {
        let mut is_covered = false;
        for covering in wanted.iter_mut().filter(|w| w.covers(path)) {
            covering.is_found = true;
            is_covered = true;
        }
        is_covered
    }

    /// Tells whether `path` is the one asked for or below it.
    pub fn covers(&self, path: &[u8]) -> bool {
        let rest = path.strip_prefix(&self.path[..]);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
    }
}
