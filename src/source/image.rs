//! The root file system of a disk image, and what its fstab mounts below it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result};

use super::content::{Content, FileSystem};
use super::opened::{Opened, SourceOptions, drop_in_reverse};
use super::raw::RawImage;
use super::volume::{self, Name, Volume};
use super::{guest, place};
use crate::failure::{Class, Classify};
use crate::linux::fstab::{self, Line, Owner};
use crate::progress::{Progress, Step};
use crate::system::{Mount, Mounted, System};
use crate::tree::resolve;
use crate::{refuse, signals};

/// The volume that is the root when several could be.
const ROOT_VOLUME: &str = "root";

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
    let image = OpenImage {
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
    })
}

struct OpenImage<'a, 'i> {
    sys: &'a dyn System,
    source: &'i Path,
    disks: &'i [RawImage],
    volumes: &'i [Volume],
    options: &'i SourceOptions,
    progress: &'i dyn Progress,
}

/// What a search for the root ended with.
enum Search<'i> {
    Found(&'i Volume),
    /// No root, and why the volumes that could be one are none.
    NotHere(Vec<String>),
}

impl<'a, 'i> OpenImage<'a, 'i> {
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
        let lines = read_fstab(&tree)?;
        if let Some(reason) = self.out_of_reach(&lines) {
            if let Some(root_mount) = mounts.pop() {
                root_mount.unmount()?;
            }
            self.mount_by_guest(&[reason], &tree, mounts)?;
            return Ok(tree);
        }
        for line in &lines {
            mounts.extend(self.mount_line(line, &tree)?);
        }
        Ok(tree)
    }

    fn find_root(&self, at: &Path) -> Result<Search<'i>> {
        let volumes = self.volumes;
        if let Some(wanted) = &self.options.root {
            let Some(volume) = volumes.iter().find(|volume| is_called(volume, wanted)) else {
                refuse!(
                    "{} has no volume {wanted:?}; it has {}",
                    self.source.display(),
                    list_names(volumes.iter())
                );
            };
            if let Content::Closed(reason) = &volume.content {
                return Ok(Search::NotHere(vec![format!(
                    "{} is {reason}",
                    volume.name
                )]));
            }
            if !self.is_root(volume, at)? {
                refuse!(
                    "{} in {} is not a root file system (no os-release and init in it)",
                    volume.name,
                    self.source.display()
                );
            }
            return Ok(Search::Found(volume));
        }
        let candidates = volumes.iter().filter(|volume| !self.is_data(volume));
        let (called_root, others): (Vec<&Volume>, Vec<&Volume>) = candidates.partition(
            |volume| matches!(&volume.name, Name::Logical(_, name) if name == ROOT_VOLUME),
        );
        let mut reasons = Vec::new();
        for group in [called_root, others] {
            let roots = self.roots_among(&group, at, &mut reasons)?;
            match roots.as_slice() {
                [] => {}
                [root] => return Ok(Search::Found(root)),
                several => refuse!(
                    "{} holds several root file systems: {}; choose one with --root",
                    self.source.display(),
                    list_names(several.iter().copied())
                ),
            }
            // A root volume that cannot be opened is not replaced by another one.
            if !reasons.is_empty() && group.iter().any(|volume| is_called_root(volume)) {
                break;
            }
        }
        Ok(Search::NotHere(reasons))
    }

    /// Returns those of `volumes` that hold a root file system; `reasons` gets
    /// why others could not be looked at.
    fn roots_among(
        &self,
        volumes: &[&'i Volume],
        at: &Path,
        reasons: &mut Vec<String>,
    ) -> Result<Vec<&'i Volume>> {
        let mut roots = Vec::new();
        for volume in volumes {
            if let Content::Closed(reason) = &volume.content {
                reasons.push(format!("{} is {reason}", volume.name));
                continue;
            }
            match self.is_root(volume, at) {
                Ok(true) => roots.push(*volume),
                Ok(false) => {}
                Err(error) => {
                    signals::check()?;
                    reasons.push(format!("{error:#}"));
                }
            }
        }
        Ok(roots)
    }

    /// Tells whether `volume` holds a root file system, mounting it for the moment.
    fn is_root(&self, volume: &Volume, at: &Path) -> Result<bool> {
        match &volume.content {
            Content::FileSystem(file_system) if file_system.kind != "vfat" => {}
            _ => return Ok(false),
        }
        let mounted = self.mount(volume, at)?;
        let answer = looks_like_root(mounted.path());
        mounted.unmount()?;
        answer
    }

    fn mount(&self, volume: &Volume, at: &Path) -> Result<Mounted<'a>> {
        let Content::FileSystem(file_system) = &volume.content else {
            refuse!("{} holds no file system", volume.name);
        };
        if file_system.needs_replay {
            return Err(unclean(volume));
        }
        let assembled;
        let (disk, offset, size_bytes) = match volume.extents.as_slice() {
            [extent] => (&self.disks[extent.disk], extent.offset, extent.size_bytes),
            _ => {
                assembled = self.assemble(volume)?;
                (&assembled, 0, assembled.size_bytes())
            }
        };
        let options = mount_options(file_system, offset, size_bytes);
        let mount = Mount::device(&disk.path(), at, file_system.kind, &options);
        Mounted::new(self.sys, &mount)
            .map_err(|error| match file_system.kind {
                // The log tells; the kernel does not replay it on a read-only disk.
                "xfs" if format!("{error:#}").contains("read-only") => {
                    unclean(volume).context(error)
                }
                _ => error,
            })
            .with_context(|| format!("mounting {} of {}", volume.name, self.source.display()))
            .class(Class::Refused)
    }

    /// Copies a volume that lies in pieces into one temporary file.
    fn assemble(&self, volume: &Volume) -> Result<RawImage> {
        let size_bytes = volume.extents.iter().map(|extent| extent.size_bytes).sum();
        let allocated = self
            .disks
            .iter()
            .map(RawImage::allocated_bytes)
            .sum::<Result<u64>>()?;
        let whole = RawImage::temporary(size_bytes, allocated.min(size_bytes))?;
        self.progress
            .start(Step::Join(volume.name.to_string()), Some(size_bytes));
        let mut at = 0;
        for extent in &volume.extents {
            let range = extent.offset..extent.offset + extent.size_bytes;
            whole.copy_from(&self.disks[extent.disk], range, at, self.progress)?;
            at += extent.size_bytes;
        }
        self.progress.finish();
        Ok(whole)
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
    fn mount_line(&self, line: &Line, tree: &Path) -> Result<Option<Mounted<'a>>> {
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

    fn is_data(&self, volume: &Volume) -> bool {
        matches!(&volume.name, Name::Logical(_, name) if self.options.data_volumes.contains(name))
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
        let covered = read_fstab(at)?;
        for line in covered.iter().filter(|line| !belongs_to_system(line)) {
            mounts.extend(guest::cover(self.sys, at, &line.mount_point)?);
        }
        Ok(())
    }
}

