//! The kernel of a tree: the newest one that has its modules.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::tree::Tree;
use crate::linux::initramfs;
use crate::version;

/// The most of a line of `modules.dep` that is read, in bytes.
const MAX_LINE_BYTES: u64 = 64 << 10;

/// A kernel and what belongs to it; paths are relative to the tree, free of links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelFiles {
    /// The release, as `uname -r` prints it.
    pub release: String,
    /// The kernel image.
    pub image: PathBuf,
    /// The initramfs.
    pub initramfs: PathBuf,
}

/// Finds the newest kernel in `/boot` that has modules and is meant to boot;
/// adds to `missing` what it lacks.
pub fn find(tree: &Tree<'_>, missing: &mut Vec<String>) -> Result<Option<KernelFiles>> {
    let mut without_modules = Vec::new();
    for release in releases(tree)? {
        let modules = format!("lib/modules/{release}/modules.dep");
        if tree.resolve_file(&modules)?.is_none() {
            without_modules.push(release);
            continue;
        }
        let Some(image) = tree.resolve_file(format!("boot/vmlinuz-{release}"))? else {
            continue;
        };
        let names = names(&release);
        let Some(initramfs) = tree.first_file(&names.each_ref().map(String::as_str))? else {
            let [debian, rhel] = names;
            missing.push(format!(
                "kernel {release} has no initramfs ({debian} or {rhel}; \
                 `update-initramfs -c -k {release}` or `dracut --kver {release}` makes it)"
            ));
            return Ok(None);
        };
        return Ok(Some(KernelFiles {
            release,
            image,
            initramfs,
        }));
    }
    missing.push(match without_modules.first() {
        None => "it has no kernel (boot/vmlinuz-*; packages linux-image-amd64 or kernel-core); \
                 if /boot is a file system of its own, it must be mounted"
            .into(),
        Some(newest) => {
            format!("its kernel {newest} has no modules (lib/modules/{newest}/modules.dep)")
        }
    });
    Ok(None)
}

/// Finds the newest kernel in `/boot` that is not `except` and lacks nothing.
pub fn newest_whole(tree: &Tree<'_>, except: Option<&str>) -> Result<Option<KernelFiles>> {
    for release in releases(tree)? {
        if except == Some(release.as_str()) || !has_modules(tree, &release)? {
            continue;
        }
        let image = tree.resolve_file(format!("boot/vmlinuz-{release}"))?;
        let names = names(&release);
        let initramfs = tree.first_file(&names.each_ref().map(String::as_str))?;
        if let (Some(image), Some(initramfs)) = (image, initramfs) {
            return Ok(Some(KernelFiles {
                release,
                image,
                initramfs,
            }));
        }
    }
    Ok(None)
}

/// Tells whether the modules of `release` are there. A removed package of
/// Debian's leaves `modules.dep` behind, so the first module it lists must be,
/// too.
pub fn has_modules(tree: &Tree<'_>, release: &str) -> Result<bool> {
    let dir = format!("lib/modules/{release}");
    let Some(list) = tree.resolve_file(format!("{dir}/modules.dep"))? else {
        return Ok(false);
    };
    let mut line = String::new();
    BufReader::new(tree.open(&list)?.take(MAX_LINE_BYTES))
        .read_line(&mut line)
        .with_context(|| format!("reading {}", list.display()))?;
    // "kernel/fs/xfs.ko.xz: kernel/lib/crc.ko.xz"; a path that is not below the
    // directory is absolute (modules.dep(5)).
    match line.split_once(':') {
        Some((module, _)) if module.starts_with('/') => Ok(tree.resolve_file(module)?.is_some()),
        Some((module, _)) => Ok(tree.resolve_file(format!("{dir}/{module}"))?.is_some()),
        None => Ok(true),
    }
}

/// Returns where the initramfs of `release` may be.
fn names(release: &str) -> [String; 2] {
    initramfs::names(release).map(|name| format!("boot/{name}"))
}

/// Lists the kernels in `/boot`, the newest first.
fn releases(tree: &Tree<'_>) -> Result<Vec<String>> {
    let Some(boot) = tree.resolve("boot")? else {
        return Ok(Vec::new());
    };
    let dir = tree.root.join(boot);
    let context = || format!("listing {}", dir.display());
    let mut releases = Vec::new();
    for entry in fs::read_dir(&dir).with_context(context)? {
        let name = entry.with_context(context)?.file_name();
        let release = name.to_str().and_then(|name| name.strip_prefix("vmlinuz-"));
        // RHEL keeps a rescue kernel, kdump a crash kernel, under the same name.
        releases.extend(
            release
                .filter(|r| !r.is_empty() && !r.contains("rescue") && !r.contains("kdump"))
                .map(str::to_owned),
        );
    }
    releases.sort_by(|a, b| version::compare(b, a));
    Ok(releases)
}
