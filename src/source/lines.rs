//! The lines of the system's fstab, and what they mount below its root.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::content::Content;
use super::disks::Disks;
use super::naming;
use super::volume::{Name, Volume, list_names};
use crate::linux::device_mapper;
use crate::linux::fstab::{self, Line, Owner};
use crate::refuse;
use crate::system::Mounted;
use crate::tree::resolve;

/// A longer table than a system has.
const MAX_BYTES: u64 = 64 << 10;

impl<'a, 'i> Disks<'a, 'i> {
    /// Tells why the system needs something that can only be opened in a guest.
    pub fn out_of_reach(&self, lines: &[Line]) -> Option<String> {
        lines
            .iter()
            .filter(|line| belongs_to_system(line))
            .find_map(|line| {
                let volume = self.volume_of(line)?;
                match &volume.content {
                    Content::Closed(closed) if !self.is_data(volume) => Some(format!(
                        "{} for {} is {}",
                        volume.name,
                        line.mount_point.display(),
                        closed.reason
                    )),
                    _ => None,
                }
            })
    }

    /// Mounts what one line of fstab names, if it belongs to the system.
    ///
    /// # Errors
    /// Class `Refused` when it cannot be found, or not be mounted as it should.
    pub fn mount_line(
        &self,
        line: &Line,
        root: &Volume,
        tree: &Path,
        packed: &mut Vec<&'i Volume>,
    ) -> Result<Option<Mounted<'a>>> {
        const UNSPOKEN: [&str; 6] = ["proc", "sysfs", "tmpfs", "devpts", "iso9660", "udf"];
        let leave_out = |reason: &str| {
            self.leave_out(line, reason);
            Ok(None)
        };
        if !line.is_on_disk() {
            return match UNSPOKEN.contains(&line.fs_type.as_str()) {
                true => Ok(None),
                false => leave_out("not a file system on a disk of the image"),
            };
        }
        let Some(volume) = self.volume_of(line) else {
            if !belongs_to_system(line) || line.may_be_absent() {
                return leave_out("not in the image");
            }
            refuse!(
                "{} does not hold {}, which its fstab mounts on {} as {}; give an image with all \
                 its disks, or remove the line in the VM if the system has done without it",
                self.source.display(),
                line.source,
                line.mount_point.display(),
                line.fs_type
            );
        };
        if self.is_data(volume) {
            return leave_out("a data volume");
        }
        if !belongs_to_system(line) {
            return leave_out("not a part of the system");
        }
        self.check_line(line, volume, root)?;
        if packed.iter().any(|other| other.name == volume.name) {
            refuse!(
                "the fstab in {} mounts {} a second time, on {}; remove the line in the VM",
                self.source.display(),
                volume.name,
                line.mount_point.display()
            );
        }
        packed.push(volume);
        let point = self.directory(line, tree)?;
        match self.mount(volume, &point) {
            // The machines this is for boot by BIOS; kernels without vfat exist.
            Err(error) if is_efi_partition(line) => leave_out(&format!("{error:#}")),
            other => other
                .with_context(|| format!("opening {}", line.mount_point.display()))
                .map(Some),
        }
    }

    /// Makes sure that `line` means `volume` alone, and that it can be a part of
    /// the system.
    fn check_line(&self, line: &Line, volume: &Volume, root: &Volume) -> Result<()> {
        let (shown, point) = (self.source.display(), line.mount_point.display());
        let all = self.volumes.iter();
        let named: Vec<&Volume> = all.filter(|v| self.is_named(v, &line.source)).collect();
        if named.len() > 1 {
            refuse!(
                "the fstab in {shown} mounts {} on {point}, and that are several: {}; give them \
                 different names in the VM, or give an image with one of them",
                line.source,
                list_names(named.into_iter())
            );
        }
        if volume.name == root.name {
            refuse!(
                "the fstab in {shown} mounts {} on {point}, and that is the root file system \
                 itself; give all disks of the VM in their order",
                line.source
            );
        }
        if matches!(volume.content, Content::Other | Content::PhysicalVolume) {
            refuse!(
                "{} in {shown}, which its fstab mounts on {point} as {}, holds no file system of \
                 a kind that can be read here; mount the system yourself and give the directory",
                volume.name,
                line.fs_type
            );
        }
        Ok(())
    }

    /// Returns the directory that `line` is mounted on.
    fn directory(&self, line: &Line, tree: &Path) -> Result<PathBuf> {
        let point = line.mount_point.display();
        let beneath = resolve::resolve(tree, &line.mount_point)
            .with_context(|| format!("looking up {point} in the image"))?;
        let directory = beneath.map(|path| tree.join(path));
        match directory.filter(|directory| directory.is_dir()) {
            Some(directory) => Ok(directory),
            None => refuse!(
                "{} has no directory {point} to mount {} on; make it in the VM",
                self.source.display(),
                line.source
            ),
        }
    }

    /// Says that what `line` mounts is not packed.
    pub fn leave_out(&self, line: &Line, reason: &str) {
        let point = line.mount_point.display();
        self.progress
            .leave_out(&format!("{point} ({}): {reason}", line.source));
    }

    /// Returns the first volume that `line` means.
    pub fn volume_of(&self, line: &Line) -> Option<&'i Volume> {
        let mut volumes = self.volumes.iter();
        volumes.find(|volume| self.is_named(volume, &line.source))
    }

    /// Returns the names of the volumes that `lines` mean.
    pub fn volumes_of(&self, lines: &[Line]) -> Vec<Name> {
        let volumes = lines.iter().filter_map(|line| self.volume_of(line));
        volumes.map(|volume| volume.name.clone()).collect()
    }

    /// Tells whether a word of fstab's first column means `volume`.
    pub fn is_named(&self, volume: &Volume, spec: &str) -> bool {
        naming::is_named(volume, spec, self.disks.len())
    }

    /// Tells whether `line` mounts one of the customer's volumes.
    ///
    /// # Errors
    /// Class `Refused` when that cannot be told.
    pub fn is_data_line(&self, line: &Line) -> Result<bool> {
        let names = &self.options.data_volumes;
        let is_called = |name: &String| device_mapper::is_called(&line.source, name);
        if names.iter().any(is_called) {
            return Ok(true);
        }
        if let Some(volume) = self.volume_of(line) {
            return Ok(self.is_data(volume));
        }
        let is_hidden =
            |volume: &&Volume| matches!(volume.content, Content::Closed(_)) && self.is_data(volume);
        let hidden = self.volumes.iter().find(is_hidden);
        if let Some(data) = hidden.filter(|_| line.is_on_disk() && !line.source.starts_with('/')) {
            refuse!(
                "whether {} on {} is the data volume {} cannot be told in {}; name it by its \
                 device in the VM's fstab, or mount the system yourself and give the directory",
                line.source,
                line.mount_point.display(),
                data.name,
                self.source.display()
            );
        }
        Ok(false)
    }
}

/// Tells whether a release brings what is mounted there.
pub fn belongs_to_system(line: &Line) -> bool {
    line.owner() != Owner::Customer
}

fn is_efi_partition(line: &Line) -> bool {
    line.fs_type == "vfat"
        && ["/boot/efi", "/efi"]
            .iter()
            .any(|efi| line.mount_point == Path::new(efi))
}

/// Reads the fstab of the system in `tree`, in its own order.
pub fn read_fstab(tree: &Path) -> Result<Vec<Line>> {
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
pub fn below_root(mut lines: Vec<Line>) -> Vec<Line> {
    lines.retain(Line::is_below_root);
    lines.sort_by(|a, b| a.mount_point.cmp(&b.mount_point));
    lines.dedup_by(|a, b| a.mount_point == b.mount_point && a.source == b.source);
    lines
}
