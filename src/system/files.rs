//! The one way to replace a file safely and to empty a directory.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

/// Replaces the file at `path` with `content`, whole or not at all.
///
/// Writes a temporary file beside it, syncs, renames, syncs the directory.
///
/// # Errors
/// When any of that fails; the old file is then still there.
pub fn write_atomic(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    let dir = path
        .parent()
        .with_context(|| format!("{} has no parent directory", path.display()))?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let temp = dir.join(name);
    let write = || -> Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(mode)
            .open(&temp)?;
        file.set_permissions(Permissions::from_mode(mode))?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temp, path)?;
        sync_dir(dir)
    };
    write()
        .inspect_err(|_| drop(fs::remove_file(&temp)))
        .with_context(|| format!("writing {}", path.display()))
}

/// Returns where the absolute `path` of a system lies that is mounted at `root`.
///
/// Symbolic links of the system are followed only inside it.
///
/// # Errors
/// When a directory on the way is a link that leads out, or too many of them.
pub fn beneath(root: &Path, path: &Path) -> Result<PathBuf> {
    let mut wanted: Vec<OsString> = names(path)?;
    wanted.reverse();
    let mut found = root.to_owned();
    let mut links = 0;
    while let Some(name) = wanted.pop() {
        let next = found.join(&name);
        match fs::read_link(&next) {
            Ok(link) if !wanted.is_empty() => {
                links += 1;
                ensure!(links <= 16, "{} goes through too many links", path.display());
                if link.is_absolute() {
                    found = root.to_owned();
                }
                let inside = names(&link).with_context(|| {
                    format!("{} is a link to {}", next.display(), link.display())
                })?;
                wanted.extend(inside.into_iter().rev());
            }
            _ => found = next,
        }
    }
    Ok(found)
}

/// Returns the names in a path that never goes up.
fn names(path: &Path) -> Result<Vec<OsString>> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push(name.to_owned()),
            Component::RootDir | Component::CurDir => {}
            _ => bail!("{} goes up", path.display()),
        }
    }
    Ok(names)
}

/// Makes the entries of a directory durable.
///
/// # Errors
/// When the directory cannot be opened or synced.
pub fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir)
        .and_then(|d| d.sync_all())
        .with_context(|| format!("syncing {}", dir.display()))
}

/// Removes a directory tree that is known to hold no mount; absent is fine.
///
/// # Errors
/// When an entry cannot be removed.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the one place trees are removed"
)]
pub fn remove_tree(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", dir.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_of_a_mounted_system_never_lead_out_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::create_dir_all(root.join("usr/lib")).unwrap();
        symlink("usr/lib", root.join("lib")).unwrap();
        symlink("/usr", root.join("absolute")).unwrap();
        symlink("../../../etc", root.join("up")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        let at = |path: &str| beneath(root, Path::new(path));
        assert_eq!(at("/lib/systemd").unwrap(), root.join("usr/lib/systemd"));
        assert_eq!(at("/absolute/lib/x").unwrap(), root.join("usr/lib/x"));
        assert!(at("/up/passwd").is_err());
        assert!(at("/loop/x").is_err());
        assert!(at("/usr/../../x").is_err());
    }

    #[test]
    fn a_failed_replacement_leaves_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        write_atomic(&path, b"old", 0o600).unwrap();
        fs::create_dir(dir.path().join("a.new")).unwrap();
        assert!(write_atomic(&path, b"new", 0o600).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"old");
    }
}
