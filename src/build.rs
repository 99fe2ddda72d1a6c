//! `build`: from a disk image, an archive or a directory to a bundle.
//!
//! 1. Refuse what cannot end well before anything is read: the output's place,
//!    release.yaml.
//! 2. [`source::open`] shows the source as one read-only tree.
//! 3. [`bootable::inspect`] finds the kernel, GRUB and the CPU level, and refuses
//!    a tree that would not boot; [`needed::check`] one that would not boot
//!    without what release.yaml excludes.
//! 4. [`bundle::pack`] writes the bundle and puts it in the output's place.
//! 5. [`source::Opened::close`] unmounts the tree, or removes what was unpacked.
//!
//! Changes nothing but the output, and that only in step 4, whole.

mod denied;
mod needed;

use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;
use std::{env, fs, io};

use anyhow::{Context, Result, anyhow};

use crate::boot::bootable::{self, Bootable};
use crate::bundle::{
    self, BootFiles, Manifest, PackOptions, PackPlan, Release, SigningKey, TreeFacts,
};
use crate::failure::{Class, Classify};
use crate::progress::Progress;
use crate::refuse;
use crate::source::{self, SourceOptions};
use crate::system::{System, files};

/// What to build, and how.
pub struct BuildOptions {
    /// A directory, an archive or an image; `-` is an archive on standard input.
    pub source: PathBuf,
    /// The bundle to write.
    pub output: PathBuf,
    /// The release.yaml that goes with it.
    pub release: PathBuf,
    /// The key to sign with; without one the bundle is unsigned.
    pub key: Option<SigningKey>,
    /// Which file system is the root, where several could be.
    pub root: Option<String>,
    /// Names of logical volumes that are never packed.
    pub data_volumes: Vec<String>,
    /// How the payload is packed.
    pub plan: PackPlan,
    /// How many threads pack.
    pub threads: usize,
    /// Whether times in the tree are limited to the bundle's.
    pub clamp: bool,
    /// Fields of release.yaml that are set, by name and value.
    pub settings: Vec<(String, String)>,
}

/// Builds a bundle. The caller has entered a private mount namespace where the
/// source [needs mounts](source::needs_mounts).
///
/// # Errors
/// Class `Refused` when the source cannot be opened or read whole or would not
/// boot, or when the output cannot be written; class `Usage` when release.yaml
/// is unusable.
pub fn build(
    sys: &dyn System,
    options: &BuildOptions,
    progress: &dyn Progress,
) -> Result<Manifest> {
    make(sys, options, progress).map_err(denied::refuse)
}

fn make(sys: &dyn System, options: &BuildOptions, progress: &dyn Progress) -> Result<Manifest> {
    let epoch = source_date_epoch(env::var("SOURCE_DATE_EPOCH").ok().as_deref())?;
    if options.clamp && epoch.is_none() {
        let error = anyhow!("--clamp limits times to SOURCE_DATE_EPOCH, which is not set");
        return Err(error).class(Class::Usage);
    }
    let release = Release::load(&options.release, &options.settings)?;
    let output = check_output(&options.output, &options.source)?;
    let source_options = SourceOptions {
        root: options.root.clone(),
        data_volumes: options.data_volumes.clone(),
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
        progress.note(&format!(
            "warning: release.yaml says {level}, but the system's own libraries need {}",
            found.cpu_level
        ));
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
        key: options.key.clone(),
        clamp: options
            .clamp
            .then(|| i64::try_from(created).unwrap_or(i64::MAX)),
    };
    let manifest = bundle::pack(
        opened.tree(),
        &release,
        &facts,
        &pack_options,
        &output,
        progress,
    )?;
    opened.close()?;
    Ok(manifest)
}

/// Returns the output's path free of links in its directory, after a look at
/// whether it can be written.
fn check_output(output: &Path, source: &Path) -> Result<PathBuf> {
    let shown = output.display();
    let Some(name) = output.file_name() else {
        refuse!("{shown} is not the name of a file to write");
    };
    let dir = match output.parent() {
        Some(dir) if dir != Path::new("") => dir,
        _ => Path::new("."),
    };
    let dir = match fs::canonicalize(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            refuse!(
                "{shown} cannot be written: there is no directory {}",
                dir.display()
            )
        }
        other => other.with_context(|| format!("looking up {}", dir.display()))?,
    };
    let output = dir.join(name);
    if output.is_dir() {
        refuse!("{shown} is a directory; give the name of a file in it");
    }
    if let (Ok(output), Ok(source)) = (fs::canonicalize(&output), fs::canonicalize(source))
        && output == source
    {
        refuse!("{shown} is the source; give the bundle another name");
    }
    files::unnamed_file(&dir)
        .with_context(|| format!("{shown} cannot be written"))
        .class(Class::Refused)?;
    Ok(output)
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
    fn an_output_that_cannot_be_written_is_refused_early() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let source = dir.join("disk.raw");
        fs::write(&source, "").unwrap();
        for (output, word) in [
            (dir.join("missing/x.vab"), "no directory"),
            (dir.to_owned(), "is a directory"),
            (source.clone(), "is the source"),
            (dir.join(".."), "not the name"),
        ] {
            let error = check_output(&output, &source).unwrap_err();
            assert_eq!(class_of(&error), Class::Refused, "{error:#}");
            assert!(format!("{error:#}").contains(word), "{error:#}");
        }
        let good = dir.join("x.vab");
        fs::write(&good, "old").unwrap();
        assert_eq!(check_output(&good, &source).unwrap(), good);
        assert_eq!(fs::read(&good).unwrap(), b"old");
    }

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
