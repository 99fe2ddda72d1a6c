//! The disks of an image with the volumes on them, each of which can be mounted.

use std::path::Path;

use anyhow::{Error, Result, anyhow};

use super::content::{Content, FileSystem, Health};
use super::opened::SourceOptions;
use super::raw::RawImage;
use super::volume::{Name, Volume};
use super::words;
use crate::failure::{Class, with_class};
use crate::progress::{Progress, Step};
use crate::refuse;
use crate::system::{Mount, Mounted, System};

/// The disks of an image.
pub struct Disks<'a, 'i> {
    pub sys: &'a dyn System,
    /// Where the image came from, for messages.
    pub source: &'i Path,
    pub disks: &'i [RawImage],
    pub volumes: &'i [Volume],
    pub options: &'i SourceOptions,
    pub progress: &'i dyn Progress,
}

impl<'a> Disks<'a, '_> {
    /// Mounts the file system on `volume` at `at`, read-only.
    ///
    /// # Errors
    /// Class `Refused` when it cannot be mounted as it is.
    pub fn mount(&self, volume: &Volume, at: &Path) -> Result<Mounted<'a>> {
        let Content::FileSystem(file_system) = &volume.content else {
            refuse!("{} holds no file system", volume.name);
        };
        if let Some(error) = unfit(volume, file_system.health) {
            return Err(with_class(
                Class::Refused,
                error.context(format!("opening {}", self.source.display())),
            ));
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
        Mounted::new(self.sys, &mount).map_err(|error| {
            let reason = words::mount_reason(&error);
            let error = match file_system.kind {
                // The log tells; the kernel does not replay it on a read-only disk.
                "xfs" if reason.contains("read-only") => unclean(volume),
                kind => not_mountable(volume, kind, &reason),
            };
            let error = error.context(format!("opening {}", self.source.display()));
            with_class(Class::Refused, error)
        })
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

    /// Tells whether `volume` is the customer's.
    pub fn is_data(&self, volume: &Volume) -> bool {
        matches!(&volume.name, Name::Logical(_, name) if self.options.data_volumes.contains(name))
    }
}

/// Says why a file system in this state is not read, and what can be done.
fn unfit(volume: &Volume, health: Health) -> Option<Error> {
    let name = &volume.name;
    match health {
        Health::Sound => None,
        Health::NeedsReplay => Some(unclean(volume)),
        Health::HasErrors => Some(anyhow!(
            "{name} has recorded errors, so its files may be damaged; check it with `e2fsck -f` \
             in the VM, see that nothing is missing, and export it again"
        )),
        Health::CutOff => Some(anyhow!(
            "the file system on {name} ends beyond {name}: the image was cut off; copy it again"
        )),
    }
}

/// Says why the kernel did not mount `volume`, and what can be done.
fn not_mountable(volume: &Volume, kind: &str, reason: &str) -> Error {
    let reason = if reason.contains("unknown filesystem type") {
        format!("this machine's kernel does not know {kind}")
    } else if reason.contains("wrong fs type") {
        format!(
            "this machine's kernel does not take it (it is damaged, or has features or a version \
             of {kind} that this kernel does not know)"
        )
    } else {
        reason.to_owned()
    };
    anyhow!(
        "{} cannot be mounted: {reason}; mount the system on a machine that can, and give the \
         directory",
        volume.name
    )
}

fn unclean(volume: &Volume) -> Error {
    Error::msg(format!(
        "{} was in use when the image was made (its journal holds changes that are not in place); \
         boot the VM and shut it down cleanly",
        volume.name
    ))
}

/// Returns the options of mount(8). What an image says about errors is not followed:
/// ext4 would let it stop this machine.
fn mount_options(file_system: &FileSystem, offset: u64, size_bytes: u64) -> String {
    let own = match file_system.kind {
        // Two slots are often copies of each other, and the kernel mounts a UUID once.
        "xfs" => "nouuid",
        _ => "errors=remount-ro",
    };
    format!("ro,nodev,nosuid,noexec,loop,offset={offset},sizelimit={size_bytes},{own}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_image_decides_what_an_error_in_it_does() {
        for (kind, own) in [
            ("ext4", "errors=remount-ro"),
            ("vfat", "errors=remount-ro"),
            ("xfs", "nouuid"),
        ] {
            let file_system = FileSystem {
                kind,
                uuid: String::new(),
                label: String::new(),
                health: Health::Sound,
            };
            let options = mount_options(&file_system, 512, 1024);
            let expected = "ro,nodev,nosuid,noexec,loop,offset=512,sizelimit=1024,";
            assert_eq!(options, format!("{expected}{own}"));
        }
    }
}
