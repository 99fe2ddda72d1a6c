//! The kernel's mount table, `/proc/self/mountinfo` (proc(5)).

use std::path::{Path, PathBuf};

use super::octal::unescape;

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountEntry {
    /// `major:minor` of the device.
    pub device_number: String,
    /// Which directory of the file system is shown; `/` unless it is bound.
    pub root: PathBuf,
    /// Where it is mounted.
    pub mount_point: PathBuf,
    /// The file system type.
    pub fs_type: String,
    /// The device or other source.
    pub source: String,
    /// Whether it can be written.
    pub writable: bool,
}

/// Parses a mount table, in the order things were mounted.
pub fn parse(text: &str) -> Vec<MountEntry> {
    text.lines().filter_map(parse_line).collect()
}

/// Returns the mount on top at exactly `mount_point`.
pub fn at<'a>(table: &'a [MountEntry], mount_point: &Path) -> Option<&'a MountEntry> {
    table
        .iter()
        .rev()
        .find(|mount| mount.mount_point == mount_point)
}

fn parse_line(line: &str) -> Option<MountEntry> {
    let (left, right) = line.split_once(" - ")?;
    let left: Vec<&str> = left.split(' ').collect();
    let right: Vec<&str> = right.split(' ').collect();
    let options = format!("{},{}", left.get(5)?, right.get(2)?);
    Some(MountEntry {
        device_number: (*left.get(2)?).to_owned(),
        root: PathBuf::from(unescape(left.get(3)?)),
        mount_point: PathBuf::from(unescape(left.get(4)?)),
        fs_type: (*right.first()?).to_owned(),
        source: unescape(right.get(1)?).to_string_lossy().into_owned(),
        writable: !options.split(',').any(|option| option == "ro"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_with_optional_fields_and_escapes_is_read() {
        let line = r"36 25 253:1 / /my\040data rw,noatime shared:3 master:1 - ext4 /dev/mapper/VA-data ro,data=ordered";
        let mount = parse_line(line).unwrap();
        assert_eq!(mount.device_number, "253:1");
        assert_eq!(mount.root, Path::new("/"));
        assert_eq!(mount.mount_point, Path::new("/my data"));
        assert_eq!(
            (mount.fs_type.as_str(), mount.source.as_str()),
            ("ext4", "/dev/mapper/VA-data")
        );
        assert!(!mount.writable);
    }

    #[test]
    fn the_mount_on_top_counts() {
        let table: Vec<MountEntry> = [
            "1 0 0:1 / / rw - rootfs rootfs rw",
            "2 0 253:0 / / rw - xfs /dev/x rw",
        ]
        .into_iter()
        .filter_map(parse_line)
        .collect();
        assert_eq!(at(&table, Path::new("/")).unwrap().fs_type, "xfs");
    }
}
