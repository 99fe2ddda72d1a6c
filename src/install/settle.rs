//! What makes an unpacked tree the system of one slot of this appliance.
//!
//! A bundle never names a slot. Its fstab is rewritten for the slot, and so are the
//! words for the root in its boot configuration; our
//! settings come over from the old system, our program and units are put in
//! where they are missing or older, network cards are to keep their names, and its
//! package of GRUB is kept from the boot sector.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::fstab::MountPoint;
use super::kernel_args::{self, Root};
use super::{cards, customer, debconf, fstab, program};
use crate::appliance::cards::Interfaces;
use crate::appliance::pristine::{self, Pristine};
use crate::appliance::release::ReleaseRecord;
use crate::appliance::{Appliance, devices};
use crate::input;
use crate::paths::{RELEASE_FILE, SETTINGS_DIR};
use crate::slot::Slot;
use crate::sync::rules;
use crate::system::{Cmd, files};
use crate::tree::resolve;

/// The most that is read of an fstab, in bytes.
const MAX_FSTAB_BYTES: u64 = 1 << 20;

/// What comes over of the customer's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrying {
    /// What the rules say.
    ByRules,
    /// Nothing but our own settings: the rules could not be followed, and there is no
    /// other system that could run instead.
    Nothing,
}

/// What the tree becomes part of.
pub struct Identity<'a> {
    /// The slot.
    pub slot: Slot,
    /// Its file system type.
    pub fs_type: &'a str,
    /// The UUID of the appliance's `/boot`.
    pub boot_uuid: &'a str,
    /// The file system type of `/boot`.
    pub boot_fs_type: &'a str,
    /// The product and version that were unpacked.
    pub release: &'a ReleaseRecord,
    /// The version that it takes the place of.
    pub from: &'a str,
    /// The network cards, by the names they are to keep.
    pub cards: &'a Interfaces,
    /// What comes over.
    pub carrying: Carrying,
}

/// Gives the tree at `root` its identity; what is the appliance's own comes
/// over from the system whose tree is at `from`.
///
/// # Errors
/// When a file cannot be read or written.
pub fn settle(appliance: &Appliance, from: &Path, root: &Path, identity: &Identity) -> Result<()> {
    settle_kernel_args(appliance, root, identity)?;
    write_fstab(appliance, from, root, identity)?;
    if identity.carrying == Carrying::ByRules {
        let about = customer::about(appliance, identity.from, &identity.release.version);
        let mount_points = customer::mount_points(appliance)?;
        customer::carry(appliance, from, &mount_points, root, &about, &|_| Ok(()))
            .context("carrying over what is the customer's")?;
    }
    carry_settings(appliance, from, root)?;
    let release =
        serde_yaml::to_string(identity.release).context("rendering the release record")?;
    let place = resolve::place(root, Path::new(RELEASE_FILE))?;
    files::write_atomic(&place, release.as_bytes(), 0o644)?;
    program::install(appliance, root)?;
    program::install_units(root)?;
    for note in cards::pin(identity.cards, root)? {
        appliance.progress.note(&note);
    }
    debconf::name_no_disk(root)
}

/// Has the image's boot configuration name the slot; reads the image's fstab.
fn settle_kernel_args(appliance: &Appliance, root: &Path, identity: &Identity) -> Result<()> {
    let config = appliance.config;
    let path = resolve::place(root, Path::new("/etc/fstab"))?;
    let of_image = read_fstab(&path)?.unwrap_or_default();
    let device = Root {
        group: &config.vg,
        volume: config.volume(identity.slot),
        slots: Slot::ALL.map(|slot| config.volume(slot)),
    };
    kernel_args::settle(root, &device, &of_image).context("settling the kernel arguments")
}

/// Reads the fstab at `path`, where a system's links have led; `None` if it has none.
///
/// # Errors
/// When it is no file, such as a pipe that nobody writes to, or larger than any is.
pub fn read_fstab(path: &Path) -> Result<Option<String>> {
    if path.symlink_metadata().is_err() {
        return Ok(None);
    }
    let read = input::read_file(path, MAX_FSTAB_BYTES);
    let (text, _) = read.with_context(|| format!("reading {}", path.display()))?;
    Ok(Some(text))
}

