//! A mount as data.

use std::path::{Path, PathBuf};

use nix::mount::MsFlags;

use super::cmd::Cmd;

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

    /// Returns the flags of a mount that the kernel makes from these words alone;
    /// `None` where mount(8) has to set up a loop device first.
    pub(super) fn flags(&self) -> Option<MsFlags> {
        if self.fs_type.is_none() {
            return Some(MsFlags::MS_BIND);
        }
        let mut words = self.words();
        if words.any(|word| matches!(word.split('=').next(), Some("loop" | "offset"))) {
            return None;
        }
        Some(self.words().filter_map(flag).collect())
    }

    /// Returns the options for the file system itself.
    pub(super) fn data(&self) -> String {
        let words = self
            .words()
            .filter(|word| *word != "rw" && flag(word).is_none());
        words.collect::<Vec<_>>().join(",")
    }

    /// Returns the call of mount(8) for it.
    pub(super) fn command(&self) -> Cmd {
        let mut cmd = Cmd::new("mount");
        if let Some(fs_type) = &self.fs_type {
            cmd = cmd.args(["-t", fs_type]);
        }
        if !self.options.is_empty() {
            cmd = cmd.args(["-o", &self.options]);
        }
        cmd.arg(&self.source).arg(&self.point)
    }

    fn words(&self) -> impl Iterator<Item = &str> {
        self.options.split(',').filter(|word| !word.is_empty())
    }
}

/// Returns the flag that an option stands for, if it is not the file system's own.
fn flag(word: &str) -> Option<MsFlags> {
    match word {
        "ro" => Some(MsFlags::MS_RDONLY),
        "nodev" => Some(MsFlags::MS_NODEV),
        "nosuid" => Some(MsFlags::MS_NOSUID),
        "noexec" => Some(MsFlags::MS_NOEXEC),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_gets_flags_apart_from_what_the_file_system_reads() {
        let mount = |options| Mount::device("/dev/x".as_ref(), "/mnt".as_ref(), "xfs", options);
        let slot = mount("ro,nouuid");
        assert_eq!(slot.flags(), Some(MsFlags::MS_RDONLY));
        assert_eq!(slot.data(), "nouuid");
        assert_eq!(
            (mount("rw").flags(), mount("rw").data()),
            (Some(MsFlags::empty()), String::new())
        );
        let place = mount("mode=0700,size=1m,nodev,nosuid,noexec");
        let flags = MsFlags::MS_NODEV | MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
        assert_eq!(place.flags(), Some(flags));
        assert_eq!(place.data(), "mode=0700,size=1m");
        assert_eq!(
            Mount::bind("/dev".as_ref(), "/mnt/dev".as_ref()).flags(),
            Some(MsFlags::MS_BIND)
        );
    }

    #[test]
    fn loop_devices_are_left_to_mount() {
        let options = "ro,loop,offset=1048576";
        let mount = Mount::device("disk.raw".as_ref(), "/mnt".as_ref(), "ext4", options);
        assert_eq!(mount.flags(), None);
        assert_eq!(
            mount.command().to_string(),
            format!("mount -t ext4 -o {options} disk.raw /mnt")
        );
    }
}
