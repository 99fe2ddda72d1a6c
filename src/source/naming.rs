//! The names that fstab, systemd and `--root` have for a volume.

use std::borrow::Cow;
use std::path::Path;

use super::content::Content;
use super::volume::{Name, Volume};
use crate::linux::device_mapper;
use crate::linux::fstab::unquoted;

/// Tells whether a word of fstab's first column means `volume`, which is on one
/// of `disk_count` disks.
pub fn is_named(volume: &Volume, spec: &str, disk_count: usize) -> bool {
    if let Some((key, value)) = spec.split_once('=').filter(|_| !spec.starts_with('/')) {
        return has_tag(volume, key, unquoted(value));
    }
    let link = spec.strip_prefix("/dev/disk/by-");
    let Some((kind, name)) = link.and_then(|link| link.split_once('/')) else {
        return is_device(volume, spec);
    };
    let name = without_escapes(name);
    match kind {
        "uuid" | "label" | "partuuid" | "partlabel" => {
            has_tag(volume, &kind.to_ascii_uppercase(), &name)
        }
        "id" if name.starts_with("dm-") => is_mapped(volume, &name),
        // Which disk an address means cannot be told, unless there is only one.
        "id" | "path" | "diskseq" if disk_count == 1 => {
            match (&volume.name, name.rsplit_once("-part")) {
                (Name::Partition(_, own), Some((_, number))) => number == own.to_string(),
                (Name::Disk(_), None) => true,
                _ => false,
            }
        }
        _ => false,
    }
}

/// Tells whether `volume` is what `--root` names, in any way that a message or
/// fstab would name it.
pub fn is_chosen(volume: &Volume, wanted: &str, disk_count: usize) -> bool {
    let by_number = match &volume.name {
        Name::Logical(group, name) => wanted == format!("{group}/{name}"),
        Name::Partition(0, number) if wanted == number.to_string() => true,
        Name::Partition(disk, number) => wanted == format!("{}:{number}", disk + 1),
        Name::Disk(_) => false,
    };
    by_number || wanted == volume.name.to_string() || is_named(volume, wanted, disk_count)
}

/// Tells whether `device` is the kernel's name of a disk that `volume` is not on.
pub fn is_on_another_disk(device: &str, volume: &Volume) -> bool {
    let named = device_parts(device).map(|(disk, _)| disk);
    named.is_some_and(|disk| volume.extents.iter().all(|extent| extent.disk != disk))
}

fn has_tag(volume: &Volume, key: &str, value: &str) -> bool {
    let (uuid, label) = match &volume.content {
        Content::FileSystem(found) => (&found.uuid, &found.label),
        Content::Closed(closed) => (&closed.uuid, &closed.label),
        Content::PhysicalVolume | Content::Other => (&String::new(), &String::new()),
    };
    !value.is_empty()
        && match key {
            "UUID" => uuid.eq_ignore_ascii_case(value),
            "LABEL" => label == value,
            "PARTUUID" => volume.partition_uuid.eq_ignore_ascii_case(value),
            "PARTLABEL" => volume.partition_label == value,
            _ => false,
        }
}

fn is_device(volume: &Volume, device: &str) -> bool {
    match &volume.name {
        Name::Logical(group, name) => {
            device == format!("/dev/{group}/{name}")
                || Path::new(device) == device_mapper::path(group, name)
        }
        Name::Partition(disk, number) => device_parts(device) == Some((*disk, Some(*number))),
        Name::Disk(disk) => device_parts(device) == Some((*disk, None)),
    }
}

/// Tells whether udev's name of a device-mapper device means `volume`.
fn is_mapped(volume: &Volume, name: &str) -> bool {
    let Name::Logical(group, own) = &volume.name else {
        return false;
    };
    name.strip_prefix("dm-name-") == Some(&device_mapper::name(group, own))
        || name
            .strip_prefix("dm-uuid-LVM-")
            .is_some_and(|uuid| !uuid.is_empty() && uuid == volume.lvm_uuid)
}

/// Undoes `\x20` and its like, as udev writes what may not stand in a name.
fn without_escapes(name: &str) -> Cow<'_, str> {
    if !name.contains("\\x") {
        return name.into();
    }
    let bytes = name.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let code = name
            .get(at + 2..at + 4)
            .filter(|_| bytes[at..].starts_with(b"\\x"))
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        plain.push(code.unwrap_or(bytes[at]));
        at += if code.is_some() { 4 } else { 1 };
    }
    String::from_utf8_lossy(&plain).into_owned().into()
}

/// Reads `/dev/sda2` as disk 0, partition 2, under any driver's names.
fn device_parts(device: &str) -> Option<(usize, Option<u32>)> {
    let name = device.strip_prefix("/dev/")?;
    let number = |digits: &str| -> Option<Option<u32>> {
        match digits {
            "" => Some(None),
            _ => digits.parse().ok().map(Some),
        }
    };
    for prefix in ["sd", "vd", "xvd", "hd"] {
        if let Some(rest) = name.strip_prefix(prefix) {
            let letter = rest.bytes().next().filter(u8::is_ascii_lowercase)?;
            return Some((usize::from(letter - b'a'), number(&rest[1..])?));
        }
    }
    let (disk, rest) = if let Some(rest) = name.strip_prefix("mmcblk") {
        let end = rest.find('p').unwrap_or(rest.len());
        rest.split_at(end)
    } else {
        name.strip_prefix("nvme")?.split_once("n1")?
    };
    let digits = rest.strip_prefix('p').unwrap_or(rest);
    Some((disk.parse().ok()?, number(digits)?))
}

