//! fstab(5): what is mounted where, and to whom it belongs.

use std::path::{Component, Path, PathBuf};

use super::octal::unescape;

/// Whose a place in the tree is, where a file system of its own is mounted on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The system's: a release brings all of it, and what an older system had
    /// there must not cover it.
    System,
    /// The system's when it is delivered, the customer's from then on: accounts
    /// a system is delivered with live in `/home`, logs below `/var`.
    Delivered,
    /// The customer's: `/srv`, `/data` and the like.
    Customer,
}

/// Mount points that a release replaces.
const SYSTEM: [&str; 6] = ["/", "/efi", "/etc", "/opt", "/usr", "/var"];

/// Where whatever is mounted at or below comes with a release.
const DELIVERED: [&str; 7] = ["/efi", "/etc", "/home", "/opt", "/root", "/usr", "/var"];

/// Boot loaders read what is at or below it.
const BOOT: &str = "/boot";

/// File systems of the kernel, not of a disk.
const VIRTUAL: [&str; 20] = [
    "autofs",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "devtmpfs",
    "efivarfs",
    "fusectl",
    "hugetlbfs",
    "mqueue",
    "proc",
    "pstore",
    "rpc_pipefs",
    "securityfs",
    "sysfs",
    "tmpfs",
    "tracefs",
];

/// File systems that come over a network (systemd's list, `fstype_is_network`).
const NETWORK: [&str; 18] = [
    "afs",
    "ceph",
    "cifs",
    "davfs",
    "gfs",
    "gfs2",
    "glusterfs",
    "lustre",
    "ncp",
    "ncpfs",
    "nfs",
    "nfs4",
    "ocfs2",
    "orangefs",
    "pvfs2",
    "smb3",
    "smbfs",
    "sshfs",
];

/// Tells whether a file system of this type comes over a network.
pub fn is_network(fs_type: &str) -> bool {
    NETWORK.contains(&fs_type.strip_prefix("fuse.").unwrap_or(fs_type))
}

/// Options of systemd.mount(5) that order a mount or take it out of the start.
const ORDER_OPTIONS: [&str; 6] = [
    "after",
    "automount",
    "before",
    "required-by",
    "requires",
    "wanted-by",
];

impl Owner {
    /// Tells whose a file system mounted at `mount_point` is.
    pub fn of(mount_point: &Path) -> Owner {
        let is_at = |place: &&str| mount_point == Path::new(place);
        if mount_point.starts_with(BOOT) || SYSTEM.iter().any(is_at) {
            Owner::System
        } else if DELIVERED.iter().any(|place| mount_point.starts_with(place)) {
            Owner::Delivered
        } else {
            Owner::Customer
        }
    }
}

/// Tells whether file systems of this type are the kernel's own, such as proc.
pub fn is_virtual(fs_type: &str) -> bool {
    VIRTUAL.contains(&fs_type)
}

/// Takes away the quotes that mount(8) allows around the value of a tag.
pub fn unquoted(value: &str) -> &str {
    ['"', '\'']
        .iter()
        .find_map(|quote| value.strip_prefix(*quote)?.strip_suffix(*quote))
        .unwrap_or(value)
}

/// One line of fstab that is not a comment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// What is mounted; escapes undone.
    pub source: String,
    /// Where; escapes undone. `none` and the like where it is nowhere.
    pub mount_point: PathBuf,
    /// The type of file system.
    pub fs_type: String,
    /// The mount options.
    pub options: Vec<String>,
    /// The columns for dump(8) and fsck(8), as they are.
    pub numbers: String,
    /// The first two columns as they are.
    written: [String; 2],
}

impl Line {
    /// Tells whose the file system is.
    pub fn owner(&self) -> Owner {
        Owner::of(&self.mount_point)
    }

    /// Tells whether it is mounted in the tree, below its root.
    pub fn is_below_root(&self) -> bool {
        let is_plain = |part| matches!(part, Component::RootDir | Component::Normal(_));
        self.mount_point.components().all(is_plain)
            && self.mount_point.has_root()
            && self.mount_point.parent().is_some()
            && self.fs_type != "swap"
    }

