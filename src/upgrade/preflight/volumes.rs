//! Whether the target is there, free and large enough.

use std::fs;

use super::checked::Checked;
use crate::appliance::Appliance;
use crate::appliance::machine::{self, Machine, slot_volume};
use crate::bundle::Manifest;
use crate::disk::lvm::{self, LogicalVolume};
use crate::disk::mkfs::FsType;
use crate::disk::space;
use crate::linux::device_mapper;
use crate::refuse;
use crate::slot::Slot;

/// Finds the volumes of both slots.
pub fn check_volumes(appliance: &Appliance, target: Slot) -> Checked<LogicalVolume> {
    let vg = &appliance.config.vg;
    let groups = lvm::groups(appliance.sys, vg)?;
    match groups.as_slice() {
        [] => refuse!("there is no volume group {vg}; set vg in config.yaml"),
        [group] if !group.system_id.is_empty() => refuse!(
            "volume group {vg} is for the machine {:?} alone, which the new system need not \
             be; run `vgchange --systemid '' {vg}`",
            group.system_id
        ),
        [_] => {}
        several => {
            let uuids: Vec<&str> = several.iter().map(|group| &group.uuid[..]).collect();
            refuse!(
                "there are {} volume groups called {vg} ({}); detach the disk that does not \
                 belong to this machine",
                several.len(),
                uuids.join(", ")
            )
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
            refuse!(
                "slot {target} is mounted at {}; unmount it",
                mount.mount_point.display()
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

/// Compares the target's size with what the bundle unpacks to.
pub fn check_slot_space(
    appliance: &Appliance,
    target: Slot,
    volume: &LogicalVolume,
    manifest: &Manifest,
) -> Checked<()> {
    let tree = &manifest.tree;
    let need = space::needed_bytes(tree.data_bytes, tree.inodes);
    if volume.size_bytes < need {
        refuse!(
            "{} has {} MiB, version {} needs {} MiB; enlarge the volume with lvextend",
            appliance.config.device(target).display(),
            volume.size_bytes >> 20,
            manifest.version,
            need.div_ceil(1 << 20)
        );
    }
    Ok((
        (),
        format!("{} MiB of {} MiB", need >> 20, volume.size_bytes >> 20),
    ))
}
