//! Looking up paths inside a directory tree that is somebody else's root.
//!
//! A symbolic link in such a tree means a place in that tree, also when it is
//! absolute; following it the ordinary way would read the host's files.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};
use std::{fs, io};

/// The kernel's own limit on links in one lookup.
const MAX_LINKS: usize = 40;

/// The longest path the kernel takes.
const MAX_PATH_BYTES: usize = 4096;

/// Resolves `path` as a process with the root directory `root` would see it.
///
/// The answer is relative to `root` and holds no symbolic link; `None` means
/// that there is no such path.
///
/// # Errors
/// When a directory cannot be read or links lead in a circle.
pub fn resolve(root: &Path, path: &Path) -> io::Result<Option<PathBuf>> {
    trace(root, path, &mut |_| {})
}

/// Like [`resolve`], and shows every name on the way, links and what is in the
/// way to their ends included.
///
/// # Errors
/// Like [`resolve`].
pub fn trace(root: &Path, path: &Path, see: &mut dyn FnMut(&Path)) -> io::Result<Option<PathBuf>> {
    // Every name is joined to those before it: a longer way would take its square.
    if path.as_os_str().len() > MAX_PATH_BYTES {
        let text = format!("a path of {} bytes is too long", path.as_os_str().len());
        return Err(io::Error::new(io::ErrorKind::InvalidFilename, text));
    }
    let mut todo: VecDeque<OsString> = names(path).collect();
    let mut done = PathBuf::new();
    let mut links = 0;
    while let Some(name) = todo.pop_front() {
        if name == ".." {
            done.pop();
            continue;
        }
        let next = done.join(&name);
        let meta = match fs::symlink_metadata(root.join(&next)) {
            Ok(meta) => meta,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        see(&next);
        if !meta.is_symlink() {
            done = next;
            continue;
        }
        links += 1;
        if links > MAX_LINKS {
            return Err(io::Error::other(format!(
                "too many symbolic links on the way to {}",
                path.display()
            )));
        }
        let end = fs::read_link(root.join(&next))?;
        if end.is_absolute() {
            done = PathBuf::new();
        }
        for name in names(&end).collect::<Vec<_>>().into_iter().rev() {
            todo.push_front(name);
        }
    }
    Ok(Some(done))
}

/// Returns where in `root` the absolute `path` of its system lies or would be made.
///
/// # Errors
/// When a directory cannot be read, or a link on the way leads nowhere: making
/// something behind it would land on the host.
pub fn place(root: &Path, path: &Path) -> io::Result<PathBuf> {
    let mut below = Vec::new();
    for ancestor in path.ancestors() {
        let Some(found) = resolve(root, ancestor)? else {
            below.extend(ancestor.file_name());
            continue;
        };
        let place = root.join(found);
        below.reverse();
        let dangling = below
            .first()
            .is_some_and(|name| place.join(name).is_symlink());
        if dangling || path.components().any(|part| part == Component::ParentDir) {
            break;
        }
        return Ok(below.iter().fold(place, |place, name| place.join(name)));
    }
    let text = format!("{} leads nowhere inside {}", path.display(), root.display());
    Err(io::Error::other(text))
}

fn names(path: &Path) -> impl Iterator<Item = OsString> {
    path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_are_followed_inside_the_tree_only() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::create_dir_all(root.join("usr/lib/systemd")).unwrap();
        fs::write(root.join("usr/lib/systemd/systemd"), "").unwrap();
        fs::create_dir_all(root.join("etc")).unwrap();
        symlink("usr/lib", root.join("lib")).unwrap();
        symlink("/lib/systemd/systemd", root.join("etc/init")).unwrap();
        symlink("../../../../etc/passwd", root.join("etc/out")).unwrap();
        symlink("/etc/hostname", root.join("etc/abs")).unwrap();
        symlink("b", root.join("a")).unwrap();
        symlink("a", root.join("b")).unwrap();
        let found = |path: &str| resolve(root, Path::new(path)).unwrap();
        let systemd = Some(PathBuf::from("usr/lib/systemd/systemd"));
        assert_eq!(found("/lib/systemd/systemd"), systemd);
        assert_eq!(found("etc/init"), systemd);
        assert_eq!(found("/etc/../../etc/./init"), systemd);
        assert_eq!(found("/"), Some(PathBuf::new()));
        // Both exist on this machine, and must not be found.
        assert_eq!(found("etc/out"), None);
        assert_eq!(found("etc/abs"), None);
        assert_eq!(found("etc/init/below-a-file"), None);
        assert!(resolve(root, Path::new("a")).is_err());
        let long = "x/".repeat(500_000);
        assert!(resolve(root, Path::new(&long)).is_err());
        assert!(place(root, Path::new(&long)).is_err());
    }

    #[test]
    fn every_name_on_the_way_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::create_dir_all(root.join("usr/lib/x")).unwrap();
        symlink("usr/lib", root.join("lib")).unwrap();
        let mut seen = Vec::new();
        let end = trace(root, Path::new("/lib/x"), &mut |step| {
            seen.push(step.display().to_string());
        });
        assert_eq!(end.unwrap(), Some(PathBuf::from("usr/lib/x")));
        assert_eq!(seen, ["lib", "usr", "usr/lib", "usr/lib/x"]);
    }

    #[test]
    fn what_is_made_is_made_inside_the_tree() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::create_dir_all(root.join("usr/lib")).unwrap();
        symlink("/usr/lib", root.join("lib")).unwrap();
        symlink("/var/tmp", root.join("out")).unwrap();
        let at = |path: &str| place(root, Path::new(path)).ok();
        assert_eq!(
            at("/lib/systemd/new"),
            Some(root.join("usr/lib/systemd/new"))
        );
        assert_eq!(at("/etc/fstab"), Some(root.join("etc/fstab")));
        // The host has a /var/tmp, the tree has not.
        assert_eq!(at("/out/x"), None);
        assert_eq!(at("/out"), None);
        assert_eq!(at("/usr/../../x"), None);
    }
}
