//! Which of this machine's devices a word of fstab means, by udev's links.

use std::fs;
use std::path::PathBuf;

use super::context::Appliance;
use crate::linux::device_mapper;
use crate::linux::fstab::unquoted;
use crate::linux::mountinfo::MountEntry;

/// Tells whether `source`, the first column of fstab, means a volume of the
/// appliance's group, however it is spelled.
///
/// What is not there now is known by its spelling alone.
pub fn is_own_volume(appliance: &Appliance, source: &str) -> bool {
    let group = &appliance.config.vg;
    device_mapper::is_in_group(source, group)
        || mapped_path(appliance, source)
            .is_some_and(|path| device_mapper::is_in_group(&path, group))
}

/// Tells whether `mount` is of the mapped device called `name`, by the kernel's word.
pub fn is_mapped(appliance: &Appliance, mount: &MountEntry, name: &str) -> bool {
    let path = format!("/sys/dev/block/{}/dm/name", mount.device_number);
    fs::read_to_string(appliance.at(path)).is_ok_and(|found| found.trim() == name)
}

/// Returns `/dev/mapper/NAME` of the mapped device that `source` leads to.
fn mapped_path(appliance: &Appliance, source: &str) -> Option<String> {
    let device = fs::canonicalize(appliance.at(udev_path(source)?)).ok()?;
    let node = device.file_name()?.to_str()?;
    let name = fs::read_to_string(appliance.at(format!("/sys/class/block/{node}/dm/name"))).ok()?;
    Some(format!("/dev/mapper/{}", name.trim()))
}

/// Returns where udev has the device that `source` names.
pub(super) fn udev_path(source: &str) -> Option<PathBuf> {
    if source.starts_with("/dev/") {
        return Some(PathBuf::from(source));
    }
    let (tag, value) = source.split_once('=')?;
    let kind = match tag {
        "UUID" => "uuid",
        "LABEL" => "label",
        "PARTUUID" => "partuuid",
        "PARTLABEL" => "partlabel",
        _ => return None,
    };
    Some(format!("/dev/disk/by-{kind}/{}", udev_name(unquoted(value))).into())
}

/// Writes a label as udev does in the name of a link: what is neither a letter,
/// a digit nor one of a few signs becomes `\x20` and its like.
fn udev_name(value: &str) -> String {
    let is_kept = |c: char| !c.is_ascii() || c.is_ascii_alphanumeric() || "#+-.:=@_".contains(c);
    let mut name = String::new();
    for c in value.chars() {
        if is_kept(c) {
            name.push(c);
        } else {
            name += &format!("\\x{:02x}", u32::from(c));
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_leads_to_the_link_that_udev_makes() {
        for (source, link) in [
            ("UUID=0a1b-22", Some("/dev/disk/by-uuid/0a1b-22")),
            ("UUID=\"0a1b-22\"", Some("/dev/disk/by-uuid/0a1b-22")),
            (
                "LABEL=my data/é",
                Some("/dev/disk/by-label/my\\x20data\\x2fé"),
            ),
            (
                "/dev/disk/by-id/dm-name-VA-data",
                Some("/dev/disk/by-id/dm-name-VA-data"),
            ),
            ("PARTUUID=1", Some("/dev/disk/by-partuuid/1")),
            ("nas:/export", None),
            ("/data/home", None),
        ] {
            assert_eq!(udev_path(source), link.map(PathBuf::from), "{source}");
        }
    }
}
