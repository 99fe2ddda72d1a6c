//! Which disks a file system lies on, as sysfs shows it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::context::Appliance;
use super::devices::udev_path;

/// How many devices may lie above each other.
const MAX_DEPTH: usize = 16;

/// Returns the names of the disks under the block device of that `major:minor`
/// number, such as `sda`; none where the kernel has no such device.
pub fn of_number(appliance: &Appliance, device_number: &str) -> BTreeSet<String> {
    let node = appliance.at("/sys/dev/block").join(device_number);
    disks_under(&node)
}

/// Returns those under what `source`, the first column of fstab, means; none where it
/// is not there now.
pub fn of_source(appliance: &Appliance, source: &str) -> BTreeSet<String> {
    let device = udev_path(source).and_then(|path| fs::canonicalize(appliance.at(path)).ok());
    let name = device.as_deref().and_then(Path::file_name);
    name.map(|name| disks_under(&appliance.at("/sys/class/block").join(name)))
        .unwrap_or_default()
}

fn disks_under(node: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    descend(node, MAX_DEPTH, &mut found);
    found
}

fn descend(node: &Path, depth: usize, found: &mut BTreeSet<String>) {
    let Ok(node) = fs::canonicalize(node) else {
        return;
    };
    let below = fs::read_dir(node.join("slaves"));
    let below: Vec<_> = below.into_iter().flatten().flatten().collect();
    for entry in below.iter().filter(|_| depth > 0) {
        descend(&entry.path(), depth - 1, found);
    }
    if !below.is_empty() {
        return;
    }
    let is_partition = node.join("partition").exists();
    let disk = match is_partition {
        true => node.parent(),
        false => Some(&*node),
    };
    let name = disk.and_then(Path::file_name);
    found.extend(name.map(|name| name.to_string_lossy().into_owned()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_volume_lies_on_the_disks_of_its_partitions() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        for part in ["pci/sda/sda1", "pci/sda/sda2", "pci/sdb/sdb1"] {
            fs::create_dir_all(at(part)).unwrap();
            fs::write(at(part).join("partition"), "1").unwrap();
        }
        fs::create_dir_all(at("virtual/dm-0/slaves")).unwrap();
        for part in ["sda/sda2", "sdb/sdb1"] {
            let name = Path::new(part).file_name().unwrap();
            let link = at("virtual/dm-0/slaves").join(name);
            symlink(at("pci").join(part), link).unwrap();
        }
        let names = |path: &str| Vec::from_iter(disks_under(&at(path)));
        assert_eq!(names("virtual/dm-0"), ["sda", "sdb"]);
        assert_eq!(names("pci/sda/sda1"), ["sda"]);
        assert_eq!(names("pci/sdb"), ["sdb"]);
        assert_eq!(names("none"), [""; 0]);
    }
}
