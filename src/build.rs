//! `build`: from a disk image, an archive or a directory to a bundle.
//!
//! 1. Refuse what cannot end well before anything is read: the output's place,
//!    release.yaml.
//! 2. [`source::open`] shows the source as one read-only tree.
//! 3. [`bootable::inspect`] finds the kernel, GRUB and the CPU level, and refuses
//!    a tree that would not boot; [`needed::check`] one that would not boot
//!    without what release.yaml excludes.
//! 4. Where it is asked for, [`environment::add`] makes the initramfs of the migration
//!    environment.
//! 5. [`bundle::pack`] writes the bundle and puts it in the output's place.
//! 6. [`source::Opened::close`] unmounts the tree, or removes what was unpacked.
//!
//! Changes nothing but the output, and that only in step 5, whole.

mod denied;
mod environment;
mod needed;

use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;
use std::{env, fs};

use anyhow::{Context, Result, anyhow};

use crate::boot::bootable::{self, Bootable};
use crate::bundle::{
    self, BootFiles, KeyId, Manifest, PackOptions, PackPlan, Release, SigningKey, TreeFacts,
    load_signing_key,
};
use crate::failure::{Class, Classify};
use crate::progress::Progress;
use crate::refuse;
use crate::source::{self, Reader, SourceOptions};
use crate::system::System;
use crate::system::draft::check_output;
use crate::tree::walk::is_hollow;

/// What to build, and how.
pub struct BuildOptions {
    /// A directory, an archive or an image; `-` is an archive on standard input.
    pub source: PathBuf,
    /// The bundle to write.
    pub output: PathBuf,
    /// The release.yaml that goes with it.
    pub release: PathBuf,
    /// The file of the key to sign with; without one the bundle is unsigned.
    pub key: Option<PathBuf>,
    /// A file that the caller will write about the bundle.
    pub result: Option<PathBuf>,
    /// Which file system is the root, where several could be.
    pub root: Option<String>,
    /// What looks into the file systems of an image.
    pub reader: Reader,
    /// Names of logical volumes that are never packed.
    pub data_volumes: Vec<String>,
    /// How the payload is packed.
    pub plan: PackPlan,
    /// How many threads pack.
    pub threads: usize,
    /// Whether times in the tree are limited to the bundle's.
    pub clamp: bool,
    /// Whether the bundle gets a migration environment.
    pub environment: bool,
    /// Fields of release.yaml that are set, by name and value.
    pub settings: Vec<(String, String)>,
}

/// A bundle that was built.
pub struct Built {
    /// Its manifest.
    pub manifest: Manifest,
    /// The key that signed it.
    pub signer: Option<KeyId>,
}

/// Builds a bundle. The caller has entered a private mount namespace where the
/// source [needs mounts](source::needs_mounts).
///
/// # Errors
/// Class `Refused` when the source cannot be opened or read whole or would not
/// boot, or when an output cannot be written; class `Usage` when the key or
/// release.yaml is unusable.
pub fn build(sys: &dyn System, options: &BuildOptions, progress: &dyn Progress) -> Result<Built> {
    make(sys, options, progress).map_err(denied::refuse)
}

fn make(sys: &dyn System, options: &BuildOptions, progress: &dyn Progress) -> Result<Built> {
    let epoch = source_date_epoch(env::var("SOURCE_DATE_EPOCH").ok().as_deref())?;
    if options.clamp && epoch.is_none() {
        let error = anyhow!("--clamp limits times to SOURCE_DATE_EPOCH, which is not set");
        return Err(error).class(Class::Usage);
    }
    let key = options.key.as_deref().map(load_signing_key).transpose()?;
    let signer = key.as_ref().map(SigningKey::id).transpose()?;
    let release = Release::load(&options.release, &options.settings)?;
    let output = check_outputs(options)?;
    let source_options = SourceOptions {
        root: options.root.clone(),
        data_volumes: options.data_volumes.clone(),
        reader: options.reader,
        keep_visible: vec![output.clone()],
    };
    let opened = source::open(sys, &options.source, &source_options, progress)?;
    let found = bootable::inspect(opened.root())
        .and_then(|found| {
            needed::check(opened.root(), &found, &release)?;
            Ok(found)
        })
        .with_context(|| format!("inspecting {}", options.source.display()))?;
    progress.note(&format!(
        "{} with kernel {}, for {} processors",
        found.os_name, found.kernel.release, found.cpu_level
    ));
    if let Some(level) = release.cpu_level.filter(|level| *level < found.cpu_level) {
        progress.warn(&format!(
            "release.yaml says {level}, but the system's own libraries need {}",
            found.cpu_level
        ));
    }
    if options.environment && opened.tree().is_noted() {
        refuse!(
            "--environment runs programs of the image, which is not possible in an archive; build \
             from the image or from a directory"
        );
    }
    let facts = tree_facts(opened.root(), &found)?;
    let created = match epoch {
        Some(seconds) => seconds,
        None => kernel_time(&opened.root().join(&found.kernel.image))?,
    };
    let pack_options = PackOptions {
        threads: options.threads,
        created,
        plan: options.plan,
        key,
        clamp: options
            .clamp
            .then(|| i64::try_from(created).unwrap_or(i64::MAX)),
    };
    let release_of_kernel = &found.kernel.release;
    let environment = match options.environment {
        true => Some(environment::add(
            sys,
            opened.root(),
            release_of_kernel,
            progress,
        )?),
        false => None,
    };
    let manifest = bundle::pack(
        opened.tree(),
        &release,
        &facts,
        &pack_options,
        &output,
        progress,
    )?;
    if let Some(environment) = environment {
        environment.close()?;
    }
    opened.close()?;
    Ok(Built { manifest, signer })
}

