//! What a root file system tree brings for booting it: kernel, GRUB, systemd.
//!
//! Looks only; every path is resolved inside the tree. `build` asks it about
//! an image, `apply` about the slot it has unpacked.

pub mod elf;
mod grub;
mod kernel;
mod tree;

use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context, Result};

use crate::cpu::CpuLevel;
use crate::linux::os_release::{self, OsRelease};
use crate::refuse;

pub use grub::GrubTools;
pub use kernel::{KernelFiles, Modules, is_same_flavour};

use tree::Tree;

/// The largest os-release that is read.
const MAX_OS_RELEASE_BYTES: u64 = 64 << 10;

/// What was found in a tree that can be booted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bootable {
    /// The kernel that boots.
    pub kernel: KernelFiles,
    /// The tools and modules that make GRUB bootable.
    pub grub: GrubTools,
    /// The machine the programs are for, as `uname -m` names it.
    pub architecture: &'static str,
    /// The instruction set level the system's own libraries need.
    pub cpu_level: CpuLevel,
    /// The system's name for people, such as "Rocky Linux 9.4 (Blue Onyx)".
    pub os_name: String,
    /// The system's version, such as "9.4"; empty when it does not say.
    pub os_version: String,
}

/// Inspects the tree at `root`.
///
/// # Errors
/// Class `Refused`, naming everything that is missing and the package it comes
/// from, when the tree would not boot.
pub fn inspect(root: &Path) -> Result<Bootable> {
    let tree = Tree { root };
    let os = read_os_release(&tree)?;
    let mut missing = Vec::new();
    let architecture = find_architecture(&tree, &mut missing)?;
    let kernel = kernel::find(&tree, &mut missing)?;
    let grub = grub::find(&tree, &mut missing)?;
    match (architecture, kernel, grub) {
        (Some(architecture), Some(kernel), Some(grub)) if missing.is_empty() => Ok(Bootable {
            kernel,
            grub,
            architecture,
            cpu_level: find_cpu_level(&tree, &os)?,
            os_name: os.name,
            os_version: os.version,
        }),
        _ => refuse!(
            "{} in {} cannot be booted: {}",
            os.name,
            root.display(),
            missing.join("; ")
        ),
    }
}

/// Lists the kernels of the tree at `root` that have their modules and an
/// initramfs, the newest first.
///
/// # Errors
/// When the tree cannot be read.
pub fn whole_kernels(root: &Path) -> Result<Vec<KernelFiles>> {
    kernel::whole(&Tree { root })
}

/// Looks for the modules of the kernel `release` in the tree at `root`.
///
/// # Errors
/// When the tree cannot be read.
pub fn modules(root: &Path, release: &str) -> Result<Modules> {
    kernel::modules(&Tree { root }, release)
}

/// Reads the tree's os-release, which every root has.
fn read_os_release(tree: &Tree<'_>) -> Result<OsRelease> {
    let Some(file) = tree.first_file(&os_release::PATHS)? else {
        refuse!(
            "{} holds no root file system: neither etc/os-release nor usr/lib/os-release is there",
            tree.root.display()
        );
    };
    let mut text = String::new();
    tree.open(&file)?
        .take(MAX_OS_RELEASE_BYTES)
        .read_to_string(&mut text)
        .with_context(|| format!("reading {}", tree.root.join(&file).display()))?;
    Ok(OsRelease::parse(&text))
}

/// Returns the level the distribution is built for, where that is published:
/// RHEL 9 and its rebuilds need x86-64-v2, RHEL 10 needs x86-64-v3.
fn published_cpu_level(os: &OsRelease) -> CpuLevel {
    let major = os.version.split('.').next();
    let major: u32 = major.and_then(|major| major.parse().ok()).unwrap_or(0);
    match os.id.as_str() {
        "rhel" | "rocky" | "almalinux" | "centos" | "ol" => match major {
            0..=8 => CpuLevel::V1,
            9 => CpuLevel::V2,
            _ => CpuLevel::V3,
        },
        _ => CpuLevel::V1,
    }
}

/// Finds what the programs are built for, by the first program that runs.
fn find_architecture(tree: &Tree<'_>, missing: &mut Vec<String>) -> Result<Option<&'static str>> {
    let systemd = tree.first_file(&["usr/lib/systemd/systemd", "lib/systemd/systemd"])?;
    let Some(systemd) = systemd else {
        missing.push("it has no systemd (usr/lib/systemd/systemd is missing)".into());
        return Ok(None);
    };
    let found = elf::architecture(&tree.open(&systemd)?)
        .with_context(|| format!("reading {}", systemd.display()))?;
    match found {
        Some("x86_64") => {}
        Some(other) => missing.push(format!("it is built for {other}, not x86_64")),
        None => missing.push(format!("{} is not a program", systemd.display())),
    }
    Ok(found)
}

/// Finds the level the dynamic loader and the C library ask for in their notes
/// (glibc 2.33 and newer refuse to start below it); where they are silent, the
/// distribution's published level counts.
fn find_cpu_level(tree: &Tree<'_>, os: &OsRelease) -> Result<CpuLevel> {
    const LIBRARIES: [&str; 5] = [
        "lib64/ld-linux-x86-64.so.2",
        "lib64/libc.so.6",
        "usr/lib64/libc.so.6",
        "lib/x86_64-linux-gnu/libc.so.6",
        "usr/lib/x86_64-linux-gnu/libc.so.6",
    ];
    let mut highest = None;
    for library in LIBRARIES {
        let Some(file) = tree.resolve_file(library)? else {
            continue;
        };
        let level = match elf::level_needed(&tree.open(&file)?) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => None,
            other => other.with_context(|| format!("reading {}", file.display()))?,
        };
        highest = highest.max(level);
    }
    Ok(highest.unwrap_or_else(|| published_cpu_level(os)))
}

#[cfg(test)]
mod tests;
