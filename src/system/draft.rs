//! Output that is there whole or not at all.

use std::collections::hash_map::RandomState;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher, Hasher};
use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag};
use nix::libc;
use nix::unistd::linkat;

use super::files;
use crate::failure::{Class, Classify};
use crate::refuse;
use crate::stderr;

/// Returns the path of `output` free of links in its directory, after a look at
/// whether it can be written. `inputs`, each with what it is, are never replaced.
///
/// # Errors
/// Class [`Refused`](Class::Refused) when it cannot be written, or is an input.
pub fn check_output(output: &Path, inputs: &[(&str, &Path)]) -> Result<PathBuf> {
    let shown = output.display();
    let Some(name) = output.file_name() else {
        refuse!("{shown} is not the name of a file to write");
    };
    let dir = parent(output);
    let dir = match fs::canonicalize(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            refuse!(
                "{shown} cannot be written: there is no directory {}",
                dir.display()
            )
        }
        other => other.with_context(|| format!("looking up {}", dir.display()))?,
    };
    if output.is_dir() {
        refuse!("{shown} is a directory; give the name of a file in it");
    }
    for (what, input) in inputs {
        if is_same(output, input) {
            refuse!("{shown} is {what}; name another file to write");
        }
    }
    refuse_irregular(output)?;
    files::unnamed_file(&dir)
        .with_context(|| format!("{shown} cannot be written"))
        .class(Class::Refused)?;
    Ok(dir.join(name))
}

fn is_same(output: &Path, input: &Path) -> bool {
    let file = |path: &Path| fs::metadata(path).map(|meta| (meta.dev(), meta.ino()));
    matches!((file(output), file(input)), (Ok(output), Ok(input)) if output == input)
}

fn refuse_irregular(output: &Path) -> Result<()> {
    let old = output.symlink_metadata();
    if old.is_ok_and(|meta| !meta.is_file()) {
        refuse!(
            "{} is there and no regular file; name another file to write",
            output.display()
        );
    }
    Ok(())
}

/// A file being written for the place of `output`. Where the file system can do that,
/// it has no name until it is whole, so that nothing is left however this process ends;
/// else it has one beside `output`, and dropped unfinished, it is removed.
pub struct Draft {
    file: File,
    name: Option<PathBuf>,
    output: PathBuf,
}

impl Draft {
    /// Starts a draft of `output`, with the mode and, where that may be given, the owner
    /// of the file that is there.
    ///
    /// # Errors
    /// Class [`Refused`](Class::Refused) when something is there that is no regular file.
    pub fn create(output: &Path) -> Result<Draft> {
        refuse_irregular(output)?;
        let old = output.symlink_metadata().ok();
        // What is to be private is so from the beginning.
        let mode = if old.is_some() { 0o600 } else { 0o666 };
        let (file, name) = match create_nameless(output, mode)? {
            Some(file) => (file, None),
            None => {
                let name = name_beside(output);
                (create_named(&name, mode)?, Some(name))
            }
        };
        let draft = Draft {
            file,
            name,
            output: output.to_owned(),
        };
        if let Some(old) = old {
            // Only root may give a file away; a mode for others than the owner holds
            // for whoever the group is then.
            let _ = fchown(&draft.file, Some(old.uid()), Some(old.gid()));
            let kept = draft.file.set_permissions(old.permissions());
            kept.with_context(|| format!("keeping the mode of {}", output.display()))?;
        }
        Ok(draft)
    }

    /// Returns the file to write to.
    pub fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Makes the draft durable and puts it in the output's place.
    pub fn commit(mut self) -> Result<()> {
        self.put()
            .with_context(|| format!("writing {}", self.output.display()))?;
        files::sync_dir(parent(&self.output))
    }

    fn put(&mut self) -> Result<()> {
        self.file.sync_all()?;
        let name = match &self.name {
            Some(name) => name,
            None => {
                let name = name_beside(&self.output);
                linkat(
                    AT_FDCWD,
                    &*own_path(&self.file),
                    AT_FDCWD,
                    &name,
                    AtFlags::AT_SYMLINK_FOLLOW,
                )?;
                self.name.insert(name)
            }
        };
        fs::rename(name, &self.output)?;
        self.name = None;
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        let Some(name) = &self.name else { return };
        if let Err(error) = fs::remove_file(name) {
            stderr::say(&format!("warning: removing {}: {error}", name.display()));
        }
    }
}

/// Opens a file on the file system of `output` that has no name.
pub fn scratch(output: &Path) -> Result<File> {
    files::unnamed_file(parent(output))
}

