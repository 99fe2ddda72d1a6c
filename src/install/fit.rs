//! Whether a system that was unpacked fits this machine.
//!
//! Asked of the system itself: its dynamic loader about the processor, its kernel
//! and initramfs about drivers. Changes nothing.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::Result;

use crate::appliance::hardware::{self, Device};
use crate::appliance::{Appliance, hypervisor::Hypervisor};
use crate::boot::bootable::Bootable;
use crate::boot::drivers::{Driver, Drivers, module_name};
use crate::cpu::CpuLevel;
use crate::refuse;
use crate::system::{Chroot, Cmd};
use crate::tree::resolve;

/// Where the C library's loader is; what the ABI names comes first.
const LOADERS: [&str; 2] = [
    "/lib64/ld-linux-x86-64.so.2",
    "/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2",
];

/// The tools that list an initramfs, of initramfs-tools and dracut.
const LISTERS: [&str; 2] = ["/usr/bin/lsinitramfs", "/usr/bin/lsinitrd"];

/// Looks whether the system at `root` would start on this machine.
///
/// # Errors
/// Class `Refused` when its processor, disk controller or a network card in use is
/// none that the system can work with.
pub fn check(
    appliance: &Appliance,
    root: &Path,
    bootable: &Bootable,
    level: CpuLevel,
    disk: &Path,
) -> Result<()> {
    check_loader(appliance, root, level)?;
    check_integrity(appliance, root, bootable)?;
    check_drivers(appliance, root, bootable, disk)
}

/// Looks the same of a tree at `root` that has only the lists of the kernel `release`'s
/// modules and the loader.
///
/// # Errors
/// Those of [`check`], but for what only a whole tree tells.
pub fn foresee(
    appliance: &Appliance,
    root: &Path,
    release: &str,
    level: CpuLevel,
    disk: &Path,
) -> Result<()> {
    check_loader(appliance, root, level)?;
    needed_modules(appliance, root, release, disk).map(drop)
}

/// Has the system's own loader say what it thinks of the processor. Those of glibc
/// before 2.33 think nothing, and may not know the question.
fn check_loader(appliance: &Appliance, root: &Path, level: CpuLevel) -> Result<()> {
    let Some(loader) = first_in(root, LOADERS) else {
        return Ok(());
    };
    let chroot = Chroot::enter(appliance.sys, root, &[])?;
    let answer = chroot.run(Cmd::new(loader).arg("--help"));
    chroot.leave()?;
    let way_out = Hypervisor::of(appliance).raise_processor();
    match answer {
        Ok(text) if is_unsupported(&text, level) => {
            refuse!("the new system's loader finds no {level} here; {way_out}")
        }
        Err(error) if is_about_processor(&format!("{error:#}")) => {
            refuse!("the new system's programs do not run on this processor: {error:#}; {way_out}")
        }
        _ => Ok(()),
    }
}

/// Tells whether the loader lists `level` among others as one it does not use:
/// a line such as `x86-64-v2 (supported, searched)`.
fn is_unsupported(help: &str, level: CpuLevel) -> bool {
    let mut lines = help.lines().map(str::trim);
    lines
        .find(|line| line.starts_with(level.name()))
        .is_some_and(|line| !line.contains("(supported"))
}

/// Tells whether a loader ended because of the processor (glibc's
/// `dl_platform_init`), or was ended by it.
fn is_about_processor(error: &str) -> bool {
    error.contains("CPU does not support") || error.contains("SIGILL")
}

/// Looks for the sum that dracut's FIPS check compares the kernel with.
fn check_integrity(appliance: &Appliance, root: &Path, bootable: &Bootable) -> Result<()> {
    let cmdline = fs::read_to_string(appliance.at("/proc/cmdline")).unwrap_or_default();
    if !cmdline.split_whitespace().any(|word| word == "fips=1") {
        return Ok(());
    }
    let kernel = &bootable.kernel.image;
    let name = kernel.file_name().unwrap_or_default().to_string_lossy();
    let sum = kernel.with_file_name(format!(".{name}.hmac"));
    if !root.join(&sum).is_file() {
        refuse!(
            "this appliance runs in FIPS mode (fips=1), and the new kernel has no {}; \
             the release must bring it",
            sum.display()
        );
    }
    Ok(())
}