fn write_fstab(appliance: &Appliance, from: &Path, root: &Path, identity: &Identity) -> Result<()> {
    let path = resolve::place(root, Path::new("/etc/fstab"))?;
    let of_image = read_fstab(&path)?.unwrap_or_default();
    let old_path = resolve::place(from, Path::new("/etc/fstab"))?;
    let of_old = read_fstab(&old_path)?
        .with_context(|| format!("reading {}: it is not there", old_path.display()))?;
    let new = fstab::compose(
        &|source| devices::is_own_volume(appliance, source),
        &system_mounts(appliance, identity),
        &of_image,
        &of_old,
    );
    for line in &new.left_out {
        let note = format!("left out of the new fstab: {line}");
        appliance.progress.note(&note);
    }
    for mount_point in &new.mount_points {
        match make_mount_point(appliance, root, mount_point) {
            Err(error) if mount_point.may_be_absent => {
                appliance.progress.warn(&format!("{error:#}"));
            }
            outcome => outcome?,
        }
    }
    files::write_atomic(&path, new.text.as_bytes(), 0o644)
}

/// Makes what a line of fstab mounts on, where nothing is: a directory, or a file
/// for a bind mount of one.
fn make_mount_point(appliance: &Appliance, root: &Path, of: &MountPoint) -> Result<()> {
    let make = || -> Result<()> {
        let point = resolve::place(root, &of.path)?;
        if point.exists() {
            return Ok(());
        }
        let bound = of.bound.as_ref().map(|source| appliance.at(source));
        if bound.is_some_and(|source| source.is_file()) {
            fs::create_dir_all(point.parent().unwrap_or(root))?;
            return Ok(fs::write(&point, "")?);
        }
        Ok(fs::create_dir_all(&point)?)
    };
    make().with_context(|| format!("making the mount point {}", of.path.display()))
}

/// Returns the lines of fstab for the slot itself and for `/boot`.
fn system_mounts(appliance: &Appliance, identity: &Identity) -> String {
    let pass = if identity.fs_type == "xfs" {
        "0 0"
    } else {
        "0 1"
    };
    format!(
        "{} / {} defaults {pass}\nUUID={} /boot {} defaults 0 0\n",
        appliance.config.mapped_device(identity.slot).display(),
        identity.fs_type,
        identity.boot_uuid,
        identity.boot_fs_type
    )
}

/// Copies our settings, keys and checks of the old system over the image's,
/// which stay where the old system has none of that name. Rules of the old release
/// that nobody changed give way to the new one's.
fn carry_settings(appliance: &Appliance, from: &Path, root: &Path) -> Result<()> {
    let to = resolve::place(root, Path::new(SETTINGS_DIR))?;
    fs::create_dir_all(&to).with_context(|| format!("making {}", to.display()))?;
    let old = resolve::place(from, Path::new(SETTINGS_DIR))?;
    if !old.is_dir() {
        return Ok(());
    }
    let mut content = old.clone().into_os_string();
    content.push("/.");
    let copy = Cmd::new("cp").args(["-a", "--remove-destination", "--"]);
    let carry = || -> Result<()> {
        appliance.sys.run(&copy.arg(content).arg(&to))?;
        let there = files::digests(&to)?;
        for (path, digest) in files::digests(&old)? {
            ensure!(
                there.get(&path) == Some(&digest),
                "{} is not what was copied",
                to.join(path).display()
            );
        }
        renew_rules(appliance, from, root)
    };
    carry().context("carrying over our settings")
}

/// Takes back the rules that the old release delivered, where nobody changed them.
fn renew_rules(appliance: &Appliance, from: &Path, root: &Path) -> Result<()> {
    let delivered = pristine::delivered(appliance, from)?;
    let image = Pristine::kept(root)?;
    let dir = resolve::place(root, Path::new("/").join(rules::DIR).as_path())?;
    if !dir.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(&dir).with_context(|| format!("listing {}", dir.display()))? {
        let path = entry?.path();
        let own = Path::new(rules::DIR).join(path.file_name().unwrap_or_default());
        let Some(as_delivered) = delivered.content(&own)? else {
            continue;
        };
        if fs::read(&path)? != as_delivered {
            continue;
        }
        match image
            .as_ref()
            .map(|image| image.content(&own))
            .transpose()?
            .flatten()
        {
            Some(content) => files::write_atomic(&path, &content, 0o644)?,
            None => fs::remove_file(&path)?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    #[test]
    fn an_fstab_that_is_no_file_is_neither_waited_for_nor_believed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fstab");
        assert_eq!(read_fstab(&path).unwrap(), None);
        mkfifo(&path, Mode::S_IRWXU).unwrap();
        let error = format!("{:#}", read_fstab(&path).unwrap_err());
        assert!(error.contains("fstab: it is not a regular file"), "{error}");
        fs::remove_file(&path).unwrap();
        fs::write(&path, vec![b'#'; (1 << 20) + 1]).unwrap();
        let error = format!("{:#}", read_fstab(&path).unwrap_err());
        assert!(error.contains("larger than"), "{error}");
    }
}
