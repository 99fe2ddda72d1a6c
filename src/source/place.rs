//! Where the tree is mounted: on a small tmpfs over a directory that every
//! machine has, seen by this process alone, so that no directory has to be
//! made and removed.

use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::Result;

use super::opened::SourceOptions;
use crate::refuse;
use crate::system::{Mount, Mounted, System, files};

const PLACES: [&str; 4] = ["/mnt", "/media", "/srv", "/opt"];

/// Covers one of the usual mount points with an empty file system.
///
/// # Errors
/// Class `Refused` when the caller's files are below all of them.
pub fn make<'a>(
    sys: &'a dyn System,
    source: &Path,
    options: &SourceOptions,
) -> Result<Mounted<'a>> {
    let Some(place) = choose(&visible(source, options), &PLACES) else {
        refuse!(
            "{} must all stay visible, so the image cannot be mounted; \
             move the source, the output or TMPDIR elsewhere",
            PLACES.join(", ")
        );
    };
    let options = "mode=0700,size=1m,nodev,nosuid,noexec";
    let point = Path::new(&place);
    Mounted::new(
        sys,
        &Mount::device(Path::new("va-upgrade"), point, "tmpfs", options),
    )
}

/// Returns what is used by its name while the source is open.
fn visible(source: &Path, options: &SourceOptions) -> Vec<PathBuf> {
    let current = env::current_dir().unwrap_or_default();
    let mut visible = vec![source.to_owned(), current, files::temp_dir()];
    visible.extend_from_slice(&options.keep_visible);
    visible
}

/// Returns the first of `places` that is a directory with none of `visible` below.
fn choose(visible: &[PathBuf], places: &[&str]) -> Option<PathBuf> {
    places
        .iter()
        .filter_map(|place| fs::canonicalize(place).ok())
        .filter(|place| place.is_dir())
        .find(|place| {
            visible.iter().all(|path| {
                let real = fs::canonicalize(path);
                !real.as_deref().unwrap_or(path).starts_with(place)
            })
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_would_hide_the_callers_files_is_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        let place = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        let (missing, first, second) = (place("missing"), place("first"), place("second"));
        fs::create_dir_all(dir.path().join("first/deep")).unwrap();
        fs::create_dir(&second).unwrap();
        let places = [missing.as_str(), first.as_str(), second.as_str()];
        assert_eq!(choose(&[], &places), Some(PathBuf::from(&first)));
        let source = dir.path().join("first/deep/../deep/disk.raw");
        let only = [source.clone()];
        assert_eq!(choose(&only, &places), Some(PathBuf::from(&second)));
        let output = dir.path().join("second");
        assert_eq!(choose(&[source, output], &places), None);
    }

    #[test]
    fn the_directory_for_temporary_files_stays_visible() {
        let options = SourceOptions {
            keep_visible: vec!["/opt/x.vab".into()],
            ..SourceOptions::default()
        };
        let visible = visible(Path::new("/mnt/disk.raw"), &options);
        for path in ["/mnt/disk.raw", "/opt/x.vab"].map(PathBuf::from) {
            assert!(visible.contains(&path), "{visible:?}");
        }
        assert!(visible.contains(&files::temp_dir()), "{visible:?}");
    }
}
