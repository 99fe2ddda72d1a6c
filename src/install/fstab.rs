//! A slot's fstab, made from the image's and the old system's. Pure.

use std::path::{Path, PathBuf};

use crate::linux::fstab::{Line, Owner, is_virtual, parse};

/// Where every slot's fstab has lines of its own.
const REPLACED: [&str; 2] = ["/", "/boot"];

/// A slot's fstab.
#[derive(Debug, PartialEq, Eq)]
pub struct Fstab {
    /// What the file holds.
    pub text: String,
    /// Where it mounts something.
    pub mount_points: Vec<MountPoint>,
    /// The lines of the other two that are not in it and that nothing replaces.
    pub left_out: Vec<String>,
}

/// Where a line mounts something.
#[derive(Debug, PartialEq, Eq)]
pub struct MountPoint {
    /// The place.
    pub path: PathBuf,
    /// What a bind mount shows there, which may be a file.
    pub bound: Option<PathBuf>,
    /// Whether the system comes up without it.
    pub may_be_absent: bool,
}

/// Composes: `system_mounts`, the lines of this slot and `/boot`; everything
/// that is not the system's (data, swap, shares, extra disks) as the old system
/// has it; the image's file systems of the kernel.
///
/// What the customer added gets `nofail`, so that a share that is down does not
/// fail a trial; what `is_own` says is a volume of the appliance stays required.
pub fn compose(
    is_own: &dyn Fn(&str) -> bool,
    system_mounts: &str,
    of_image: &str,
    of_old: &str,
) -> Fstab {
    let mut text = "# Written by va-upgrade for this slot; see fstab(5).\n".to_owned();
    text += system_mounts;
    let mut mount_points = vec![MountPoint {
        path: "/boot".into(),
        bound: None,
        may_be_absent: false,
    }];
    let mut left_out: Vec<String> = left_behind(of_old).iter().map(shown).collect();
    let old = parse(of_old);
    let mut carried = Vec::new();
    for mut line in old.clone() {
        if line.owner() == Owner::System {
            continue;
        }
        if !is_required(&line, is_own) && !line.may_be_absent() {
            make_optional(&mut line, &old);
        }
        if line.mount_point.has_root() && !is_virtual(&line.fs_type) {
            mount_points.push(MountPoint {
                path: line.mount_point.clone(),
                bound: line.is_bind().then(|| PathBuf::from(&line.source)),
                may_be_absent: line.may_be_absent(),
            });
        }
        text += &line.render();
        carried.push(line);
    }
    let is_carried = |line: &Line| {
        line.mount_point.has_root() && carried.iter().any(|c| c.mount_point == line.mount_point)
    };
    for line in parse(of_image) {
        if line.owner() == Owner::System || is_carried(&line) {
            continue;
        }
        if is_virtual(&line.fs_type) {
            text += &line.render();
        } else {
            left_out.push(shown(&line));
        }
    }
    Fstab {
        text,
        mount_points,
        left_out,
    }
}

/// Returns the lines of an old system's fstab that no new one gets: a release
/// brings what is there, and a slot has lines of its own for `/` and `/boot`.
pub fn left_behind(of_old: &str) -> Vec<Line> {
    let is_replaced = |line: &Line| REPLACED.iter().any(|at| line.mount_point == Path::new(at));
    parse(of_old)
        .into_iter()
        .filter(|line| line.owner() == Owner::System && !is_replaced(line))
        .collect()
}

/// Returns a line as messages show it.
pub fn shown(line: &Line) -> String {
    line.render().trim_end().to_owned()
}

/// Tells whether a system without what the line mounts is not whole.
fn is_required(line: &Line, is_own: &dyn Fn(&str) -> bool) -> bool {
    is_own(&line.source) || line.fs_type == "swap" || is_virtual(&line.fs_type)
}

