//! The image's own fstab: which file systems belong to the system.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

/// Where file systems of the system are mounted. `/home` is among them: the
/// accounts a system is delivered with live there, and a customer's homes are
/// not on a build machine. `/srv`, `/data` and the like are the customer's.
const SYSTEM_PATHS: [&str; 8] = [
    "/boot", "/efi", "/etc", "/home", "/opt", "/root", "/usr", "/var",
];

/// One line of fstab that mounts something below the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The first column.
    pub spec: String,
    /// Where it is mounted.
    pub mount_point: PathBuf,
    /// The third column.
    pub kind: String,
    /// The fourth column, split at commas.
    pub options: Vec<String>,
}

impl Line {
    /// Tells whether what is mounted belongs to the system.
    pub fn is_system(&self) -> bool {
        is_system_path(&self.mount_point)
    }

    /// Tells whether this mounts a disk's file system, not a network's, memory or a bind.
    pub fn is_on_disk(&self) -> bool {
        let is_device = self.spec.starts_with("/dev/")
            || ["UUID=", "LABEL=", "PARTUUID=", "PARTLABEL="]
                .iter()
                .any(|key| self.spec.starts_with(key));
        is_device && !self.has_option("bind") && !self.has_option("rbind")
    }

    /// Tells whether the system comes up without it.
    pub fn may_be_absent(&self) -> bool {
        self.has_option("nofail") || self.has_option("noauto")
    }

    fn has_option(&self, wanted: &str) -> bool {
        self.options.iter().any(|option| option == wanted)
    }
}

/// Tells whether a file system mounted at `path` belongs to the system.
pub fn is_system_path(path: &Path) -> bool {
    SYSTEM_PATHS.iter().any(|system| path.starts_with(system))
}

/// Parses fstab into the lines that mount something below the root, parents
/// before children. Lines that make no sense are left out, as mount(8) does.
pub fn parse(text: &str) -> Vec<Line> {
    let mut lines: Vec<Line> = text.lines().filter_map(parse_line).collect();
    lines.sort_by(|a, b| a.mount_point.cmp(&b.mount_point));
    lines
}

fn parse_line(line: &str) -> Option<Line> {
    let mut columns = line.split_ascii_whitespace();
    let spec = columns.next().filter(|spec| !spec.starts_with('#'))?;
    let mount_point = PathBuf::from(unescape(columns.next()?));
    let kind = columns.next().unwrap_or("auto");
    let options = columns.next().unwrap_or("defaults");
    let plain = mount_point
        .components()
        .all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    let below_root = mount_point.has_root() && mount_point.parent().is_some();
    (plain && below_root && kind != "swap").then(|| Line {
        spec: unescape(spec).to_string_lossy().into_owned(),
        mount_point,
        kind: kind.to_owned(),
        options: options.split(',').map(str::to_owned).collect(),
    })
}

/// Undoes `\040` and its like, also as `/proc/self/mountinfo` writes them.
pub fn unescape(word: &str) -> OsString {
    let bytes = word.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let code = bytes
            .get(at + 1..at + 4)
            .filter(|_| bytes[at] == b'\\')
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        plain.push(code.unwrap_or(bytes[at]));
        at += if code.is_some() { 4 } else { 1 };
    }
    OsString::from_vec(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROCKY: &str = "\
# /etc/fstab
/dev/mapper/VA-root     /                       xfs     defaults        0 0
UUID=7B77-95E7          /boot/efi               vfat    umask=0077,shortname=winnt 0 2
UUID=0cf6-12            /boot                   xfs     defaults        0 0
/dev/VA/data            /data                   ext4    defaults,nofail 0 2
/data/home\\040dirs      /home                   none    bind            0 0
/dev/mapper/VA-var      /var                    ext4    defaults        0 2
server:/x               /opt/share              nfs     _netdev         0 0
tmpfs                   /var/lib/fast           tmpfs   size=1g         0 0
/dev/sda3               none                    swap    sw              0 0
/dev/sda4               /usr/../etc             ext4    defaults        0 0
short
";

    #[test]
    fn lines_below_the_root_are_listed_parents_first() {
        let lines = parse(ROCKY);
        let shown: Vec<(&str, bool, bool)> = lines
            .iter()
            .map(|line| {
                let path = line.mount_point.to_str().unwrap();
                (path, line.is_system(), line.is_on_disk())
            })
            .collect();
        assert_eq!(
            shown,
            [
                ("/boot", true, true),
                ("/boot/efi", true, true),
                ("/data", false, true),
                ("/home", true, false),
                ("/opt/share", true, false),
                ("/var", true, true),
                ("/var/lib/fast", true, false),
            ]
        );
        assert!(lines[2].may_be_absent());
        assert!(!lines[0].may_be_absent());
        assert_eq!(lines[3].spec, "/data/home dirs");
    }

    #[test]
    fn a_path_that_only_starts_with_the_same_letters_is_not_the_systems() {
        assert!(!is_system_path(Path::new("/variable")));
        assert!(is_system_path(Path::new("/var/log")));
        assert_eq!(unescape(r"a\04"), r"a\04");
    }
}
