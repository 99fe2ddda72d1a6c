//! A source that is open.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::raw::RawImage;
use crate::system::Mounted;
use crate::system::files::ScratchDir;
use crate::tree::attributes::{Notes, Tree};

/// What looks into the file systems of an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reader {
    /// This machine's kernel where it can, `guestmount` else.
    #[default]
    Kernel,
    /// A kernel in a virtual machine, `guestmount`'s, and no other.
    Guest,
}

/// How to read a source.
#[derive(Clone, Debug)]
pub struct SourceOptions {
    /// Which file system is the root, by any of the names that messages and
    /// fstab use; needed where several may be the one.
    pub root: Option<String>,
    /// Names of logical volumes that belong to the customer, never packed.
    pub data_volumes: Vec<String>,
    /// What looks into the file systems of an image.
    pub reader: Reader,
    /// Paths that must stay visible while the source is open.
    pub keep_visible: Vec<PathBuf>,
}

impl Default for SourceOptions {
    fn default() -> SourceOptions {
        SourceOptions {
            root: None,
            data_volumes: vec!["data".into(), "image".into()],
            reader: Reader::Kernel,
            keep_visible: Vec::new(),
        }
    }
}

/// An archive that was unpacked, as far as that needs no rights.
pub(super) struct Unpacked {
    pub(super) notes: Notes,
    pub(super) _scratch: ScratchDir,
}

/// A source that is open; dropping it closes it.
pub struct Opened<'a> {
    pub(super) root: PathBuf,
    /// In the order they were made.
    pub(super) mounts: Vec<Mounted<'a>>,
    /// Behind the mounts, so dropped after them.
    pub(super) _disks: Vec<RawImage>,
    /// Where an archive was unpacked.
    pub(super) unpacked: Option<Unpacked>,
}

impl Opened<'_> {
    /// Returns the directory that holds the tree.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns the tree with its attributes, which for an archive are not all in
    /// that directory.
    pub fn tree(&self) -> Tree<'_> {
        match &self.unpacked {
            Some(unpacked) => Tree::with_notes(&self.root, &unpacked.notes),
            None => Tree::from(&self.root),
        }
    }

    /// Unmounts everything.
    ///
    /// # Errors
    /// When something in the tree is still in use.
    pub fn close(mut self) -> Result<()> {
        while let Some(mounted) = self.mounts.pop() {
            mounted.unmount()?;
        }
        Ok(())
    }
}

impl Drop for Opened<'_> {
    fn drop(&mut self) {
        drop_in_reverse(&mut self.mounts);
    }
}

/// Unmounts what is mounted on something before that.
pub fn drop_in_reverse(mounts: &mut Vec<Mounted<'_>>) {
    while mounts.pop().is_some() {}
}
