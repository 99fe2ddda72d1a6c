//! The kernel of a tree: the newest one that has its modules.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::tree::Tree;
use crate::linux::initramfs;
use crate::version;

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
    let mut releases = releases(tree)?;
    releases.sort_by(|a, b| version::compare(b, a));
    let mut without_modules = Vec::new();
    for release in releases {
        let modules = format!("lib/modules/{release}/modules.dep");
        if tree.resolve_file(&modules)?.is_none() {
            without_modules.push(release);
            continue;
        }
        let Some(image) = tree.resolve_file(format!("boot/vmlinuz-{release}"))? else {
            continue;
        };
        let names = initramfs::names(&release).map(|name| format!("boot/{name}"));
        let [debian, rhel] = names.each_ref().map(String::as_str);
        let Some(initramfs) = tree.first_file(&[debian, rhel])? else {
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
    Ok(releases)
}