fn unclean(volume: &Volume) -> Error {
    Error::msg(format!(
        "{} was in use when the image was made (its journal holds changes that are not in place); \
         boot the VM and shut it down cleanly",
        volume.name
    ))
}

fn mount_options(file_system: &FileSystem, offset: u64, size_bytes: u64) -> String {
    let mut options = format!("ro,nodev,nosuid,noexec,loop,offset={offset},sizelimit={size_bytes}");
    if file_system.kind == "xfs" {
        // Two slots are often copies of each other, and the kernel mounts a UUID once.
        options.push_str(",nouuid");
    }
    options
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

fn is_called_root(volume: &Volume) -> bool {
    matches!(&volume.name, Name::Logical(_, name) if name == ROOT_VOLUME)
}

/// Tells whether `volume` is what `--root` names.
fn is_called(volume: &Volume, wanted: &str) -> bool {
    match &volume.name {
        Name::Logical(group, name) => {
            wanted.strip_prefix("/dev/").unwrap_or(wanted) == format!("{group}/{name}")
        }
        Name::Partition(0, number) => wanted == number.to_string(),
        Name::Partition(disk, number) => wanted == format!("{}:{number}", disk + 1),
        Name::Disk(_) => false,
    }
}

fn list_names<'v>(volumes: impl Iterator<Item = &'v Volume>) -> String {
    let names: Vec<String> = volumes.map(|volume| volume.name.to_string()).collect();
    names.join(", ")
}

/// Tells whether a root file system is in `dir`: it says which system it is, and
/// has an init, or an empty `/usr` for one.
fn looks_like_root(dir: &Path) -> Result<bool> {
    let present = |path: &str| -> Result<bool> {
        let path = Path::new(path);
        let parent = path.parent().unwrap_or(path);
        let found = resolve::resolve(dir, parent)
            .with_context(|| format!("looking up {} in the image", parent.display()))?;
        // The last step may be a link to a part that is not mounted yet.
        Ok(found.is_some_and(|parent| {
            let entry = dir.join(parent).join(path.file_name().unwrap_or_default());
            entry.symlink_metadata().is_ok()
        }))
    };
    let any = |paths: &[&str]| -> Result<bool> {
        for path in paths {
            if present(path)? {
                return Ok(true);
            }
        }
        Ok(false)
    };
    if !any(&["etc/os-release", "usr/lib/os-release"])? {
        return Ok(false);
    }
    let has_init = any(&[
        "sbin/init",
        "usr/lib/systemd/systemd",
        "lib/systemd/systemd",
    ])?;
    let usr_is_elsewhere = fs::read_dir(dir.join("usr")).is_ok_and(|mut usr| usr.next().is_none());
    Ok(has_init || (usr_is_elsewhere && present("etc/fstab")?))
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
    let mut lines = fstab::parse(&String::from_utf8_lossy(&bytes));
    lines.retain(Line::is_below_root);
    // Parents before children.
    lines.sort_by(|a, b| a.mount_point.cmp(&b.mount_point));
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_root_is_known_by_its_os_release_and_init() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        assert!(!looks_like_root(root).unwrap());
        fs::create_dir_all(root.join("etc")).unwrap();
        symlink("../usr/lib/os-release", root.join("etc/os-release")).unwrap();
        assert!(!looks_like_root(root).unwrap());
        fs::create_dir_all(root.join("usr")).unwrap();
        symlink("usr/sbin", root.join("sbin")).unwrap();
        assert!(!looks_like_root(root).unwrap());
        // A separate /usr: nothing in it yet.
        fs::write(root.join("etc/fstab"), "").unwrap();
        assert!(looks_like_root(root).unwrap());
        fs::create_dir_all(root.join("usr/sbin")).unwrap();
        assert!(!looks_like_root(root).unwrap());
        symlink("/lib/systemd/systemd", root.join("usr/sbin/init")).unwrap();
        assert!(looks_like_root(root).unwrap());
    }
}