/// Lets the system start without the line, but not before it has been tried:
/// with `nofail` alone, services would start and write below its mount point.
///
/// `x-systemd.before=` is known since systemd 233; older ones, and mount(8) at
/// any age, pass over it. What is on the network, or lies on such a line of
/// `all`, belongs before `remote-fs.target`; before `local-fs.target`, which the
/// network comes after, it would close a circle.
fn make_optional(line: &mut Line, all: &[Line]) {
    line.options.push("nofail".to_owned());
    if line.has_own_order() || !line.mount_point.has_root() {
        return;
    }
    let needs_network = all
        .iter()
        .filter(|other| other.is_on_network())
        .any(|other| {
            line.mount_point.starts_with(&other.mount_point)
                || Path::new(&line.source).starts_with(&other.mount_point)
        });
    let target = if needs_network {
        "remote-fs.target"
    } else {
        "local-fs.target"
    };
    line.options.push(format!("x-systemd.before={target}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "/dev/mapper/VA-back / ext4 defaults 0 1\nUUID=b-1 /boot xfs defaults 0 0\n";

    fn is_own(source: &str) -> bool {
        source.starts_with("/dev/VA/") || source == "UUID=own"
    }

    #[test]
    fn the_fstab_is_the_slots_own_and_keeps_what_the_customer_mounts() {
        let image = "# image\nUUID=i-1 / ext4 errors=remount-ro 0 1\nUUID=i-2 /boot ext4 defaults 0 2\n\
                     UUID=i-3 none swap sw 0 0\ntmpfs /tmp tmpfs mode=1777 0 0\n";
        let old = "/dev/mapper/VA-root / xfs defaults 0 0\nUUID=b-1 /boot xfs defaults 0 0\n\
                   UUID=own /data ext4 defaults 0 2\nnas:/x /mnt/nas nfs ro 0 0\nUUID=s none swap sw 0 0\n";
        let fstab = compose(&is_own, OWN, image, old);
        assert_eq!(
            fstab.text,
            "# Written by va-upgrade for this slot; see fstab(5).\n\
             /dev/mapper/VA-back / ext4 defaults 0 1\n\
             UUID=b-1 /boot xfs defaults 0 0\n\
             UUID=own /data ext4 defaults 0 2\n\
             nas:/x /mnt/nas nfs ro,nofail,x-systemd.before=remote-fs.target 0 0\n\
             UUID=s none swap sw 0 0\n\
             tmpfs /tmp tmpfs mode=1777 0 0\n"
        );
        assert_eq!(fstab.left_out, ["UUID=i-3 none swap sw 0 0"]);
        let points: Vec<&Path> = fstab.mount_points.iter().map(|it| &*it.path).collect();
        let wanted = ["/boot", "/data", "/mnt/nas"].map(Path::new);
        assert_eq!(points, wanted);
    }

    #[test]
    fn a_mount_point_with_a_blank_is_made_by_its_own_name() {
        let line = "//nas/x /mnt/my\\040share cifs ro 0 0\n";
        let fstab = compose(&is_own, OWN, "", line);
        assert!(fstab.text.contains("/mnt/my\\040share cifs ro,nofail"));
        assert_eq!(fstab.mount_points[1].path, Path::new("/mnt/my share"));
    }

    #[test]
    fn what_the_customer_mounts_in_the_systems_places_is_kept_or_named() {
        let old = "/dev/sdb1 /opt ext4 defaults 0 2\n/dev/sdb2 /home ext4 defaults 0 2\n\
                   /dev/VA/log /var/log ext4 defaults 0 2\n";
        let fstab = compose(&is_own, OWN, "", old);
        assert_eq!(fstab.left_out, ["/dev/sdb1 /opt ext4 defaults 0 2"]);
        assert!(fstab.text.contains(
            "/dev/sdb2 /home ext4 defaults,nofail,x-systemd.before=local-fs.target 0 2\n"
        ));
        assert!(
            fstab
                .text
                .contains("/dev/VA/log /var/log ext4 defaults 0 2\n")
        );
    }

    #[test]
    fn what_may_be_absent_is_tried_before_services_start() {
        for (line, options) in [
            (
                "/dev/sdb1 /srv ext4 rw",
                "rw,nofail,x-systemd.before=local-fs.target",
            ),
            (
                "/data/x /srv/x none bind",
                "bind,nofail,x-systemd.before=local-fs.target",
            ),
            (
                "s3 /srv ext4 _netdev",
                "_netdev,nofail,x-systemd.before=remote-fs.target",
            ),
            (
                "u@h: /srv fuse.sshfs rw",
                "rw,nofail,x-systemd.before=remote-fs.target",
            ),
            (
                "/nas/x /srv none bind",
                "bind,nofail,x-systemd.before=remote-fs.target",
            ),
            (
                "/dev/sdb1 /srv ext4 x-systemd.after=a.service",
                "x-systemd.after=a.service,nofail",
            ),
            (
                "/dev/sdb1 /srv ext4 comment=systemd.automount",
                "comment=systemd.automount,nofail",
            ),
            ("/dev/sdb1 /srv ext4 nofail", "nofail"),
            ("/dev/sdb1 /srv ext4 noauto", "noauto"),
            ("/dev/sdb1 none swap sw", "sw"),
            ("UUID=own /srv ext4 rw", "rw"),
        ] {
            let old = format!("nas:/x /nas nfs nofail 0 0\n{line} 0 0\n");
            let text = compose(&is_own, OWN, "", &old).text;
            let last = parse(&text).pop().unwrap();
            assert_eq!(last.options.join(","), options, "{line}");
        }
    }

    #[test]
    fn no_line_of_the_customer_is_lost_without_a_word() {
        let old = "/dev/sdb1 /opt/ ext4 rw 0 2\ntmpfs /var tmpfs rw 0 0\nUUID=e /boot/efi vfat rw 0 2\n\
                   /dev/sda1 /boot ext4 rw 0 2\n";
        let image = "/dev/sdb1 /opt ext4 rw 0 2\n";
        assert_eq!(
            compose(&is_own, OWN, image, old).left_out,
            [
                "/dev/sdb1 /opt/ ext4 rw 0 2",
                "tmpfs /var tmpfs rw 0 0",
                "UUID=e /boot/efi vfat rw 0 2"
            ]
        );
    }
}
