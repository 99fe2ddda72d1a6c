//! What a disk that is made anew will look like. Pure.
//!
//! ```text
//! 0       64 KiB    1 MiB     3 MiB        3 MiB + boot                     end - 1 MiB
//! | table | log area | 1 grub  | 2 boot ... | 3 lvm: root back data image ... | table |
//! ```
//!
//! Partitions begin and end at whole MiB.

use anyhow::Result;

use crate::config::amount::Amount;
use crate::config::{Layout, Volumes};
use crate::disk::group::{EXTENT_BYTES, NewVolume, START_BYTES};
use crate::disk::table::{Partition, Purpose, SECTOR_BYTES};
use crate::refuse;

const MIB: u64 = 1 << 20;

/// Room for two cores of GRUB beside each other.
const BIOS_BOOT_BYTES: u64 = 2 * MIB;

/// The history and the logs are there.
const LEAST_DATA_BYTES: u64 = 64 * MIB;

/// A disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Its size in bytes.
    pub size_bytes: u64,
    /// The unit that the disk counts in.
    pub logical_sector_bytes: u64,
}

/// What the release cannot do without.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// The least a slot has, in bytes.
    pub slot_bytes: u64,
    /// The least `/boot` has, in bytes.
    pub boot_bytes: u64,
    /// The least the data volume has, in bytes.
    pub data_bytes: u64,
}

/// The partitions and volumes of a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The disk.
    pub disk: Disk,
    /// bios_grub, `/boot` and LVM's.
    pub partitions: [Partition; 3],
    /// `root`, `back`, `data` and, unless it has no size, `image`, in this order.
    pub volumes: Vec<NewVolume>,
    /// The extents that nobody takes.
    pub free_extents: u64,
}

impl Plan {
    /// Returns the partition for `purpose`.
    pub fn partition(&self, purpose: Purpose) -> &Partition {
        let [grub, boot, lvm] = &self.partitions;
        match purpose {
            Purpose::BiosBoot => grub,
            Purpose::FileSystem => boot,
            Purpose::Lvm => lvm,
        }
    }

    /// Returns the size of the volume `name` in bytes; 0 when there is none.
    pub fn volume_bytes(&self, name: &str) -> u64 {
        let volume = self.volumes.iter().find(|volume| volume.name == name);
        volume.map_or(0, |volume| volume.extents * EXTENT_BYTES)
    }
}

/// Divides `disk` by `layout`, with volumes called as in `names`.
///
/// # Errors
/// Class `Refused`, with the numbers, when it is too small or counts in sectors that
/// GRUB's boot code does not know.
pub fn plan(disk: Disk, layout: &Layout, names: &Volumes, needs: Needs) -> Result<Plan> {
    if disk.logical_sector_bytes != SECTOR_BYTES {
        refuse!(
            "the disk has sectors of {} bytes; a BIOS starts GRUB from sectors of {SECTOR_BYTES} \
             bytes only",
            disk.logical_sector_bytes
        );
    }
    let boot_bytes = boot_bytes(layout, disk, needs);
    let lvm_start = MIB + BIOS_BOOT_BYTES + boot_bytes;
    // The last MiB is the table's.
    let lvm_end = disk.size_bytes.saturating_sub(MIB) / MIB * MIB;
    let extents = lvm_end.saturating_sub(lvm_start + START_BYTES) / EXTENT_BYTES;

    let least_slot = needs.slot_bytes.max(1).div_ceil(EXTENT_BYTES);
    let slot = wanted(layout.slots, extents).max(least_slot);
    let least_data = needs
        .data_bytes
        .max(LEAST_DATA_BYTES)
        .div_ceil(EXTENT_BYTES);
    let data = wanted(layout.data, extents).max(least_data);
    let image = wanted(layout.image, extents);
    let total = 2 * slot + data + image;
    if extents < total {
        let need = lvm_start + START_BYTES + total * EXTENT_BYTES + MIB;
        let mib = |extents: u64| extents * EXTENT_BYTES / MIB;
        refuse!(
            "the disk has {} MiB, and the layout needs {} MiB: /boot {} MiB, each of the two \
             slots {} MiB, of which the release takes {} MiB, {} {} MiB, {} {} MiB; enlarge the \
             disk, or set smaller sizes as layout in config.yaml",
            disk.size_bytes / MIB,
            need.div_ceil(MIB),
            boot_bytes / MIB,
            mib(slot),
            mib(least_slot),
            names.data,
            mib(data),
            names.image,
            mib(image),
        );
    }
    let partition = |number, name, purpose, start_bytes, size_bytes| Partition {
        number,
        name,
        purpose,
        start_bytes,
        size_bytes,
    };
    let boot_start = MIB + BIOS_BOOT_BYTES;
    Ok(Plan {
        disk,
        partitions: [
            partition(1, "grub", Purpose::BiosBoot, MIB, BIOS_BOOT_BYTES),
            partition(2, "boot", Purpose::FileSystem, boot_start, boot_bytes),
            partition(3, "lvm", Purpose::Lvm, lvm_start, lvm_end - lvm_start),
        ],
        volumes: [
            (&names.root, slot),
            (&names.back, slot),
            (&names.data, data),
            (&names.image, image),
        ]
        .into_iter()
        .filter(|(_, extents)| *extents > 0)
        .map(|(name, extents)| NewVolume {
            name: name.clone(),
            extents,
        })
        .collect(),
        free_extents: extents - total,
    })
}

