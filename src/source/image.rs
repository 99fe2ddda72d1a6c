//! The root file system of a disk image, and what its fstab mounts below it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::content::Content;
use super::disks::Disks;
use super::opened::{Opened, SourceOptions, drop_in_reverse};
use super::raw::RawImage;
use super::root::Search;
use super::volume::{self, Name, Volume, list_names};
use super::{guest, place};
use crate::failure::{Class, Classify};
use crate::linux::fstab::{self, Line, Owner};
use crate::progress::Progress;
use crate::refuse;
use crate::system::{Mounted, System};
use crate::tree::resolve;

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

impl<'a, 'i> Disks<'a, 'i> {
    /// Mounts the tree and returns its directory; `mounts` gets all mounts in order.
    fn mount_all(&self, mounts: &mut Vec<Mounted<'a>>) -> Result<PathBuf> {
        let place = place::make(self.sys, self.source, self.options)?;
        let tree = place.path().join("tree");
        mounts.push(place);
        let root = match self.find_root(&tree)? {
            Search::Found(root) => root,
            Search::NotHere(reasons) => {
                self.mount_by_guest(&reasons, &tree, mounts)?;
                return Ok(tree);
            }
        };
        self.progress
            .note(&format!("the root file system is {}", root.name));
        mounts.push(self.mount(root, &tree)?);
        let fstab = read_fstab(&tree)?;
        self.check_root(root, &fstab)?;
        let lines = below_root(fstab);
        if let Some(reason) = self.out_of_reach(&lines) {
            if let Some(root_mount) = mounts.pop() {
                root_mount.unmount()?;
            }
            self.mount_by_guest(&[reason], &tree, mounts)?;
            return Ok(tree);
        }
        for line in &lines {
            mounts.extend(self.mount_line(line, root, &tree)?);
        }
        Ok(tree)
    }

    /// Compares what was found with what the root's own fstab says of it.
    ///
    /// # Errors
    /// Class `Refused` when that is another volume.
    fn check_root(&self, root: &Volume, lines: &[Line]) -> Result<()> {
        let own = lines
            .iter()
            .filter(|line| line.mount_point == Path::new("/") && line.is_on_disk())
            .find(|line| !root.is_named_by(&line.source));
        let Some(line) = own else {
            return Ok(());
        };
        let (shown, named) = (self.source.display(), self.volume_of(line));
        let is_elsewhere = named.is_some() || volume::is_on_another_disk(&line.source, root);
        let what = match named {
            Some(other) => format!("{} ({})", line.source, other.name),
            None => format!("{}, which is not in the image", line.source),
        };
        if is_elsewhere && self.options.root.is_none() {
            refuse!(
                "the root file system found in {shown} is {}, but its fstab mounts {what} on /; \
                 give all disks of the VM in their order, or choose a root with --root",
                root.name
            );
        }
        self.progress
            .note(&format!("the root's own fstab mounts {what} on /"));
        Ok(())
    }

    /// Tells why the system needs something that can only be opened in a guest.
    fn out_of_reach(&self, lines: &[Line]) -> Option<String> {
        lines
            .iter()
            .filter(|line| belongs_to_system(line))
            .find_map(|line| {
                let volume = self.volume_of(line)?;
                match &volume.content {
                    Content::Closed(reason) if !self.is_data(volume) => Some(format!(
                        "{} for {} is {reason}",
                        volume.name,
                        line.mount_point.display()
                    )),
                    _ => None,
                }
            })
    }

