//! Which files travel.

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::appliance::pristine::What;
use crate::paths::PRISTINE_DIR;
use crate::refuse;
use crate::sync::keep::MAX_FILE_BYTES;
use crate::sync::plan::{Action, Plan};
use crate::tree::meta::Kind;
use crate::tree::walk::walk_running;

/// The most that is carried, in bytes of files: as much as a kept set of
/// [`sync`](crate::sync::keep) holds.
pub const MAX_CONTENT_BYTES: u64 = 512 << 20;

/// How many of the largest files a refusal names.
const MAX_NAMED: usize = 5;

/// Paths relative to the root, without a leading slash.
pub struct Selected {
    /// What travels, directories above it included.
    pub paths: BTreeSet<Vec<u8>>,
    /// What was deleted since it was delivered.
    deleted: BTreeSet<Vec<u8>>,
}

impl Selected {
    /// Tells whether what was delivered at `path` is of use in a comparison.
    pub fn is_told(&self, path: &[u8]) -> bool {
        self.paths.contains(path) || self.deleted.contains(path) || path.starts_with(b"etc/")
    }
}

/// Selects from the system at `root` what `plan` would carry or knows no rule for,
/// and all of `/etc`, but for the files `left_out`.
///
/// # Errors
/// Class `Refused`, naming the largest, when it does not fit.
pub fn select(root: &Path, plan: &Plan, left_out: &[&Path]) -> Result<Selected> {
    let mut selected = Selected {
        paths: BTreeSet::new(),
        deleted: BTreeSet::new(),
    };
    let mut sizes: Vec<(u64, PathBuf)> = Vec::new();
    let mut too_large = false;
    let is_left_out = |path: &Path| left_out.contains(&&*Path::new("/").join(path));
    let items = plan.items.iter();
    for item in items.filter(|item| !is_left_out(&item.path)) {
        let path = item.path.as_os_str().as_bytes();
        if item.change == Some(What::Deleted) {
            selected.deleted.insert(path.to_vec());
        } else if item.action != Action::Drop {
            let meta = root.join(&item.path).symlink_metadata();
            let size = meta.map_or(0, |meta| if meta.is_file() { meta.len() } else { 0 });
            too_large |= item.action == Action::Unknown && size > MAX_FILE_BYTES;
            sizes.push((size, item.path.clone()));
            selected.add(path);
        }
    }
    for dir in ["etc", &format!("{PRISTINE_DIR}/etc")[1..]] {
        below(root, dir, &mut |path, size| {
            if !selected.paths.contains(path) {
                sizes.push((size, PathBuf::from(std::ffi::OsStr::from_bytes(path))));
                selected.add(path);
            }
        })?;
    }
    let total: u64 = sizes.iter().map(|(size, _)| size).sum();
    if too_large || total > MAX_CONTENT_BYTES {
        refuse!("{}", refusal(total, sizes));
    }
    Ok(selected)
}

impl Selected {
    fn add(&mut self, path: &[u8]) {
        let above = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        for (at, _) in above {
            self.paths.insert(path[..at].to_vec());
        }
        self.paths.insert(path.to_vec());
    }
}

fn refusal(total: u64, mut sizes: Vec<(u64, PathBuf)>) -> String {
    sizes.sort_by(|a, b| b.cmp(a));
    let named: Vec<String> = sizes
        .iter()
        .take(MAX_NAMED)
        .map(|(size, path)| format!("/{} ({} MiB)", path.display(), size >> 20))
        .collect();
    format!(
        "the disk is made anew, and {} MiB of this system would have to be carried over; \
         {} MiB can be, and {} MiB of a file that no rule names. The largest are {}. Move \
         them to another machine, or let a rule in /etc/va-upgrade/sync.d drop what nobody \
         needs",
        total.div_ceil(1 << 20),
        MAX_CONTENT_BYTES >> 20,
        MAX_FILE_BYTES >> 20,
        named.join(", ")
    )
}

/// Lists everything in the tree at `root`.
///
/// # Errors
/// When it cannot be read.
pub fn all(root: &Path) -> Result<BTreeSet<Vec<u8>>> {
    let mut paths = BTreeSet::new();
    below(root, "", &mut |path, _| {
        paths.insert(path.to_vec());
    })?;
    Ok(paths)
}

/// Calls `see` with each path below `dir` of the tree at `root`, and the size of files.
fn below(root: &Path, dir: &str, see: &mut dyn FnMut(&[u8], u64)) -> Result<()> {
    let top = root.join(dir);
    if !top.is_dir() {
        return Ok(());
    }
    walk_running(&top, &[], &mut |entry| {
        let is_carried = matches!(entry.meta.kind, Kind::File | Kind::Dir | Kind::Symlink);
        if is_carried && !entry.path.is_empty() {
            let between: &[u8] = if dir.is_empty() { b"" } else { b"/" };
            let path = [dir.as_bytes(), between, entry.path].concat();
            see(&path, entry.meta.size_bytes);
        }
        Ok(())
    })
}
