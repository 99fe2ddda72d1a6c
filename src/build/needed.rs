//! What a system cannot boot without, held against `exclude` in release.yaml.
//!
//! [`bootable::inspect`](crate::boot::bootable::inspect) proves a tree as it is;
//! this proves that what it found is also in what is left of the tree.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::boot::bootable::Bootable;
use crate::bundle::Release;
use crate::linux::{initramfs, os_release};
use crate::refuse;
use crate::tree::glob::Glob;
use crate::tree::resolve;

/// Names of which one is enough.
type Choice = Vec<PathBuf>;

/// Checks that `release` excludes nothing without which `found`, the system in
/// the tree at `root`, would not boot.
///
/// # Errors
/// Class `Refused`, naming the pattern and what it leaves out.
pub fn check(root: &Path, found: &Bootable, release: &Release) -> Result<()> {
    let globs = release.globs()?;
    if globs.is_empty() {
        return Ok(());
    }
    for choice in choices(root, found)? {
        if let Some((path, number)) = excluded_of(root, &choice, &globs)? {
            refuse!(
                "exclude pattern {:?} of release.yaml leaves out {}, and without it the system \
                 would not boot; narrow the pattern",
                release.exclude[number],
                path.display()
            );
        }
    }
    Ok(())
}

/// Lists what the system boots from and with, by the names it is reached by.
fn choices(root: &Path, found: &Bootable) -> Result<Vec<Choice>> {
    let one = |path: &str| vec![PathBuf::from(path)];
    let release = &found.kernel.release;
    let boot = |name: String| Path::new("boot").join(name);
    let mut choices = vec![
        os_release::PATHS.map(PathBuf::from).to_vec(),
        ["usr/lib/systemd/systemd", "lib/systemd/systemd"]
            .map(PathBuf::from)
            .to_vec(),
        one("sbin/init"),
        one("lib64/ld-linux-x86-64.so.2"),
        vec![boot(format!("vmlinuz-{release}"))],
        initramfs::names(release).map(boot).to_vec(),
        one(&format!("lib/modules/{release}/modules.dep")),
        vec![found.grub.install.clone()],
        vec![found.grub.script_check.clone()],
        vec![found.grub.mkimage.clone()],
    ];
    // grub-install copies all of them, and each may need any other.
    let platform = &found.grub.platform_dir;
    let dir = resolve::place(root, platform)?;
    let context = || format!("listing {}", dir.display());
    for entry in fs::read_dir(&dir).with_context(context)? {
        choices.push(vec![
            platform.join(entry.with_context(context)?.file_name()),
        ]);
    }
    Ok(choices)
}

/// Returns what is left out, and the number of the pattern, when of a choice
/// nothing is left that was there.
fn excluded_of(root: &Path, choice: &Choice, globs: &[Glob]) -> Result<Option<(PathBuf, usize)>> {
    let mut excluded = None;
    for path in choice {
        let mut hit = None;
        let end = resolve::trace(root, path, &mut |step| {
            let number = globs
                .iter()
                .position(|glob| glob.matches(step.as_os_str().as_bytes()));
            if let Some(number) = number.filter(|_| hit.is_none()) {
                hit = Some((step.to_owned(), number));
            }
        });
        let end = end.with_context(|| format!("looking up {}", path.display()))?;
        match (end, hit) {
            (Some(_), None) => return Ok(None),
            (Some(_), Some(hit)) => excluded = excluded.or(Some(hit)),
            (None, _) => {}
        }
    }
    Ok(excluded)
}
