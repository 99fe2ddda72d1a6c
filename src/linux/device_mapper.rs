//! The names device-mapper gives to logical volumes (lvm(8), dmsetup(8)).

use std::path::PathBuf;

/// Returns the device-mapper name of a volume: hyphens inside names are doubled.
pub fn name(group: &str, volume: &str) -> String {
    format!("{}-{}", escape(group), escape(volume))
}

/// Returns `/dev/mapper/GROUP-VOLUME`.
pub fn path(group: &str, volume: &str) -> PathBuf {
    PathBuf::from(format!("/dev/mapper/{}", name(group, volume)))
}

/// Tells whether `device` is the path of a volume of `group`, in either form.
pub fn is_in_group(device: &str, group: &str) -> bool {
    let rest = |prefix: String| device.strip_prefix(&prefix).is_some_and(|r| !r.is_empty());
    // A doubled hyphen belongs to a longer name of another group.
    let mapped = device.strip_prefix(&format!("/dev/mapper/{}-", escape(group)));
    mapped.is_some_and(|volume| !volume.starts_with('-')) || rest(format!("/dev/{group}/"))
}

/// Tells whether `device` is the path of a volume called `volume`, in any group
/// and either form.
pub fn is_called(device: &str, volume: &str) -> bool {
    if let Some(mapped) = device.strip_prefix("/dev/mapper/") {
        let group = mapped.strip_suffix(&format!("-{}", escape(volume)));
        return group.is_some_and(|group| !group.is_empty() && !ends_inside_a_hyphen(group));
    }
    let mut parts = device.strip_prefix("/dev/").unwrap_or_default().split('/');
    (parts.next().is_some(), parts.next(), parts.next()) == (true, Some(volume), None)
}

/// Tells whether an odd number of hyphens stands at the end, the last of which
/// pairs with the one that was taken for the separator.
fn ends_inside_a_hyphen(name: &str) -> bool {
    name.bytes().rev().take_while(|b| *b == b'-').count() % 2 == 1
}

fn escape(name: &str) -> String {
    name.replace('-', "--")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hyphens_are_doubled() {
        assert_eq!(name("V-A", "back"), "V--A-back");
        assert_eq!(path("VA", "b-1"), PathBuf::from("/dev/mapper/VA-b--1"));
    }

    #[test]
    fn volumes_of_a_group_are_known_in_both_forms() {
        for (device, group, is_in) in [
            ("/dev/mapper/VA-data", "VA", true),
            ("/dev/VA/data", "VA", true),
            ("/dev/mapper/V--A-data", "V-A", true),
            ("/dev/V-A/data", "V-A", true),
            ("/dev/mapper/V--A-data", "V", false),
            ("/dev/mapper/VAX-data", "VA", false),
            ("/dev/VA/", "VA", false),
            ("UUID=1", "VA", false),
        ] {
            assert_eq!(is_in_group(device, group), is_in, "{device} {group}");
        }
    }

    #[test]
    fn a_volume_is_known_by_its_name_in_any_group() {
        for (device, volume, is) in [
            ("/dev/mapper/VA-data", "data", true),
            ("/dev/VA/data", "data", true),
            ("/dev/mapper/VA-my--data", "my-data", true),
            ("/dev/mapper/VA-my--data", "data", false),
            ("/dev/mapper/data", "data", false),
            ("/dev/data", "data", false),
            ("/dev/sda/data/x", "data", false),
        ] {
            assert_eq!(is_called(device, volume), is, "{device} {volume}");
        }
    }
}
