//! The kernel's mount table, `/proc/self/mountinfo` (proc(5)).

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountEntry {
    /// `major:minor` of the device.
    pub device_number: String,
    /// Where it is mounted.
    pub target: PathBuf,
    /// The file system type.
    pub fs_type: String,
    /// The device or other source.
    pub source: String,
    /// Whether it can be written.
    pub writable: bool,
}

/// Reads the mount table in the file `path`.
///
/// # Errors
/// When the file cannot be read.
pub fn read(path: &Path) -> Result<Vec<MountEntry>> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    Ok(text.lines().filter_map(parse_line).collect())
}

/// Returns the mount on top at exactly `target`.
pub fn at<'a>(table: &'a [MountEntry], target: &Path) -> Option<&'a MountEntry> {
    table.iter().rev().find(|mount| mount.target == target)
}

fn parse_line(line: &str) -> Option<MountEntry> {
    let (left, right) = line.split_once(" - ")?;
    let left: Vec<&str> = left.split(' ').collect();
    let right: Vec<&str> = right.split(' ').collect();
    let options = format!("{},{}", left.get(5)?, right.get(2)?);
    Some(MountEntry {
        device_number: (*left.get(2)?).to_owned(),
        target: PathBuf::from(unescape(left.get(4)?)),
        fs_type: (*right.first()?).to_owned(),
        source: unescape(right.get(1)?),
        writable: !options.split(',').any(|option| option == "ro"),
    })
}

/// Undoes the octal escapes of blanks and backslashes.
fn unescape(field: &str) -> String {
    let mut text = String::new();
    let mut rest = field;
    while let Some(at) = rest.find('\\') {
        text.push_str(&rest[..at]);
        let code = rest
            .get(at + 1..at + 4)
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(byte) => {
                text.push(char::from(byte));
                rest = &rest[at + 4..];
            }
            None => {
                text.push('\\');
                rest = &rest[at + 1..];
            }
        }
    }
    text + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_with_optional_fields_and_escapes_is_read() {
        let line = r"36 25 253:1 / /my\040data rw,noatime shared:3 master:1 - ext4 /dev/mapper/VA-data ro,data=ordered";
        let mount = parse_line(line).unwrap();
        assert_eq!(mount.device_number, "253:1");
        assert_eq!(mount.target, Path::new("/my data"));
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
