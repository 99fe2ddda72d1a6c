//! A slot's fstab, made from the image's and the old system's. Pure.

use std::path::PathBuf;

use crate::linux::device_mapper;
use crate::linux::fstab::{Line, Owner, is_virtual, parse};

/// A slot's fstab.
#[derive(Debug, PartialEq, Eq)]
pub struct Fstab {
    /// What the file holds.
    pub text: String,
    /// The directories it mounts on.
    pub mount_points: Vec<PathBuf>,
    /// The lines of the other two that are not in it and that nothing replaces.
    pub left_out: Vec<String>,
}

/// Composes: `system_mounts`, the lines of this slot and `/boot`; everything
/// that is not the system's (data, swap, shares, extra disks) as the old system
/// has it; the image's file systems of the kernel.
///
/// What the customer added gets `nofail`, so that a share that is down does not
/// fail a trial; volumes of the appliance, in the group `vg`, stay required.
pub fn compose(vg: &str, system_mounts: &str, of_image: &str, of_old: &str) -> Fstab {
    let mut text = "# Written by va-upgrade for this slot; see fstab(5).\n".to_owned();
    text += system_mounts;
    let mut mount_points = vec![PathBuf::from("/boot")];
    let mut left_out = Vec::new();
    let mut carried = Vec::new();
    for mut line in parse(of_old) {
        if line.owner() == Owner::System {
            let is_replaced = parse(system_mounts)
                .iter()
                .any(|own| own.mount_point == line.mount_point);
            if !is_replaced && !is_virtual(&line.fs_type) {
                left_out.push(line.render().trim_end().to_owned());
            }
            continue;
        }
        if !is_required(&line, vg) && !line.may_be_absent() {
            line.options.push("nofail".to_owned());
        }
        if line.mount_point.has_root() && !is_virtual(&line.fs_type) {
            mount_points.push(line.mount_point.clone());
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
            left_out.push(line.render().trim_end().to_owned());
        }
    }
    Fstab {
        text,
        mount_points,
        left_out,
    }
}

/// Tells whether a system without what the line mounts is not whole.
fn is_required(line: &Line, vg: &str) -> bool {
    device_mapper::is_in_group(&line.source, vg)
        || line.fs_type == "swap"
        || is_virtual(&line.fs_type)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    const OWN: &str = "/dev/mapper/VA-back / ext4 defaults 0 1\nUUID=b-1 /boot xfs defaults 0 0\n";

    #[test]
    fn the_fstab_is_the_slots_own_and_keeps_what_the_customer_mounts() {
        let image = "# image\nUUID=i-1 / ext4 errors=remount-ro 0 1\nUUID=i-2 /boot ext4 defaults 0 2\n\
                     UUID=i-3 none swap sw 0 0\ntmpfs /tmp tmpfs mode=1777 0 0\n";
        let old = "/dev/mapper/VA-root / xfs defaults 0 0\nUUID=b-1 /boot xfs defaults 0 0\n\
                   /dev/VA/data /data ext4 defaults 0 2\nnas:/x /mnt/nas nfs ro 0 0\nUUID=s none swap sw 0 0\n";
        let fstab = compose("VA", OWN, image, old);
        assert_eq!(
            fstab.text,
            "# Written by va-upgrade for this slot; see fstab(5).\n\
             /dev/mapper/VA-back / ext4 defaults 0 1\n\
             UUID=b-1 /boot xfs defaults 0 0\n\
             /dev/VA/data /data ext4 defaults 0 2\n\
             nas:/x /mnt/nas nfs ro,nofail 0 0\n\
             UUID=s none swap sw 0 0\n\
             tmpfs /tmp tmpfs mode=1777 0 0\n"
        );
        assert_eq!(fstab.left_out, ["UUID=i-3 none swap sw 0 0"]);
        let points: Vec<&Path> = fstab.mount_points.iter().map(PathBuf::as_path).collect();
        let wanted = ["/boot", "/data", "/mnt/nas"].map(Path::new);
        assert_eq!(points, wanted);
    }

    #[test]
    fn a_mount_point_with_a_blank_is_made_by_its_own_name() {
        let line = "//nas/x /mnt/my\\040share cifs ro 0 0\n";
        let fstab = compose("VA", OWN, "", line);
        assert!(fstab.text.contains("/mnt/my\\040share cifs ro,nofail"));
        assert_eq!(fstab.mount_points[1], Path::new("/mnt/my share"));
    }

    #[test]
    fn what_the_customer_mounts_in_the_systems_places_is_kept_or_named() {
        let old = "/dev/sdb1 /opt ext4 defaults 0 2\n/dev/sdb2 /home ext4 defaults 0 2\n\
                   /dev/V-A/log /var/log ext4 defaults 0 2\n";
        let fstab = compose("V-A", OWN, "", old);
        assert_eq!(fstab.left_out, ["/dev/sdb1 /opt ext4 defaults 0 2"]);
        assert!(
            fstab
                .text
                .contains("/dev/sdb2 /home ext4 defaults,nofail 0 2\n")
        );
        assert!(
            fstab
                .text
                .contains("/dev/V-A/log /var/log ext4 defaults 0 2\n")
        );
    }
}