    /// Mounts what one line of fstab names, if it belongs to the system.
    fn mount_line(&self, line: &Line, root: &Volume, tree: &Path) -> Result<Option<Mounted<'a>>> {
        let mount_point = line.mount_point.display();
        let leave_out = |reason: &str| {
            self.progress.note(&format!(
                "left out {mount_point} ({}): {reason}",
                line.source
            ));
            Ok(None)
        };
        if !line.is_on_disk() {
            return match line.fs_type.as_str() {
                "proc" | "sysfs" | "tmpfs" | "devpts" | "iso9660" | "udf" => Ok(None),
                _ => leave_out("not a file system on a disk of the image"),
            };
        }
        let Some(volume) = self.volume_of(line) else {
            if !belongs_to_system(line) || line.may_be_absent() {
                return leave_out("not in the image");
            }
            refuse!(
                "{} does not hold {}, which its fstab mounts on {mount_point}; give an image \
                 with all its disks, or mark the line nofail",
                self.source.display(),
                line.source
            );
        };
        if self.is_data(volume) {
            return leave_out("a data volume");
        }
        if !belongs_to_system(line) {
            return leave_out("not a part of the system");
        }
        if volume.name == root.name {
            refuse!(
                "the fstab in {} mounts {} on {mount_point}, and that is the root file system \
                 itself; give all disks of the VM in their order",
                self.source.display(),
                line.source
            );
        }
        let beneath = resolve::resolve(tree, &line.mount_point)
            .with_context(|| format!("looking up {mount_point} in the image"))?;
        let Some(point) = beneath
            .map(|path| tree.join(path))
            .filter(|dir| dir.is_dir())
        else {
            refuse!(
                "{} has no directory {mount_point} to mount {} on; make it in the VM",
                self.source.display(),
                volume.name
            );
        };
        match self.mount(volume, &point) {
            // The machines this is for boot by BIOS; kernels without vfat exist.
            Err(error) if is_efi_partition(line) => leave_out(&format!("{error:#}")),
            other => other.map(Some),
        }
    }

    fn volume_of(&self, line: &Line) -> Option<&'i Volume> {
        self.volumes
            .iter()
            .find(|volume| volume.is_named_by(&line.source))
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
        if self.options.root.is_some() || !guest::is_installed() {
            refuse!(
                "the system in {shown} cannot be opened here: {why}; \
                 install guestmount (package libguestfs-tools), and leave --root away, \
                 or mount the system yourself and give the directory"
            );
        }
        self.progress
            .note(&format!("using guestmount, because {why}"));
        guest::mount(self.sys, self.disks, at, mounts)
            .with_context(|| format!("opening {shown} with guestmount"))
            .class(Class::Refused)?;
        let covered = below_root(read_fstab(at)?);
        for line in covered.iter().filter(|line| !belongs_to_system(line)) {
            mounts.extend(guest::cover(self.sys, at, &line.mount_point)?);
        }
        Ok(())
    }
}

fn belongs_to_system(line: &Line) -> bool {
    line.owner() != Owner::Customer
}

fn is_efi_partition(line: &Line) -> bool {
    line.fs_type == "vfat"
        && ["/boot/efi", "/efi"]
            .iter()
            .any(|efi| line.mount_point == Path::new(efi))
}

fn is_whole_disk(volume: &Volume) -> bool {
    matches!(volume.name, Name::Disk(_))
}

fn read_fstab(tree: &Path) -> Result<Vec<Line>> {
    const MAX_BYTES: u64 = 1 << 20;
    let found = resolve::resolve(tree, Path::new("etc/fstab")).context("looking up /etc/fstab")?;
    let Some(file) = found
        .map(|path| tree.join(path))
        .filter(|file| file.is_file())
    else {
        return Ok(Vec::new());
    };
    if fs::metadata(&file)?.len() > MAX_BYTES {
        refuse!("the image's /etc/fstab has more than {MAX_BYTES} bytes");
    }
    let bytes = fs::read(&file).context("reading the image's /etc/fstab")?;
    Ok(fstab::parse(&String::from_utf8_lossy(&bytes)))
}

/// Returns what is mounted below the root, parents before children.
fn below_root(mut lines: Vec<Line>) -> Vec<Line> {
    lines.retain(Line::is_below_root);
    lines.sort_by(|a, b| a.mount_point.cmp(&b.mount_point));
    lines
}