    /// Tells whether this mounts a disk's file system, not a network's, memory or a bind.
    pub fn is_on_disk(&self) -> bool {
        let is_device = self.source.starts_with("/dev/")
            || ["UUID=", "LABEL=", "PARTUUID=", "PARTLABEL="]
                .iter()
                .any(|key| self.source.starts_with(key));
        is_device && !self.has_option("bind") && !self.has_option("rbind")
    }

    /// Tells whether systemd mounts it when the network is there, not before.
    pub fn is_on_network(&self) -> bool {
        self.has_option("_netdev") || is_network(&self.fs_type)
    }

    /// Tells whether it shows what is elsewhere in the tree.
    pub fn is_bind(&self) -> bool {
        self.has_option("bind") || self.has_option("rbind")
    }

    /// Tells whether the system comes up without it.
    pub fn may_be_absent(&self) -> bool {
        self.has_option("nofail") || self.has_option("noauto")
    }

    /// Tells whether the line itself says when or on what occasion it is mounted.
    pub fn has_own_order(&self) -> bool {
        let is_order = |option: &String| {
            let word = option
                .strip_prefix("x-systemd.")
                .or_else(|| option.strip_prefix("comment=systemd."));
            let name = word.and_then(|word| word.split('=').next());
            name.is_some_and(|name| ORDER_OPTIONS.contains(&name))
        };
        self.options.iter().any(is_order)
    }

    fn has_option(&self, wanted: &str) -> bool {
        self.options.iter().any(|option| option == wanted)
    }

    /// Writes the line again, names as they were written.
    pub fn render(&self) -> String {
        let [source, mount_point] = &self.written;
        let options = self.options.join(",");
        let line = format!(
            "{source} {mount_point} {} {options} {}",
            self.fs_type, self.numbers
        );
        line.trim_end().to_owned() + "\n"
    }
}

/// Parses fstab, in its own order. What is no line is left out, as mount(8) does.
pub fn parse(text: &str) -> Vec<Line> {
    text.lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<Line> {
    let mut columns = line.split_ascii_whitespace();
    let source = columns.next().filter(|source| !source.starts_with('#'))?;
    let mount_point = columns.next()?;
    let fs_type = columns.next().unwrap_or("auto");
    let options = columns.next().unwrap_or("defaults");
    Some(Line {
        source: unescape(source).to_string_lossy().into_owned(),
        mount_point: PathBuf::from(unescape(mount_point)),
        fs_type: fs_type.to_owned(),
        options: options.split(',').map(str::to_owned).collect(),
        numbers: columns.collect::<Vec<_>>().join(" "),
        written: [source.to_owned(), mount_point.to_owned()],
    })
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
    fn each_line_is_known_for_what_it_is() {
        let lines = parse(ROCKY);
        let shown: Vec<(&str, Owner, bool)> = lines
            .iter()
            .filter(|line| line.is_below_root())
            .map(|line| {
                let path = line.mount_point.to_str().unwrap();
                (path, line.owner(), line.is_on_disk())
            })
            .collect();
        assert_eq!(
            shown,
            [
                ("/boot/efi", Owner::System, true),
                ("/boot", Owner::System, true),
                ("/data", Owner::Customer, true),
                ("/home", Owner::Delivered, false),
                ("/var", Owner::System, true),
                ("/opt/share", Owner::Delivered, false),
                ("/var/lib/fast", Owner::Delivered, false),
            ]
        );
        assert!(lines[3].may_be_absent());
        assert!(!lines[0].may_be_absent());
        assert_eq!(lines[4].source, "/data/home dirs");
    }

    #[test]
    fn a_path_that_only_starts_with_the_same_letters_is_the_customers() {
        assert_eq!(Owner::of(Path::new("/variable")), Owner::Customer);
        assert_eq!(Owner::of(Path::new("/var/log")), Owner::Delivered);
        assert_eq!(Owner::of(Path::new("/")), Owner::System);
    }

    #[test]
    fn a_line_is_written_as_it_was() {
        let text = "/dev/sdb1 /mnt/my\\040share ext4 defaults,ro 0 2\n";
        assert_eq!(parse(text)[0].render(), text);
        assert_eq!(parse(text)[0].mount_point, Path::new("/mnt/my share"));
        assert_eq!(parse("x none swap")[0].render(), "x none swap defaults\n");
    }
}
