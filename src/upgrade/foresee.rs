//! Whether the system in a bundle fits this machine, while nothing has been written.
//!
//! Of the bundle only the chunks are read that hold its kernel's lists of drivers and
//! its dynamic loader. A stream passes only once: of that the same is asked after it
//! was unpacked ([`fit`]).

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, ensure};

use crate::appliance::Appliance;
use crate::bundle::{Bundle, FilesReader, Manifest, UnpackOptions, unpack_only};
use crate::failure::{Class, class_of};
use crate::install::fit;
use crate::progress::Silent;
use crate::signals;
use crate::system::files::ScratchDir;

/// What a kernel's modules are listed in.
const LISTS: [&str; 4] = [
    "modules.alias",
    "modules.builtin",
    "modules.builtin.modinfo",
    "modules.dep",
];

/// Links that lead to the directories of libraries.
const LINKS: [&str; 2] = ["lib", "lib64"];

/// Where a dynamic loader may be, without a leading `usr`.
const LIBRARIES: [&str; 3] = ["lib", "lib64", "lib/x86_64-linux-gnu"];

/// Looks whether the system fits that `manifest` describes and `bundle`, where it is no
/// stream, holds. What cannot be found out yet is a note.
///
/// # Errors
/// Class `Refused` when it does not.
pub fn look(
    appliance: &Appliance,
    bundle: Option<Result<Bundle>>,
    manifest: &Manifest,
    threads: usize,
    disk: &Path,
) -> Result<()> {
    let outcome = match bundle {
        None => Err(anyhow!("a stream passes only once")),
        Some(bundle) => bundle.and_then(|bundle| {
            ensure!(bundle.manifest() == manifest, "it has changed meanwhile");
            check(appliance, bundle, threads, disk)
        }),
    };
    signals::check()?;
    match outcome {
        Err(error) if class_of(&error) == Class::Refused => Err(error),
        Err(error) => {
            appliance.progress.note(&format!(
                "whether the new system has drivers for this machine is looked at once it is \
                 unpacked: {error:#}"
            ));
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

fn check(appliance: &Appliance, bundle: Bundle, threads: usize, disk: &Path) -> Result<()> {
    let level = bundle.manifest().cpu_level;
    let release = &bundle.manifest().boot.kernel_release.clone();
    let wanted = wanted(&bundle, release).context("reading the bundle's list of files")?;
    if wanted.is_empty() {
        return Ok(());
    }
    // Whatever is told is told again once all of it is there.
    let appliance = &Appliance {
        progress: &Silent,
        ..*appliance
    };
    let dir = ScratchDir::new()?;
    let paths: Vec<&[u8]> = wanted
        .iter()
        .map(|path| path.as_os_str().as_bytes())
        .collect();
    let options = UnpackOptions::new(threads);
    unpack_only(bundle, &paths, dir.path(), &options, &Silent)
        .context("looking at the new system's drivers")?;
    fit::foresee(appliance, dir.path(), release, level, disk)
}

/// Lists what is to be looked at, of what the bundle has.
fn wanted(bundle: &Bundle, release: &str) -> Result<Vec<PathBuf>> {
    let Some(list) = bundle.files()? else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    let mut has_list = false;
    let mut reader = FilesReader::new(&list[..])?;
    while let Some(line) = reader.next_line()? {
        let path = Path::new(&line.path);
        let is_list = line.kind == "file" && is_list(path, release);
        let is_link = line.kind == "symlink" && LINKS.contains(&&line.path[..]);
        let is_loader = ["file", "symlink"].contains(&&line.kind[..]) && is_loader(path);
        has_list |= is_list;
        if line.path_hex.is_none() && (is_list || is_link || is_loader) {
            found.push(path.to_owned());
        }
    }
    // Without any list nothing is known of the drivers.
    match has_list {
        true => Ok(found),
        false => Ok(Vec::new()),
    }
}

fn is_list(path: &Path, release: &str) -> bool {
    let path = path.strip_prefix("usr").unwrap_or(path);
    let dir = Path::new("lib/modules").join(release);
    path.strip_prefix(dir)
        .is_ok_and(|name| name.to_str().is_some_and(|name| LISTS.contains(&name)))
}

/// Tells whether it is glibc's loader: `ld-linux-x86-64.so.2`, or the `ld-2.31.so` that
/// a link of that name leads to.
fn is_loader(path: &Path) -> bool {
    let path = path.strip_prefix("usr").unwrap_or(path);
    let name = path.file_name().and_then(|name| name.to_str());
    let is_named = name.is_some_and(|name| {
        name == "ld-linux-x86-64.so.2" || (name.starts_with("ld-2.") && name.ends_with(".so"))
    });
    let is_there = |dir: &str| path.parent() == Some(Path::new(dir));
    is_named && LIBRARIES.iter().any(|dir| is_there(dir))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_tells_of_drivers_and_the_processor_is_found_in_either_layout() {
        for path in [
            "lib/modules/6.1/modules.alias",
            "usr/lib/modules/6.1/modules.dep",
        ] {
            assert!(is_list(Path::new(path), "6.1"), "{path}");
        }
        for path in [
            "lib/modules/6.2/modules.alias",
            "lib/modules/6.1/kernel/modules.dep",
        ] {
            assert!(!is_list(Path::new(path), "6.1"), "{path}");
        }
        for path in [
            "lib64/ld-linux-x86-64.so.2",
            "usr/lib64/ld-2.28.so",
            "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2",
        ] {
            assert!(is_loader(Path::new(path)), "{path}");
        }
        for path in ["opt/lib64/ld-linux-x86-64.so.2", "usr/lib64/libc.so.6"] {
            assert!(!is_loader(Path::new(path)), "{path}");
        }
    }
}
