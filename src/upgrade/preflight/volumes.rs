//! Whether the target is there, free and large enough.

use std::fs;

use super::checked::{Checked, refuse};
use crate::appliance::Appliance;
use crate::appliance::machine::{self, Machine, slot_volume};
use crate::bundle::Manifest;
use crate::disk::lvm::{self, LogicalVolume};
use crate::disk::mkfs::FsType;
use crate::linux::device_mapper;
use crate::slot::Slot;

/// Finds the volumes of both slots.
pub fn check_volumes(appliance: &Appliance, target: Slot) -> Checked<LogicalVolume> {
    let vg = &appliance.config.vg;
    let groups = lvm::groups(appliance.sys, vg)?;
    match groups.as_slice() {
        [] => {
            return refuse(
                format!("there is no volume group {vg}"),
                "the group that both slots are in",
                "set vg in config.yaml",
            );
        }
        [group] if !group.system_id.is_empty() => {
            return refuse(
                format!(
                    "volume group {vg} is for the machine {:?} alone, which the new system need \
                     not be",
                    group.system_id
                ),
                "a group for any machine",
                format!("run `vgchange --systemid '' {vg}`"),
            );
        }
        [_] => {}
        several => {
            let uuids: Vec<&str> = several.iter().map(|group| &group.uuid[..]).collect();
            return refuse(
                format!(
                    "there are {} volume groups called {vg} ({})",
                    several.len(),
                    uuids.join(", ")
                ),
                "one",
                "detach the disk that does not belong to this machine",
            );
        }
    }
    let volumes = lvm::list(appliance.sys, vg)?;
    slot_volume(appliance.config, &volumes, target.other())?;
    let volume = slot_volume(appliance.config, &volumes, target)?.clone();
    let message = format!(
        "{} has {} MiB",
        appliance.config.device(target).display(),
        volume.size_bytes >> 20
    );
    Ok((volume, message))
}

/// Looks whether the target is mounted anywhere.
pub fn check_unused(appliance: &Appliance, target: Slot) -> Checked<()> {
    let name = device_mapper::name(&appliance.config.vg, appliance.config.volume(target));
    let table = machine::mounts(appliance)?;
    for mount in &table {
        let path = appliance.at(format!("/sys/dev/block/{}/dm/name", mount.device_number));
        if fs::read_to_string(path).is_ok_and(|found| found.trim() == name) {
            return refuse(
                format!(
                    "slot {target} is mounted at {}",
                    mount.mount_point.display()
                ),
                "that nobody uses it",
                "unmount it",
            );
        }
    }
    Ok(((), format!("slot {target} is not mounted")))
}

/// Tells which file system the target gets: that of the running root.
pub fn check_fs_type(machine: &Machine) -> Checked<FsType> {
    let fs_type = FsType::from_name(&machine.root_fs_type)?;
    Ok((fs_type, fs_type.name().to_owned()))
}

/// Returns what a slot takes for the system in a bundle.
pub fn slot_bytes(manifest: &Manifest) -> u64 {
    // Inodes of 512 bytes, a journal, and what a file system keeps for itself.
    let tree = &manifest.tree;
    tree.data_bytes + tree.inodes * 512 + (tree.data_bytes / 20).max(64 << 20)
}

/// Compares the target's size with what the bundle unpacks to.
pub fn check_slot_space(
    appliance: &Appliance,
    target: Slot,
    volume: &LogicalVolume,
    manifest: &Manifest,
) -> Checked<()> {
    let need = slot_bytes(manifest);
    if volume.size_bytes < need {
        return refuse(
            format!(
                "{} has {} MiB",
                appliance.config.device(target).display(),
                volume.size_bytes >> 20
            ),
            format!(
                "{} MiB for version {}",
                need.div_ceil(1 << 20),
                manifest.version
            ),
            "enlarge the volume with lvextend",
        );
    }
    Ok((
        (),
        format!("{} MiB of {} MiB", need >> 20, volume.size_bytes >> 20),
    ))
}