#[cfg(test)]
mod tests {
    use super::super::content::{FileSystem, Health};
    use super::*;

    fn volume(name: Name, label: &str) -> Volume {
        Volume {
            name,
            extents: Vec::new(),
            content: Content::FileSystem(FileSystem {
                kind: "ext4",
                uuid: "0a1b-22".into(),
                label: label.into(),
                health: Health::Sound,
            }),
            partition_uuid: "deadbeef-01".into(),
            partition_label: String::new(),
            partition_kind: String::new(),
            lvm_uuid: "abcd".into(),
        }
    }

    #[test]
    fn every_way_fstab_names_a_volume_is_understood() {
        let part = volume(Name::Partition(0, 1), "boot");
        let logical = volume(Name::Logical("V-A".into(), "root".into()), "boot");
        for (spec, is_part, is_logical) in [
            ("UUID=0A1B-22", true, true),
            ("UUID=\"0a1b-22\"", true, true),
            ("UUID='0a1b-22'", true, true),
            ("UUID='0a1b-22\"", false, false),
            ("LABEL=boot", true, true),
            ("LABEL='boot'", true, true),
            ("LABEL=", false, false),
            ("PARTUUID=DEADBEEF-01", true, true),
            ("PARTLABEL=", false, false),
            ("/dev/disk/by-uuid/0a1b-22", true, true),
            ("/dev/disk/by-id/x", false, false),
            ("/dev/disk/by-id/ata-QEMU_HARDDISK_QM0-part1", true, false),
            (
                "/dev/disk/by-path/pci-0000:00:10.0-scsi-0:0:0:0-part1",
                true,
                false,
            ),
            (
                "/dev/disk/by-path/pci-0000:00:10.0-scsi-0:0:0:0-part2",
                false,
                false,
            ),
            ("/dev/disk/by-id/dm-name-V--A-root", false, true),
            ("/dev/disk/by-id/dm-uuid-LVM-abcd", false, true),
            ("/dev/disk/by-id/dm-uuid-LVM-", false, false),
            ("/dev/sda1", true, false),
            ("/dev/vda1", true, false),
            ("/dev/nvme0n1p1", true, false),
            ("/dev/mmcblk0p1", true, false),
            ("/dev/mmcblk0", false, false),
            ("/dev/mmcblk1p1", false, false),
            ("/dev/sda", false, false),
            ("/dev/sda11", false, false),
            ("/dev/sdb1", false, false),
            ("/dev/V-A/root", false, true),
            ("/dev/mapper/V--A-root", false, true),
            ("/dev/mapper/V-A-root", false, false),
            ("/dev/", false, false),
            ("/dev/sd", false, false),
            ("/dev/sd\u{e9}1", false, false),
            ("server:/export", false, false),
        ] {
            assert_eq!(is_named(&part, spec, 1), is_part, "{spec}");
            assert_eq!(is_named(&logical, spec, 1), is_logical, "{spec}");
        }
        assert!(!is_named(&part, "/dev/disk/by-id/ata-X-part1", 2));
    }

    #[test]
    fn what_udev_cannot_write_in_a_name_is_understood() {
        let part = volume(Name::Partition(0, 1), "my root/\u{e9}");
        let spec = "/dev/disk/by-label/my\\x20root\\x2f\u{e9}";
        assert!(is_named(&part, spec, 1));
        assert!(!is_named(&part, "/dev/disk/by-label/my\\x2", 1));
    }

    #[test]
    fn a_root_is_chosen_by_whatever_a_message_calls_it() {
        let second = volume(Name::Partition(1, 2), "x");
        for wanted in [
            "2:2",
            "partition 2 of disk 2",
            "/dev/sdb2",
            "LABEL=x",
            "UUID=0a1b-22",
        ] {
            assert!(is_chosen(&second, wanted, 2), "{wanted}");
        }
        let first = volume(Name::Partition(0, 2), "x");
        for wanted in ["2", "1:2", "partition 2", "/dev/vda2"] {
            assert!(is_chosen(&first, wanted, 1), "{wanted}");
        }
        let disk = volume(Name::Disk(0), "x");
        for wanted in ["the disk", "/dev/sda"] {
            assert!(is_chosen(&disk, wanted, 1), "{wanted}");
        }
        let logical = volume(Name::Logical("V-A".into(), "r".into()), "x");
        for wanted in ["V-A/r", "/dev/V-A/r", "/dev/mapper/V--A-r"] {
            assert!(is_chosen(&logical, wanted, 1), "{wanted}");
        }
        for (volume, wanted) in [
            (&first, "2:2"),
            (&second, "2"),
            (&disk, "1"),
            (&logical, "r"),
        ] {
            assert!(!is_chosen(volume, wanted, 2), "{wanted}");
        }
    }
}
