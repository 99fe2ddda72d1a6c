//! The root file system of a disk image, and what its fstab mounts below it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::content::Content;
use super::disks::Disks;
use super::lines::{belongs_to_system, below_root, read_fstab};
use super::opened::{Opened, Reader, SourceOptions, drop_in_reverse};
use super::raw::RawImage;
use super::root::Search;
use super::volume::{self, Name, Volume, list_names};
use super::{guest, place};
use crate::failure::{Class, Classify};
use crate::progress::Progress;
use crate::refuse;
use crate::system::{Mounted, System};

/// Opens the system in `disks`, which came from `source`.
///
/// # Errors
/// Class `Refused` when there is no root or something it needs is missing.
pub fn open<'a>(
    sys: &'a dyn System,
    source: &Path,
    disks: Vec<RawImage>,
    options: &SourceOptions,
    progress: &dyn Progress,
) -> Result<Opened<'a>> {
    let volumes = volume::list(&disks).with_context(|| format!("opening {}", source.display()))?;
    let mut mounts = Vec::new();
    let image = Disks {
        sys,
        source,
        disks: &disks,
        volumes: &volumes,
        options,
        progress,
    };
    let root = match image.mount_all(&mut mounts) {
        Ok(root) => root,
        Err(error) => {
            drop_in_reverse(&mut mounts);
            return Err(error);
        }
    };
    Ok(Opened {
        root,
        mounts,
        _disks: disks,
        unpacked: None,
    })
}

impl<'a> Disks<'a, '_> {
    /// Mounts the tree and returns its directory; `mounts` gets all mounts in order.
    fn mount_all(&self, mounts: &mut Vec<Mounted<'a>>) -> Result<PathBuf> {
        let place = place::make(self.sys, self.source, self.options)?;
        let tree = place.path().join("tree");
        mounts.push(place);
        if self.options.reader == Reader::Guest {
            self.mount_untrusted(&tree, mounts)?;
            return Ok(tree);
        }
        let found = match self.find_root(&tree)? {
            Search::Found(found) => found,
            Search::NotHere(reasons) => {
                self.mount_by_guest(&reasons, &tree, mounts)?;
                return Ok(tree);
            }
        };
        let root = found.root;
        mounts.push(self.mount(root, &tree)?);
        let fstab = read_fstab(&tree)?;
        self.check_rivals(&found, &fstab, &tree)?;
        self.progress
            .note(&format!("the root file system is {}", root.name));
        self.check_root(root, &fstab)?;
        let mut named = self.volumes_of(&fstab);
        named.retain(|name| found.others.iter().all(|other| other.name != *name));
        named.push(root.name.clone());
        let lines = below_root(fstab);
        if let Some(reason) = self.out_of_reach(&lines) {
            if let Some(root_mount) = mounts.pop() {
                root_mount.unmount()?;
            }
            self.mount_by_guest(&[reason], &tree, mounts)?;
            return Ok(tree);
        }
        let mut packed = vec![root];
        for line in &lines {
            mounts.extend(self.mount_line(line, root, &tree, &mut packed)?);
        }
        if let Some((first, second)) = volume::sharing(&packed) {
            refuse!(
                "{} and {} in {} have the same bytes, which no machine could use; choose what to \
                 pack in the VM's fstab",
                first.name,
                second.name,
                self.source.display()
            );
        }
        self.name_left_out(&named, &found.others, &tree)?;
        Ok(tree)
    }

    /// Opens the image with `guestmount`, or says why it would have been needed.
    fn mount_by_guest(
        &self,
        reasons: &[String],
        at: &Path,
        mounts: &mut Vec<Mounted<'a>>,
    ) -> Result<()> {
        let why = reasons.join("; ");
        let shown = self.source.display();
        let closed = self
            .volumes
            .iter()
            .any(|volume| matches!(volume.content, Content::Closed(_)));
        if !closed {
            let held = match reasons {
                [] if self.volumes.iter().all(is_whole_disk) => {
                    "it has no partitions and no LVM".to_owned()
                }
                [] => format!("only {}", list_names(self.volumes.iter())),
                _ => why,
            };
            refuse!(
                "{shown} holds no root file system (one with os-release and init) that can be \
                 opened: {held}"
            );
        }
        if self.options.root.is_some() {
            refuse!(
                "the system that --root chooses in {shown} cannot be opened here: {why}; mount \
                 it yourself and give the directory"
            );
        }
        if !guest::is_installed() {
            refuse!(
                "the system in {shown} cannot be opened here: {why}; install guestmount \
                 (package libguestfs-tools), or mount the system yourself and give the directory"
            );
        }
        self.progress
            .note(&format!("using guestmount, because {why}"));
        self.enter_guest(at, mounts)
    }

    /// Opens the image with `guestmount` alone.
    fn mount_untrusted(&self, at: &Path, mounts: &mut Vec<Mounted<'a>>) -> Result<()> {
        if !guest::is_installed() {
            refuse!(
                "{} is not to be trusted, and only guestmount keeps its file systems away from \
                 this machine's kernel: install it (package libguestfs-tools), or build in a \
                 virtual machine that is thrown away",
                self.source.display()
            );
        }
        self.enter_guest(at, mounts)
    }

    /// Opens the image with `guestmount` and hides what does not belong to the system.
    fn enter_guest(&self, at: &Path, mounts: &mut Vec<Mounted<'a>>) -> Result<()> {
        let shown = self.source.display();
        guest::mount(self.sys, self.disks, at, mounts)
            .with_context(|| format!("opening {shown} with guestmount"))
            .class(Class::Refused)?;
        let fstab = read_fstab(at)?;
        let named = self.volumes_of(&fstab);
        for line in below_root(fstab) {
            if self.is_data_line(&line)? {
                self.leave_out(&line, "a data volume");
            } else if !belongs_to_system(&line) {
                self.leave_out(&line, "not a part of the system");
            } else {
                continue;
            }
            mounts.extend(guest::cover(self.sys, at, &line.mount_point)?);
        }
        self.name_left_out(&named, &[], at)?;
        guest::check_links(at, self.source)
    }
}

fn is_whole_disk(volume: &Volume) -> bool {
    matches!(volume.name, Name::Disk(_))
}