/// Makes a file without a name that can be given one; `None` where that is unknown:
/// kernels before 3.11, some file systems, a system without `/proc`.
fn create_nameless(output: &Path, mode: u32) -> Result<Option<File>> {
    let made = OpenOptions::new()
        .read(true)
        .write(true)
        .mode(mode)
        .custom_flags(OFlag::O_TMPFILE.bits())
        .open(parent(output));
    match made {
        Ok(file) => Ok(own_path(&file).exists().then_some(file)),
        Err(error) => match error.raw_os_error() {
            Some(libc::EISDIR | libc::EOPNOTSUPP | libc::EINVAL) => Ok(None),
            _ => Err(error).with_context(|| format!("creating {}", output.display())),
        },
    }
}

/// Returns a path of an open file that leads to it whatever its name.
fn own_path(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// Returns a name beside `output` that nobody can foresee.
fn name_beside(output: &Path) -> PathBuf {
    let random = RandomState::new().build_hasher().finish();
    let mut name = OsString::from(".");
    name.push(output.file_name().unwrap_or_default());
    name.push(format!(".{random:016x}.part"));
    parent(output).join(name)
}

/// Makes a file that was not there, not even as a link.
fn create_named(path: &Path, mode: u32) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .with_context(|| format!("creating {}", path.display()))
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
    use crate::failure::class_of;
    use std::io::Write;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn an_output_that_cannot_be_written_or_is_an_input_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let (source, link) = (dir.join("disk.raw"), dir.join("link"));
        fs::write(&source, "").unwrap();
        symlink("disk.raw", &link).unwrap();
        let inputs = [("the key", Path::new("none")), ("the source", &source)];
        for (output, word) in [
            (dir.join("missing/x.vab"), "no directory"),
            (dir.to_owned(), "is a directory"),
            (source.clone(), "is the source"),
            (link, "is the source"),
            (PathBuf::from("/dev/null"), "no regular file"),
            (dir.join(".."), "not the name"),
        ] {
            let error = check_output(&output, &inputs).unwrap_err();
            assert_eq!(class_of(&error), Class::Refused, "{error:#}");
            assert!(format!("{error:#}").contains(word), "{error:#}");
        }
        let good = dir.join("x.vab");
        fs::write(&good, "old").unwrap();
        assert_eq!(check_output(&good, &inputs).unwrap(), good);
        assert_eq!(fs::read(&good).unwrap(), b"old");
    }

    #[test]
    fn what_is_no_file_is_never_replaced_and_a_file_keeps_its_mode() {
        let dir = tempfile::tempdir().unwrap();
        let (link, victim) = (dir.path().join("link"), dir.path().join("victim"));
        fs::write(&victim, "precious").unwrap();
        symlink(&victim, &link).unwrap();
        for path in [&link, Path::new("/dev/null"), dir.path()] {
            let error = Draft::create(path).err().unwrap();
            assert_eq!(class_of(&error), Class::Refused, "{error:#}");
        }
        fs::set_permissions(&victim, PermissionsExt::from_mode(0o640)).unwrap();
        Draft::create(&victim).unwrap().commit().unwrap();
        let mode = fs::metadata(&victim).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o640);
    }

    #[test]
    fn two_drafts_of_one_file_are_two_files() {
        let dir = tempfile::tempdir().unwrap();
        let output = dir.path().join("a.vab");
        let mut first = Draft::create(&output).unwrap();
        let mut second = Draft::create(&output).unwrap();
        first.file().write_all(b"first").unwrap();
        second.file().write_all(b"second").unwrap();
        first.commit().unwrap();
        assert_eq!(fs::read(&output).unwrap(), b"first");
        second.commit().unwrap();
        assert_eq!(fs::read(&output).unwrap(), b"second");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_draft_has_no_name_or_one_that_nobody_can_foresee() {
        let dir = tempfile::tempdir().unwrap();
        let output = dir.path().join("a.vab");
        let draft = Draft::create(&output).unwrap();
        if draft.name.is_none() {
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        }
        let (one, other) = (name_beside(&output), name_beside(&output));
        assert_ne!(one, other);
        let victim = dir.path().join("victim");
        symlink(&victim, &one).unwrap();
        assert!(create_named(&one, 0o600).is_err());
        assert!(!victim.exists());
        let draft = Draft {
            file: create_named(&other, 0o600).unwrap(),
            name: Some(other.clone()),
            output: output.clone(),
        };
        draft.commit().unwrap();
        assert!(output.exists() && !other.exists());
    }

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