/// Returns the size of `/boot`; a share is one of the disk.
fn boot_bytes(layout: &Layout, disk: Disk, needs: Needs) -> u64 {
    let wanted = match layout.boot {
        Amount::Bytes(bytes) => bytes,
        share => share.units(disk.size_bytes / MIB, MIB) * MIB,
    };
    wanted.max(needs.boot_bytes).next_multiple_of(MIB)
}

/// Returns how many of `extents` an amount is; more than there are where it says so.
fn wanted(amount: Amount, extents: u64) -> u64 {
    match amount {
        Amount::Bytes(bytes) => bytes.div_ceil(EXTENT_BYTES),
        share => share.units(extents, EXTENT_BYTES),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::{Class, class_of};

    fn planned(size_bytes: u64, layout: &Layout, needs: Needs) -> Result<Plan> {
        let disk = Disk {
            size_bytes,
            logical_sector_bytes: 512,
        };
        plan(disk, layout, &Volumes::default(), needs)
    }

    fn sizes(plan: &Plan) -> Vec<(&str, u64)> {
        let mib = |volume: &NewVolume| volume.extents * EXTENT_BYTES / MIB;
        let volumes = plan.volumes.iter();
        volumes
            .map(|volume| (&volume.name[..], mib(volume)))
            .collect()
    }

    fn needs(slot_mib: u64, boot_mib: u64) -> Needs {
        Needs {
            slot_bytes: slot_mib * MIB,
            boot_bytes: boot_mib * MIB,
            data_bytes: 0,
        }
    }

    #[test]
    fn a_disk_of_40_gib_is_divided_by_the_default_layout() {
        let plan = planned(40 << 30, &Layout::default(), needs(3000, 200)).unwrap();
        let [grub, boot, lvm] = &plan.partitions;
        assert_eq!((grub.start_bytes, grub.size_bytes), (MIB, 2 * MIB));
        assert_eq!((boot.start_bytes, boot.size_bytes), (3 * MIB, 1 << 30));
        assert_eq!(lvm.start_bytes, (1 << 30) + 3 * MIB);
        assert_eq!(lvm.start_bytes + lvm.size_bytes, (40 << 30) - MIB);
        assert_eq!(
            sizes(&plan),
            [("root", 9980), ("back", 9980), ("data", 512)]
        );
        assert_eq!(plan.free_extents * EXTENT_BYTES / MIB, 19_456);
    }

    #[test]
    fn a_release_that_needs_more_gets_more_and_so_does_data_that_is_none() {
        let layout = Layout {
            boot: Amount::Percent(1),
            slots: Amount::Percent(1),
            data: Amount::Bytes(0),
            image: Amount::Percent(10),
        };
        let plan = planned(20 << 30, &layout, needs(3001, 300)).unwrap();
        assert_eq!(plan.partitions[1].size_bytes, 300 * MIB);
        assert_eq!(
            sizes(&plan),
            [
                ("root", 3004),
                ("back", 3004),
                ("data", 64),
                ("image", 2016)
            ]
        );
    }

    #[test]
    fn what_does_not_fit_is_refused_with_the_numbers() {
        let layout = Layout::default();
        // /boot, two slots, data, and 5 MiB of tables, GRUB and LVM's own.
        let least = (1024 + 2 * 3000 + 512 + 5) * MIB;
        let plan = planned(least, &layout, needs(3000, 0)).unwrap();
        assert_eq!(plan.free_extents, 0);
        for (size, needs, words) in [
            (
                least - 1,
                needs(3000, 0),
                ["the disk has 7540 MiB", "needs 7541 MiB"],
            ),
            (
                least,
                needs(3001, 0),
                ["the release takes 3004 MiB", "needs 7549 MiB"],
            ),
            (0, needs(0, 2048), ["has 0 MiB", "/boot 2048 MiB"]),
        ] {
            let error = planned(size, &layout, needs).unwrap_err();
            assert_eq!(class_of(&error), Class::Refused);
            let text = format!("{error:#}");
            assert!(words.iter().all(|word| text.contains(word)), "{text}");
        }
        let disk = Disk {
            size_bytes: 40 << 30,
            logical_sector_bytes: 4096,
        };
        let error = plan_of(disk, &layout);
        assert!(error.contains("sectors of 4096 bytes"), "{error}");
    }

    fn plan_of(disk: Disk, layout: &Layout) -> String {
        let error = plan(disk, layout, &Volumes::default(), needs(0, 0)).unwrap_err();
        format!("{error:#}")
    }

    #[test]
    fn every_size_of_disk_is_used_without_overlap() {
        let layout = Layout::default();
        for mib in (3000..60_000).step_by(977) {
            let plan = planned(mib * MIB + 511, &layout, needs(400, 0)).unwrap();
            let [grub, boot, lvm] = &plan.partitions;
            assert_eq!(grub.start_bytes + grub.size_bytes, boot.start_bytes);
            assert_eq!(boot.start_bytes + boot.size_bytes, lvm.start_bytes);
            let taken: u64 = plan.volumes.iter().map(|volume| volume.extents).sum();
            let bytes = START_BYTES + (taken + plan.free_extents) * EXTENT_BYTES;
            assert!(bytes <= lvm.size_bytes && lvm.size_bytes - bytes < EXTENT_BYTES);
            assert_eq!(plan.volumes[0].extents, plan.volumes[1].extents);
        }
    }
}
