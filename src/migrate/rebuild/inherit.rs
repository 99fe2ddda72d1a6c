//! What the new system takes over from texts of the old one: its kernel's words, its
//! fstab. Pure.

use std::collections::BTreeSet;

use crate::linux::{device_mapper, fstab};

/// What words begin with that lead to the old disk: its root, volumes, swap.
const OF_OLD_DISK: [&str; 14] = [
    "root=",
    "rootflags=",
    "rootfstype=",
    "rootdelay=",
    "resume=",
    "resume_offset=",
    "noresume",
    "rd.lvm",
    "rd.luks",
    "rd.md",
    "rd.dm",
    "rd_",
    "lvmraid",
    "bootdev=",
];

/// Returns the words of the old kernel's command line without those that lead to the
/// disk as it was.
pub fn cmdline(old: &str) -> String {
    let is_carried = |word: &&str| !OF_OLD_DISK.iter().any(|start| word.starts_with(start));
    let words: Vec<&str> = old.split_whitespace().filter(is_carried).collect();
    words.join(" ")
}

/// A volume of the new disk that is mounted beside the slot.
pub struct Volume<'a> {
    /// The group.
    pub group: &'a str,
    /// Its name.
    pub name: &'a str,
    /// Its file system.
    pub fs_type: &'a str,
    /// Where it is mounted where the release does not say.
    pub default_point: &'a str,
}

/// Returns the old system's fstab without the lines `lost`, and with a line for each
/// of `volumes`: that of the release's fstab `of_image`, else one for its default place.
pub fn fstab(of_old: &str, lost: &BTreeSet<String>, of_image: &str, volumes: &[Volume]) -> String {
    let mut lines = fstab::parse(of_old);
    lines.retain(|line| !lost.contains(&line.render()));
    let mut text: String = lines.iter().map(fstab::Line::render).collect();
    for volume in volumes {
        let is_it = |line: &&fstab::Line| {
            device_mapper::is_in_group(&line.source, volume.group)
                && device_mapper::is_called(&line.source, volume.name)
        };
        let of_image = fstab::parse(of_image);
        let named = of_image.iter().find(is_it).cloned();
        if let Some(mut line) = named {
            line.fs_type = volume.fs_type.to_owned();
            text += &line.render();
        } else {
            let point = volume.default_point;
            let device = device_mapper::path(volume.group, volume.name);
            let is_taken = |line: &fstab::Line| line.mount_point.as_os_str() == point;
            // Of two lines for one place, the later one covers the other.
            if !lines.iter().any(is_taken) {
                text += &format!(
                    "{} {point} {} defaults 0 2\n",
                    device.display(),
                    volume.fs_type
                );
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_word_leads_to_the_old_disk() {
        let old = "BOOT_IMAGE=/vmlinuz root=/dev/mapper/centos-root ro crashkernel=auto \
                   rd.lvm.lv=centos/root rd.lvm.lv=centos/swap resume=UUID=1-2 net.ifnames=0 \
                   rhgb console=ttyS0,115200";
        assert_eq!(
            cmdline(old),
            "BOOT_IMAGE=/vmlinuz ro crashkernel=auto net.ifnames=0 rhgb console=ttyS0,115200"
        );
    }

    const OLD: &str = "\
UUID=1 / ext4 defaults 0 1
UUID=2 none swap sw 0 0
nas:/x /mnt/nas nfs _netdev 0 0
";

    fn composed(of_old: &str, of_image: &str) -> String {
        let lost = BTreeSet::from(["UUID=2 none swap sw 0 0\n".to_owned()]);
        let volume = |name, default_point| Volume {
            group: "VA",
            name,
            fs_type: "xfs",
            default_point,
        };
        fstab(
            of_old,
            &lost,
            of_image,
            &[volume("data", "/data"), volume("image", "/image")],
        )
    }

    #[test]
    fn what_went_with_the_disk_gives_way_to_the_new_volumes() {
        let kept = "UUID=1 / ext4 defaults 0 1\nnas:/x /mnt/nas nfs _netdev 0 0\n";
        assert_eq!(
            composed(OLD, ""),
            format!(
                "{kept}/dev/mapper/VA-data /data xfs defaults 0 2\n\
                 /dev/mapper/VA-image /image xfs defaults 0 2\n"
            )
        );
        let of_image =
            "/dev/VA/data /srv ext4 noatime 0 2\n/dev/mapper/VA-image /img ext4 ro 0 2\n";
        assert_eq!(
            composed(OLD, of_image),
            format!(
                "{kept}/dev/VA/data /srv xfs noatime 0 2\n/dev/mapper/VA-image /img xfs ro 0 2\n"
            )
        );
    }

    #[test]
    fn a_place_that_the_customer_uses_is_not_taken() {
        let old = "nas:/d /data nfs _netdev 0 0\n";
        let image = "/dev/mapper/VA-image /image xfs defaults 0 2\n";
        assert_eq!(composed(old, ""), format!("{old}{image}"));
    }
}
