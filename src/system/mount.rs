//! A mount as data.

use std::path::{Path, PathBuf};

/// What to mount where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// A device, an image file (with `loop` in the options), or a directory to bind.
    pub source: PathBuf,
    /// The mount point.
    pub point: PathBuf,
    /// The file system type; `None` binds `source`.
    pub fs_type: Option<String>,
    /// Options for mount(8), separated by commas; empty when binding.
    pub options: String,
}

impl Mount {
    /// Describes a file system mount.
    pub fn device(source: &Path, point: &Path, fs_type: &str, options: &str) -> Mount {
        Mount {
            source: source.to_owned(),
            point: point.to_owned(),
            fs_type: Some(fs_type.to_owned()),
            options: options.to_owned(),
        }
    }

    /// Describes a bind mount of one directory, without what is mounted below it.
    pub fn bind(source: &Path, point: &Path) -> Mount {
        Mount {
            source: source.to_owned(),
            point: point.to_owned(),
            fs_type: None,
            options: String::new(),
        }
    }
}
