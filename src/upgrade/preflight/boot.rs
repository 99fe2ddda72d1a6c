//! Whether the boot disk and `/boot` can hold what a second system needs.

use std::fs;
use std::path::{Path, PathBuf};

use super::checked::{Checked, refuse};
use crate::appliance::Appliance;
use crate::appliance::machine::{Machine, boot_disk};
use crate::boot::bios::area::BootArea;
use crate::boot::files as boot_files;
use crate::boot::next;
use crate::bundle::Manifest;
use crate::disk::{features, space};
use crate::paths::BOOT;
use crate::report::Report;
use crate::upgrade::boot_sector;

/// What GRUB's modules, fonts and translations take on `/boot`, generously.
const GRUB_BYTES: u64 = 16 << 20;

/// Files that an upgrade makes on `/boot`; GRUB has about 300 modules.
const BOOT_INODES: u64 = 500;

/// Sectors a GRUB core may take: 120 KiB, twice of what was ever seen.
const CORE_SECTORS: u64 = 240;

/// Finds the disk GRUB starts from, and room for a second core.
pub fn check_disk(appliance: &Appliance) -> Checked<PathBuf> {
    let disk = boot_disk(appliance)?;
    let area = BootArea::look(&appliance.at(&disk))?;
    let free = area.free_sectors()?;
    if free < CORE_SECTORS {
        return refuse(
            format!(
                "the bios_grub partition of {} has {free} sectors free beside the current GRUB",
                disk.display()
            ),
            format!("{CORE_SECTORS} sectors"),
            "enlarge it to 1 MiB",
        );
    }
    let message = format!(
        "{}, {free} sectors free for a second GRUB core",
        disk.display()
    );
    Ok((disk, message))
}

/// Looks whether the boot sector starts our GRUB, which an upgrade installs anew.
pub fn check_sector(appliance: &Appliance, machine: &Machine, report: &mut Report) {
    const NAME: &str = "boot sector";
    match boot_sector::owner(appliance, machine) {
        Ok(Some(owner)) => match boot_sector::fault(owner) {
            Some(fault) => report.warn(NAME, fault.to_owned()),
            None => drop(report.add(NAME, Ok(((), "starts va-upgrade's GRUB".to_owned())))),
        },
        Ok(None) => {}
        Err(error) => report.warn(NAME, format!("it was not looked at: {error:#}")),
    }
}

/// Looks whether GRUB can read and write `/boot`; returns its UUID.
pub fn check_boot(appliance: &Appliance, machine: &Machine) -> Checked<String> {
    if !machine.boot.writable {
        return refuse(
            "/boot is mounted read-only",
            "a /boot that can be written",
            "run `mount -o remount,rw /boot`",
        );
    }
    if !["ext4", "ext3", "ext2", "xfs"].contains(&machine.boot.fs_type.as_str()) {
        return refuse(
            format!("/boot is {}", machine.boot.fs_type),
            "ext4 or XFS, where GRUB can keep its state",
            "make /boot anew as one of them",
        );
    }
    if appliance
        .at(format!("/sys/dev/block/{}/dm", machine.boot.device_number))
        .exists()
    {
        return refuse(
            format!(
                "/boot is on {}, a mapped device, where GRUB cannot write",
                machine.boot.source
            ),
            "a partition of its own",
            "move /boot to a partition",
        );
    }
    let uuid = machine.boot_uuid(appliance)?;
    let message = format!("{} on {}", machine.boot.fs_type, machine.boot.source);
    Ok((uuid, message))
}

/// Looks whether the new system's GRUB reads the file system on `/boot`.
pub fn check_features(appliance: &Appliance, machine: &Machine, report: &mut Report) {
    const NAME: &str = "boot features";
    let device = appliance.at(&machine.boot.source);
    let found = match features::read(&device) {
        Ok(found) => found,
        Err(error) => {
            return report.warn(NAME, format!("reading {}: {error}", device.display()));
        }
    };
    let source = &machine.boot.source;
    if !found.unreadable.is_empty() {
        let names = found.unreadable.join(", ");
        let fault: Checked<()> = refuse(
            format!("GRUB does not read {source}, whose file system has {names}"),
            "a file system without them",
            "make it anew",
        );
        report.add(NAME, fault);
    } else if !found.doubtful.is_empty() {
        let names = found.doubtful.join(", ");
        report.warn(
            NAME,
            format!("{source} has {names}, which not every GRUB reads"),
        );
    } else {
        report.add(NAME, Ok(((), "every GRUB reads them".to_owned())));
    }
}

/// Looks whether the running system can be kept bootable.
pub fn check_adoption(appliance: &Appliance, machine: &Machine) -> Checked<()> {
    boot_files::own_arguments(appliance.sys, &machine.cmdline)?;
    if boot_files::is_adopted(appliance.sys, machine.booted, &machine.cmdline) {
        let message = format!("slot {} has its own boot files", machine.booted);
        return Ok(((), message));
    }
    let kernel = boot_files::running_kernel(appliance.sys)?;
    Ok((
        (),
        format!(
            "{} will be kept for slot {}",
            kernel.release, machine.booted
        ),
    ))
}

/// Compares the room on `/boot` with what the bundle needs there.
pub fn check_boot_space(
    appliance: &Appliance,
    machine: &Machine,
    manifest: &Manifest,
) -> Checked<()> {
    let free = space::free(appliance.sys, &appliance.at(BOOT))?;
    let boot = &manifest.boot;
    let mut need = boot.kernel_bytes + boot.initramfs_bytes + GRUB_BYTES;
    if !boot_files::is_adopted(appliance.sys, machine.booted, &machine.cmdline) {
        let running = boot_files::running_kernel(appliance.sys)?;
        need += running.kernel.metadata()?.len() + running.initramfs.metadata()?.len();
    }
    // The old files of the inactive slot go first, and a kernel that waits.
    let mut freed = directory_bytes(&boot_files::dir(appliance.sys, machine.booted.other()));
    let slot = machine.booted;
    if let Ok(Some(waiting)) = next::load(appliance.sys, slot) {
        freed += directory_bytes(&next::dir(appliance.sys, slot, &waiting)?);
    }
    if free.bytes + freed < need {
        return refuse(
            format!("/boot has {} MiB free", (free.bytes + freed) >> 20),
            format!(
                "{} MiB for version {}",
                need.div_ceil(1 << 20),
                manifest.version
            ),
            "remove old kernels",
        );
    }
    if let Some(inodes) = free.inodes
        && inodes < BOOT_INODES
    {
        return refuse(
            format!("/boot has room for {inodes} more files"),
            BOOT_INODES.to_string(),
            "remove old files",
        );
    }
    Ok((
        (),
        format!(
            "{} MiB of {} MiB free",
            need >> 20,
            (free.bytes + freed) >> 20
        ),
    ))
}

/// Sums up the files of a slot's directory and of the directories in it.
fn directory_bytes(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else {
        return 0;
    };
    let bytes = |entry: fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => directory_bytes(&entry.path()),
        Ok(meta) => meta.len(),
        Err(_) => 0,
    };
    entries.flatten().map(bytes).sum()
}
