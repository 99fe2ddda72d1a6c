//! Things that are made whole before any of them is put in place.
//!
//! They are made in one directory of the target's own file system, where no program
//! looks for settings, and get there with everything but their SELinux label, which
//! the target's policy gives them.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::fcntl::OFlag;
use nix::unistd::syncfs;

use super::like::Like;
use super::source::Source;
use crate::accounts::IdMap;
use crate::system::files;
use crate::tree::meta::Kind;
use crate::tree::resolve;

/// The directory, relative to the target's root.
const DIR: &str = ".va-upgrade-sync";

/// What a file holds.
pub enum Content<'a> {
    /// That of another file.
    Of(&'a Path),
    /// That of an open one, from its beginning.
    Open(&'a File),
    /// These bytes.
    Bytes(&'a [u8]),
}

/// Makes the file `to` anew.
///
/// # Errors
/// When something is there already, or it cannot be written.
pub fn make_file(to: &Path, content: &Content, like: &Like) -> Result<()> {
    let make = || -> Result<()> {
        let mut file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(to)?;
        match content {
            Content::Bytes(bytes) => file.write_all(bytes)?,
            Content::Open(from) => drop(io::copy(&mut &**from, &mut file)?),
            Content::Of(path) => {
                let mut from = File::options()
                    .read(true)
                    .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits())
                    .open(path)
                    .with_context(|| format!("opening {}", path.display()))?;
                io::copy(&mut from, &mut file)?;
            }
        }
        like.give_to(&file, to)?;
        file.sync_all()?;
        Ok(())
    };
    make().with_context(|| format!("writing {}", to.display()))
}

/// Something that waits to be put in place.
enum Made {
    Dir(PathBuf, Like),
    Node(PathBuf, PathBuf),
    Removal(PathBuf),
}

/// What has been made for the tree at `root`.
pub struct Aside<'a> {
    root: &'a Path,
    dir: PathBuf,
    made: Vec<Made>,
}

impl<'a> Aside<'a> {
    /// Begins with nothing; what a killed run has left is removed.
    ///
    /// # Errors
    /// When the directory cannot be made.
    pub fn new(root: &'a Path) -> Result<Aside<'a>> {
        let dir = root.join(DIR);
        files::remove_tree(&dir)?;
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&dir)
            .with_context(|| format!("making {}", dir.display()))?;
        let made = Vec::new();
        Ok(Aside { root, dir, made })
    }

    /// Returns a new name in the directory: for us, and inside the tree.
    pub fn name(&self, what: &str) -> (PathBuf, PathBuf) {
        let name = format!("{what}{}", self.made.len());
        let inside = Path::new("/").join(DIR).join(&name);
        (self.dir.join(name), inside)
    }

    /// Makes the file that is to be at `path`, relative to the root.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn file(&mut self, path: &Path, content: &Content, like: &Like) -> Result<()> {
        let (to, _) = self.name("");
        make_file(&to, content, like)?;
        self.made.push(Made::Node(to, path.to_owned()));
        Ok(())
    }

    /// Makes the symbolic link that is to be at `path`.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn link(&mut self, path: &Path, end: &Path, like: &Like) -> Result<()> {
        let (to, _) = self.name("");
        symlink(end, &to)
            .and_then(|()| lchown(&to, Some(like.uid), Some(like.gid)))
            .with_context(|| format!("making {}", to.display()))?;
        self.made.push(Made::Node(to, path.to_owned()));
        Ok(())
    }

    /// Notes a directory that is to be at `path`.
    pub fn dir(&mut self, path: &Path, like: Like) {
        self.made.push(Made::Dir(path.to_owned(), like));
    }

    /// Notes that nothing is to be at `path`.
    pub fn removal(&mut self, path: &Path) {
        self.made.push(Made::Removal(path.to_owned()));
    }

    /// Puts everything in place; directories that are missing on the way become
    /// like those of the tree at `from`. Returns what could not be put where a
    /// directory of the target is.
    ///
    /// # Errors
    /// When something cannot be put in place.
    pub fn place(self, from: &Path, ids: &IdMap) -> Result<Vec<PathBuf>> {
        let mut in_the_way = Vec::new();
        for made in &self.made {
            match made {
                Made::Dir(path, like) => {
                    self.make_parents(path, from, ids)?;
                    place_dir(self.root, path, like)?;
                }
                Made::Node(aside, path) => {
                    let to = self.destination(path, from, ids)?;
                    if to.symlink_metadata().is_ok_and(|meta| meta.is_dir()) {
                        in_the_way.push(path.clone());
                        continue;
                    }
                    fs::rename(aside, &to).with_context(|| format!("writing {}", to.display()))?;
                }
                Made::Removal(_) => {}
            }
        }
        for made in self.made.iter().rev() {
            if let Made::Removal(path) = made {
                remove(self.root, path)?;
            }
        }
        files::remove_tree(&self.dir)?;
        syncfs(File::open(self.root)?).context("writing to the disk")?;
        Ok(in_the_way)
    }

    fn destination(&self, path: &Path, from: &Path, ids: &IdMap) -> Result<PathBuf> {
        self.make_parents(path, from, ids)?;
        let parent = path.parent().unwrap_or(Path::new(""));
        let parent = resolve::place(self.root, parent)?;
        Ok(parent.join(path.file_name().unwrap_or_default()))
    }

    /// Makes the directories above `path` that the target lacks.
    fn make_parents(&self, path: &Path, from: &Path, ids: &IdMap) -> Result<()> {
        let mut missing = Vec::new();
        for ancestor in path.ancestors().skip(1) {
            if resolve::resolve(self.root, ancestor)?.is_some() {
                break;
            }
            missing.push(ancestor);
        }
        for dir in missing.into_iter().rev() {
            let like = match Source::find(from, dir)? {
                Some(found) if found.kind == Kind::Dir => found.like(ids)?,
                // It is no directory any more, or a link to one.
                _ => Like::of_root(0o755),
            };
            place_dir(self.root, dir, &like)?;
        }
        Ok(())
    }
}

fn place_dir(root: &Path, path: &Path, like: &Like) -> Result<()> {
    let to = resolve::place(root, path)?;
    let place = || -> Result<()> {
        match to.symlink_metadata() {
            Ok(meta) if meta.is_dir() => {}
            Ok(_) => bail!("it is no directory in the new system"),
            Err(_) => fs::DirBuilder::new().mode(0o700).create(&to)?,
        }
        like.give_to(&File::open(&to)?, &to)
    };
    place().with_context(|| format!("making {}", to.display()))
}

/// Removes what is at `path`; a directory only when nothing is in it.
fn remove(root: &Path, path: &Path) -> Result<()> {
    let parent = path.parent().unwrap_or(Path::new(""));
    let Some(parent) = resolve::resolve(root, parent)? else {
        return Ok(());
    };
    let place = root.join(parent).join(path.file_name().unwrap_or_default());
    let removed = match place.symlink_metadata() {
        Err(_) => return Ok(()),
        Ok(meta) if meta.is_dir() => fs::remove_dir(&place),
        Ok(_) => fs::remove_file(&place),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
        other => other.with_context(|| format!("removing {}", place.display())),
    }
}