/// Looks for drivers of what the running system has: of the way to the disk also
/// in the initramfs.
fn check_drivers(
    appliance: &Appliance,
    root: &Path,
    bootable: &Bootable,
    disk: &Path,
) -> Result<()> {
    let release = &bootable.kernel.release;
    let needed = needed_modules(appliance, root, release, disk)?;
    if needed.is_empty() {
        return Ok(());
    }
    let Some(inside) = modules_of_initramfs(appliance, root, bootable)? else {
        return Ok(());
    };
    for (device, modules) in needed {
        if modules.is_disjoint(&inside) {
            refuse!(
                "the initramfs of kernel {release} has no driver for {} (now {}): none of {}; \
                 the release must be made with a generic one (`dracut --no-hostonly`, MODULES=most)",
                device.modalias,
                device.driver,
                Vec::from_iter(modules).join(", ")
            );
        }
    }
    Ok(())
}

/// Refuses a kernel without drivers of what the running system has; returns the devices
/// on the way to the disk whose drivers are modules, with these.
fn needed_modules(
    appliance: &Appliance,
    root: &Path,
    release: &str,
    disk: &Path,
) -> Result<Vec<(Device, BTreeSet<String>)>> {
    let drivers = Drivers::read(root, release)?;
    let mut needed = Vec::new();
    for device in hardware::of_disk(appliance, disk)? {
        match drivers.find(&device.modalias, &device.driver) {
            Driver::Missing => refuse!(
                "kernel {release} has no driver for the disk controller {} (now {}); give the \
                 machine another one, such as VMware Paravirtual or virtio, or ask for a release \
                 that has it",
                device.modalias,
                device.driver
            ),
            Driver::Builtin => {}
            Driver::Modules(modules) => needed.push((device, modules)),
        }
    }
    for card in hardware::network_cards(appliance)? {
        for device in card.devices {
            if drivers.find(&device.modalias, &device.driver) != Driver::Missing {
                continue;
            }
            let fault = format!(
                "kernel {release} has no driver for network card {} ({}, now {})",
                card.name, device.modalias, device.driver
            );
            if card.is_up {
                refuse!("{fault}; give the machine another one, such as VMXNET3 or virtio");
            }
            appliance.progress.warn(&fault);
        }
    }
    Ok(needed)
}

/// Lists the modules in the initramfs, with the system's own tool; `None` where it
/// has none that can tell.
fn modules_of_initramfs(
    appliance: &Appliance,
    root: &Path,
    bootable: &Bootable,
) -> Result<Option<BTreeSet<String>>> {
    let Some(lister) = first_in(root, LISTERS) else {
        return Ok(None);
    };
    let image = Path::new("/").join(&bootable.kernel.initramfs);
    let chroot = Chroot::enter(appliance.sys, root, &["/dev", "/proc"])?;
    let listed = chroot.run(Cmd::new(lister).arg(image));
    chroot.leave()?;
    let fault = match listed {
        Ok(text) => {
            let names = text.split_whitespace().filter(|word| word.contains(".ko"));
            let found: BTreeSet<String> = names.map(module_name).collect();
            if !found.is_empty() {
                return Ok(Some(found));
            }
            format!("{lister} lists no modules")
        }
        Err(error) => format!("{error:#}"),
    };
    appliance.progress.warn(&format!(
        "it was not looked whether the new initramfs has drivers for the disk: {fault}"
    ));
    Ok(None)
}

/// Returns the first of `paths` that is there in the tree.
fn first_in(root: &Path, paths: [&'static str; 2]) -> Option<&'static str> {
    let is_there = |path: &&str| resolve::resolve(root, Path::new(path)).is_ok_and(|p| p.is_some());
    paths.into_iter().find(is_there)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loaders_answer_counts_where_it_has_one() {
        let help = "Subdirectories of glibc-hwcaps directories, in priority order:\n  \
                    x86-64-v4\n  x86-64-v3\n  x86-64-v2 (supported, searched)\n";
        assert!(!is_unsupported(help, CpuLevel::V2));
        assert!(is_unsupported(help, CpuLevel::V3));
        assert!(!is_unsupported(help, CpuLevel::V1));
        assert!(!is_unsupported("Usage: ld.so [OPTION]...", CpuLevel::V2));
        assert!(is_about_processor(
            "exit status: 127: Fatal glibc error: CPU does not support x86-64-v2"
        ));
        assert!(!is_about_processor(
            "--help: cannot open shared object file"
        ));
    }
}
