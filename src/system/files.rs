//! The one way to replace a file safely, to empty a directory and to tell what is
//! in one, and where temporary files go.

use std::collections::BTreeMap;
use std::env;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};
use nix::fcntl::{FallocateFlags, OFlag, fallocate};
use nix::libc;
use nix::unistd::mkdtemp;

use super::removal;
use crate::sha::Sha;
use crate::{input, signals, stderr, yaml};

/// The largest record that is read, in bytes.
const MAX_RECORD_BYTES: u64 = 64 << 10;

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
        // Whatever is there under that name, a link for instance, is not ours.
        if temp.symlink_metadata().is_ok() {
            fs::remove_file(&temp)?;
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
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

/// Reads a small YAML record.
///
/// # Errors
/// When it is not there, too large or not of the wanted shape.
pub fn read_yaml<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    let read = || -> Result<T> {
        let (text, _) = input::read_file(path, MAX_RECORD_BYTES)?;
        yaml::parse(&text)
    };
    read().with_context(|| format!("reading {}", path.display()))
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

/// Left free on the file system that holds temporary files, in bytes.
pub const SPARE_BYTES: u64 = 64 << 20;

/// Returns the directory for temporary files, which may be large.
pub fn temp_dir() -> PathBuf {
    env::var_os("TMPDIR").map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from)
}

/// A directory for temporary files that programs need by name; nobody else can
/// look into it, and it is removed with all that is in it.
pub struct ScratchDir(PathBuf);

impl ScratchDir {
    /// Makes an empty one.
    ///
    /// # Errors
    /// When there is no room for it.
    pub fn new() -> Result<ScratchDir> {
        let parent = temp_dir();
        let made = mkdtemp(&parent.join("va-upgrade.XXXXXX"));
        let path = made.with_context(|| format!("making a directory in {}", parent.display()))?;
        Ok(ScratchDir(path))
    }

    /// Returns where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for ScratchDir {
    fn drop(&mut self) {
        if let Err(error) = remove_tree(&self.0) {
            stderr::say(&format!("warning: {error:#}"));
        }
    }
}

/// Makes a file for reading and writing in `dir` that has no name, so that
/// nothing is left of it when this process ends, however it ends.
///
/// # Errors
/// When `dir` cannot be written to.
pub fn unnamed_file(dir: &Path) -> Result<File> {
    let context = || format!("making a temporary file in {}", dir.display());
    let unnamed = OpenOptions::new()
        .read(true)
        .write(true)
        .mode(0o600)
        .custom_flags(OFlag::O_TMPFILE.bits())
        .open(dir);
    match unnamed.as_ref().map_err(io::Error::raw_os_error) {
        // Kernels before 3.11 and some file systems do not know the flag.
        Err(Some(libc::EISDIR | libc::EOPNOTSUPP | libc::EINVAL)) => {}
        _ => return unnamed.with_context(context),
    }
    nameless_at_once(dir).with_context(context)
}

/// Moves `length` bytes from the beginning of `from` to where `to` stands. What has
/// been moved takes no room in `from` any more, where the file system can do that.
///
/// # Errors
/// When `from` is shorter, or either fails.
pub fn move_bytes(from: &File, to: &mut File, length: u64) -> Result<()> {
    const STEP_BYTES: u64 = 64 << 20;
    let mode = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    let mut done = 0;
    while done < length {
        let step = STEP_BYTES.min(length - done);
        copy_bytes(from, done, to, step)?;
        // Twice the room is what it takes where this is not known.
        let _ = fallocate(from, mode, i64::try_from(done)?, i64::try_from(step)?);
        done += step;
    }
    Ok(())
}

/// Returns every regular file below `dir` with its digest, by its path from there;
/// links are not followed.
///
/// # Errors
/// When something cannot be read.
pub fn digests(dir: &Path) -> Result<BTreeMap<PathBuf, Sha>> {
    let mut found = BTreeMap::new();
    let mut todo = vec![PathBuf::new()];
    while let Some(inside) = todo.pop() {
        let next = dir.join(&inside);
        let listed = fs::read_dir(&next).with_context(|| format!("listing {}", next.display()))?;
        for entry in listed {
            let entry = entry?;
            let (kind, path) = (entry.file_type()?, inside.join(entry.file_name()));
            if kind.is_dir() {
                todo.push(path);
            } else if kind.is_file() {
                let digest = Sha::of_file(&entry.path())?;
                found.insert(path, digest);
            }
        }
    }
    Ok(found)
}

/// Copies `length` bytes of `from`, beginning with byte `at`, to where `to` stands.
///
/// # Errors
/// When `from` is shorter, either fails, or a signal comes.
pub fn copy_bytes(from: &File, at: u64, to: &mut File, length: u64) -> Result<()> {
    const STEP_BYTES: u64 = 64 << 20;
    let mut from = from;
    from.seek(SeekFrom::Start(at))?;
    let mut left = length;
    while left > 0 {
        signals::check()?;
        let step = STEP_BYTES.min(left);
        let copied = io::copy(&mut from.take(step), to)?;
        ensure!(copied == step, "it has become shorter meanwhile");
        left -= step;
    }
    Ok(())
}

/// Makes a file and removes its name in the next moment.
fn nameless_at_once(dir: &Path) -> io::Result<File> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let path = dir.join(format!(".va-upgrade-{}-{count}", std::process::id()));
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)?;
    fs::remove_file(&path)?;
    Ok(file)
}

/// Removes a directory tree that is known to hold no mount; absent is fine.
///
/// # Errors
/// When an entry cannot be removed.
pub fn remove_tree(dir: &Path) -> Result<()> {
    removal::remove(dir).with_context(|| format!("removing {}", dir.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_replacement_leaves_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        write_atomic(&path, b"old", 0o600).unwrap();
        fs::create_dir(dir.path().join("a.new")).unwrap();
        assert!(write_atomic(&path, b"new", 0o600).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"old");
    }

    #[test]
    fn a_scratch_directory_is_private_and_goes_with_all_that_is_in_it() {
        let scratch = ScratchDir::new().unwrap();
        let path = scratch.path().to_owned();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o700);
        fs::create_dir(path.join("a")).unwrap();
        fs::write(path.join("a/b"), "x").unwrap();
        drop(scratch);
        assert!(!path.exists());
    }

    #[test]
    fn what_has_been_moved_takes_no_room_any_more() {
        use std::os::unix::fs::MetadataExt;
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let mut from = unnamed_file(dir.path()).unwrap();
        from.write_all(&vec![7; 3 << 20]).unwrap();
        from.sync_all().unwrap();
        let before = from.metadata().unwrap().blocks();
        let to = dir.path().join("to");
        move_bytes(&from, &mut File::create(&to).unwrap(), 3 << 20).unwrap();
        assert_eq!(fs::read(&to).unwrap(), vec![7; 3 << 20]);
        assert!(from.metadata().unwrap().blocks() < before);
        assert!(move_bytes(&from, &mut File::create(&to).unwrap(), 4 << 20).is_err());
    }

    #[test]
    fn an_unnamed_file_is_nowhere_to_be_seen() {
        let dir = tempfile::tempdir().unwrap();
        let files = [
            unnamed_file(dir.path()).unwrap(),
            nameless_at_once(dir.path()).unwrap(),
            nameless_at_once(dir.path()).unwrap(),
        ];
        for mut file in files {
            file.write_all(b"x").unwrap();
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
