//! Removes a tree however deep it is: what lies deep is moved up first, so that
//! no more than two directories are open, and names stay short.

use std::ffi::{CStr, CString};
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result};
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, openat, renameat};
use nix::sys::stat::{Mode, SFlag, fstatat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::tree::dirs::OPEN_DIR;

/// Removes the directory `dir` with all that is in it, or whatever else has that
/// name; absent is fine.
///
/// # Errors
/// When an entry cannot be removed.
pub fn remove(dir: &Path) -> Result<()> {
    let top = match openat(AT_FDCWD, dir, OPEN_DIR, Mode::empty()) {
        Err(Errno::ENOENT) => return Ok(()),
        Err(Errno::ENOTDIR) => return Ok(fs::remove_file(dir)?),
        other => other?,
    };
    let mut moved = 0;
    loop {
        let names = list(&top)?;
        if names.is_empty() {
            break;
        }
        for name in names {
            if !try_remove(&top, &name)? {
                empty(&top, &name, &mut moved)?;
                unlinkat(&top, name.as_c_str(), UnlinkatFlags::RemoveDir)
                    .with_context(|| name.to_string_lossy().into_owned())?;
            }
        }
    }
    Ok(fs::remove_dir(dir)?)
}

/// Empties the directory `name` in `top`: directories that are not empty move
/// to `top`.
fn empty(top: &OwnedFd, name: &CStr, moved: &mut u64) -> Result<()> {
    let dir = openat(top, name, OPEN_DIR, Mode::empty())
        .with_context(|| name.to_string_lossy().into_owned())?;
    for child in list(&dir)? {
        while !try_remove(&dir, &child)? {
            *moved += 1;
            let place = CString::new(format!(".{moved}"))?;
            match renameat(&dir, child.as_c_str(), top, place.as_c_str()) {
                Ok(()) => break,
                Err(Errno::EEXIST | Errno::ENOTEMPTY | Errno::ENOTDIR) => {}
                Err(errno) => {
                    return Err(errno).with_context(|| child.to_string_lossy().into_owned());
                }
            }
        }
    }
    Ok(())
}

/// Removes a file or an empty directory; tells whether it was one.
fn try_remove(dir: &OwnedFd, name: &CStr) -> Result<bool> {
    let attempt = || {
        let stat = fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        let is_dir = stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFDIR.bits();
        let flag = match is_dir {
            true => UnlinkatFlags::RemoveDir,
            false => UnlinkatFlags::NoRemoveDir,
        };
        unlinkat(dir, name, flag)
    };
    match attempt() {
        Ok(()) => Ok(true),
        Err(Errno::ENOTEMPTY | Errno::EEXIST) => Ok(false),
        Err(errno) => Err(errno).with_context(|| name.to_string_lossy().into_owned()),
    }
}

fn list(dir: &OwnedFd) -> Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::openat(dir.as_fd(), ".", OPEN_DIR, Mode::empty())?.iter() {
        let name = entry?.file_name().to_owned();
        if name.as_bytes() != b"." && name.as_bytes() != b".." {
            names.push(name);
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::dirs::{Dirs, Missing};
    use std::os::unix::fs::symlink;

    #[test]
    fn a_tree_is_removed_however_deep_it_is_and_links_are_not_followed() {
        let base = tempfile::tempdir().unwrap();
        let (root, outside) = (base.path().join("root"), base.path().join("outside"));
        for dir in [&root, &outside] {
            fs::create_dir(dir).unwrap();
            fs::write(dir.join(".1"), "precious").unwrap();
        }
        fs::create_dir_all(root.join(".2/full")).unwrap();
        symlink(&outside, root.join("link")).unwrap();
        let mut dirs = Dirs::new(&root, 4, Missing::Make).unwrap();
        for name in ["a", "b"] {
            dirs.get(&[name; 3000].join("/").into_bytes()).unwrap();
        }
        remove(&root).unwrap();
        assert!(!root.exists());
        remove(&root).unwrap();
        symlink(&outside, &root).unwrap();
        remove(&root).unwrap();
        assert!(!root.is_symlink());
        assert!(outside.join(".1").exists());
        remove(&outside.join(".1")).unwrap();
        assert!(!outside.join(".1").exists());
    }
}
