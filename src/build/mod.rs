//! Making a bundle from a machine's disk image or directory.
//!
//! 1. refuse what cannot work before anything is opened: release file, output place;
//! 2. open the source as one read-only tree ([`source`]);
//! 3. inspect it: kernel, initramfs, GRUB, processor level ([`target`]);
//! 4. pack, sign and put the bundle in place ([`bundle::pack`]);
//! 5. close the source.

use std::env;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use anyhow::{Context, Result};

use crate::boot::target::{self, Target};
use crate::bundle::{self, BootFiles, Manifest, PackOptions, Release, SigningKey, TreeFacts};
use crate::progress::Progress;
use crate::refuse;
use crate::source::{self, SourceOptions};
use crate::system::System;

/// What `build` is told.
pub struct BuildOptions {
    /// The directory or image.
    pub source: PathBuf,
    /// The bundle to write; an old one is replaced when the new one is whole.
    pub output: PathBuf,
    /// The release file.
    pub release: PathBuf,
    /// The key to sign with.
    pub key: Option<SigningKey>,
    /// Which root to pack where there are several.
    pub root: Option<String>,
    /// Logical volumes that are never packed.
    pub data_volumes: Vec<String>,
    /// How many chunks are packed at a time.
    pub threads: usize,
}

/// Builds a bundle. The caller has entered a private mount namespace.
///
/// # Errors
/// Class `Refused` when the source holds no system that could boot.
pub fn build(sys: &dyn System, options: BuildOptions, progress: &dyn Progress) -> Result<Manifest> {
    let mut release = Release::load(&options.release)?;
    let dir = output_dir(&options.output)?;
    let source_options = SourceOptions {
        root: options.root.clone(),
        data_volumes: options.data_volumes.clone(),
        keep_visible: vec![dir],
    };
    progress.start(&format!("opening {}", options.source.display()), None);
    let opened = source::open(sys, &options.source, &source_options, progress)?;
    let target = target::inspect(opened.root())?;
    release.cpu_level.get_or_insert(target.cpu_level);
    progress.note(&format!(
        "{} with kernel {}, for {}",
        target.os_name,
        target.kernel.release,
        release.cpu_level.unwrap_or_default()
    ));
    let facts = facts(opened.root(), &target, &release)?;
    let mut pack_options = PackOptions::new(options.threads, created(opened.root(), &target)?);
    pack_options.key = options.key;
    let manifest = bundle::pack(
        opened.root(),
        &release,
        &facts,
        &pack_options,
        &options.output,
        progress,
    )?;
    opened.close()?;
    Ok(manifest)
}

/// Returns the directory that the bundle is written to.
fn output_dir(output: &Path) -> Result<PathBuf> {
    let parent = output.parent().filter(|dir| !dir.as_os_str().is_empty());
    let dir = parent.unwrap_or(Path::new("."));
    if !dir.is_dir() {
        refuse!(
            "there is no directory {}; make it, or give another output",
            dir.display()
        );
    }
    if output.is_dir() {
        refuse!(
            "{} is a directory; give the name of a file",
            output.display()
        );
    }
    dir.canonicalize()
        .with_context(|| format!("looking up {}", dir.display()))
}

fn facts(root: &Path, target: &Target, release: &Release) -> Result<TreeFacts> {
    let text = |path: &Path| match path.to_str() {
        Some(text) => Ok(text.to_owned()),
        None => refuse!("the file name {} is not UTF-8", path.display()),
    };
    Ok(TreeFacts {
        boot: BootFiles {
            kernel_release: target.kernel.release.clone(),
            kernel: text(&target.kernel.image)?,
            initramfs: text(&target.kernel.initramfs)?,
            kernel_bytes: size(&root.join(&target.kernel.image))?,
            initramfs_bytes: size(&root.join(&target.kernel.initramfs))?,
        },
        cpu_level: release.cpu_level.unwrap_or(target.cpu_level),
        architecture: target.architecture.to_owned(),
    })
}

fn size(path: &Path) -> Result<u64> {
    Ok(path
        .metadata()
        .with_context(|| format!("reading {}", path.display()))?
        .len())
}

/// Returns the time written into the bundle, in seconds since 1970:
/// `SOURCE_DATE_EPOCH`, or else when the source's kernel was made, so that the
/// same source gives the same bytes.
fn created(root: &Path, target: &Target) -> Result<u64> {
    match env::var("SOURCE_DATE_EPOCH") {
        Ok(text) => match text.parse() {
            Ok(seconds) => Ok(seconds),
            Err(_) => refuse!("SOURCE_DATE_EPOCH is {text:?}, not a number of seconds"),
        },
        Err(_) => {
            let kernel = root.join(&target.kernel.image);
            let modified = kernel.metadata().and_then(|meta| meta.modified());
            let time = modified.with_context(|| format!("reading {}", kernel.display()))?;
            Ok(time
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_secs()))
        }
    }
}