/// Returns the bundle's path free of links in its directory, after a look at
/// whether all that is to be written can be, and replaces nothing that is read.
fn check_outputs(options: &BuildOptions) -> Result<PathBuf> {
    let mut inputs = vec![
        ("the source", &*options.source),
        ("the release.yaml", &*options.release),
    ];
    inputs.extend(options.key.as_deref().map(|key| ("the key", key)));
    let output = check_output(&options.output, &inputs)?;
    refuse_inside(&output, &options.source)?;
    if let Some(result) = &options.result {
        let place = check_output(result, &inputs)?;
        refuse_inside(&place, &options.source)?;
        if place == output {
            refuse!(
                "{} is the bundle; give the result another name",
                result.display()
            );
        }
    }
    Ok(output)
}

/// Refuses to write into the tree that is packed.
fn refuse_inside(output: &Path, source: &Path) -> Result<()> {
    let tree = fs::canonicalize(source).unwrap_or_default();
    let inside = output.strip_prefix(&tree).ok();
    if tree.is_dir() && inside.is_some_and(|path| !is_hollow(path)) {
        refuse!(
            "{} is in {}, which is to be packed; name a file elsewhere",
            output.display(),
            source.display()
        );
    }
    Ok(())
}

/// Reads `SOURCE_DATE_EPOCH`, the time that stands in the bundle.
fn source_date_epoch(text: Option<&str>) -> Result<Option<u64>> {
    let Some(text) = text else { return Ok(None) };
    let seconds = text.parse();
    seconds
        .map(Some)
        .with_context(|| format!("SOURCE_DATE_EPOCH is {text:?}, not seconds since 1970"))
        .class(Class::Usage)
}

/// Returns when the kernel was made: a time that is the same for the same
/// source, so that building twice gives the same bytes.
fn kernel_time(kernel: &Path) -> Result<u64> {
    let modified = fs::metadata(kernel).and_then(|meta| meta.modified());
    let time = modified.with_context(|| format!("looking at {}", kernel.display()))?;
    Ok(time
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs()))
}

fn tree_facts(root: &Path, found: &Bootable) -> Result<TreeFacts> {
    let size = |path: &Path| -> Result<u64> {
        let meta = fs::metadata(root.join(path));
        Ok(meta
            .with_context(|| format!("looking at {}", path.display()))?
            .len())
    };
    let name = |path: &Path| -> Result<String> {
        let text = path.to_str();
        Ok(text
            .with_context(|| format!("{} is not a name in UTF-8", path.display()))?
            .to_owned())
    };
    let kernel = &found.kernel;
    Ok(TreeFacts {
        boot: BootFiles {
            kernel_release: kernel.release.clone(),
            kernel: name(&kernel.image)?,
            initramfs: name(&kernel.initramfs)?,
            kernel_bytes: size(&kernel.image)?,
            initramfs_bytes: size(&kernel.initramfs)?,
        },
        cpu_level: found.cpu_level,
        architecture: found.architecture.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::class_of;

    #[test]
    fn the_time_comes_from_the_environment_where_it_is_set() {
        assert_eq!(
            source_date_epoch(Some("1700000000")).unwrap(),
            Some(1_700_000_000)
        );
        assert_eq!(source_date_epoch(None).unwrap(), None);
        let error = source_date_epoch(Some("yesterday")).unwrap_err();
        assert_eq!(class_of(&error), Class::Usage);
    }
}
