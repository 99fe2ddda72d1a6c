//! What a disk that is made anew will look like. Pure.
//!
//! ```text
//! 0       64 KiB    1 MiB     3 MiB        3 MiB + boot                     end - 1 MiB
//! | table | log area | 1 grub  | 2 boot ... | 3 lvm: root back data image ... | table |
//! ```
//!
//! Partitions begin and end at whole MiB.

use anyhow::{Result, ensure};

use crate::config::{Layout, Share, Volumes};
use crate::disk::group::{EXTENT_BYTES, NewVolume, START_BYTES};
use crate::disk::table::{Partition, Purpose, SECTOR_BYTES};
use crate::refuse;

const MIB: u64 = 1 << 20;

/// Room for two cores of GRUB beside each other.
const BIOS_BOOT_BYTES: u64 = 2 * MIB;

/// How many rounds of sharing it takes at most: in each but the last a volume is full.
const ROUNDS: usize = 5;

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
}

/// The partitions and volumes of a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The disk.
    pub disk: Disk,
    /// bios_grub, `/boot` and LVM's.
    pub partitions: [Partition; 3],
    /// `root`, `back`, `data` and `image`, in this order on the disk.
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
    let boot_bytes = layout.boot.0.max(needs.boot_bytes).next_multiple_of(MIB);
    let lvm_start = MIB + BIOS_BOOT_BYTES + boot_bytes;
    // The last MiB is the table's.
    let lvm_end = disk.size_bytes.saturating_sub(MIB) / MIB * MIB;
    let extents = lvm_end.saturating_sub(lvm_start + START_BYTES) / EXTENT_BYTES;

    let slot = Share {
        min: crate::config::Size(layout.slots.min.0.max(needs.slot_bytes)),
        ..layout.slots.clone()
    };
    let shares = [&slot, &slot, &layout.data, &layout.image];
    let mins = shares.map(|share| share.min.0.div_ceil(EXTENT_BYTES));
    let least: u64 = mins.iter().sum();
    if extents < least {
        let need = lvm_start + START_BYTES + least * EXTENT_BYTES + MIB;
        refuse!(
            "the disk has {} MiB, and the layout needs {} MiB: /boot {} MiB, each of the two \
             slots {} MiB, {} {} MiB, {} {} MiB; enlarge the disk, or set smaller sizes as \
             layout in config.yaml",
            disk.size_bytes / MIB,
            need.div_ceil(MIB),
            boot_bytes / MIB,
            mins[0] * EXTENT_BYTES / MIB,
            names.data,
            mins[2] * EXTENT_BYTES / MIB,
            names.image,
            mins[3] * EXTENT_BYTES / MIB,
        );
    }
    let sizes = share_out(extents, shares, mins);
    ensure!(sizes[0] == sizes[1], "the two slots differ: {sizes:?}");
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
        volumes: [&names.root, &names.back, &names.data, &names.image]
            .into_iter()
            .zip(sizes)
            .map(|(name, extents)| NewVolume {
                name: name.clone(),
                extents,
            })
            .collect(),
        free_extents: extents - sizes.iter().sum::<u64>(),
    })
}

/// Shares out `extents`, of which there are enough for all `mins`.
fn share_out(extents: u64, shares: [&Share; 4], mins: [u64; 4]) -> [u64; 4] {
    let mut sizes = mins;
    for _ in 0..ROUNDS {
        let left = extents - sizes.iter().sum::<u64>();
        let room = |at: usize, size: u64| {
            let max = shares[at].max.map_or(u64::MAX, |max| max.0 / EXTENT_BYTES);
            max.saturating_sub(size)
        };
        let takers: Vec<usize> = (0..sizes.len())
            .filter(|at| shares[*at].share > 0 && room(*at, sizes[*at]) > 0)
            .collect();
        let parts: u64 = takers.iter().map(|at| u64::from(shares[*at].share)).sum();
        if parts == 0 || left < parts {
            break;
        }
        for at in takers {
            let part = left / parts * u64::from(shares[at].share);
            sizes[at] += part.min(room(at, sizes[at]));
        }
    }
    sizes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Size;
    use crate::failure::{Class, class_of};

    fn planned(size_bytes: u64, layout: &Layout, needs: Needs) -> Result<Plan> {
        let disk = Disk {
            size_bytes,
            logical_sector_bytes: 512,
        };
        plan(disk, layout, &Volumes::default(), needs)
    }

    fn sizes(plan: &Plan) -> Vec<(String, u64)> {
        let mib = |volume: &NewVolume| (volume.name.clone(), volume.extents * EXTENT_BYTES / MIB);
        plan.volumes.iter().map(mib).collect()
    }

    #[test]
    fn a_disk_of_40_gib_is_divided_by_the_default_layout() {
        let plan = planned(40 << 30, &Layout::default(), Needs::default()).unwrap();
        let [grub, boot, lvm] = &plan.partitions;
        assert_eq!((grub.start_bytes, grub.size_bytes), (MIB, 2 * MIB));
        assert_eq!((boot.start_bytes, boot.size_bytes), (3 * MIB, 1 << 30));
        assert_eq!(lvm.start_bytes, (1 << 30) + 3 * MIB);
        assert_eq!(lvm.start_bytes + lvm.size_bytes, (40 << 30) - MIB);
        let shown: Vec<(String, u64)> = sizes(&plan);
        assert_eq!(
            shown,
            [
                ("root".into(), 10_748),
                ("back".into(), 10_748),
                ("data".into(), 12_692),
                ("image".into(), 5476)
            ]
        );
        assert!(plan.free_extents < 100, "{}", plan.free_extents);
    }

    #[test]
    fn a_full_volume_leaves_its_part_to_the_others_and_the_rest_is_free() {
        let share = |min, max: Option<u64>, share| Share {
            min: Size(min << 30),
            max: max.map(|gib| Size(gib << 30)),
            share,
        };
        let mut layout = Layout {
            boot: Size(1 << 30),
            slots: share(4, Some(8), 50),
            data: share(1, None, 1),
            image: share(1, Some(1), 50),
        };
        let plan = planned(100 << 30, &layout, Needs::default()).unwrap();
        let shown = sizes(&plan);
        assert_eq!((shown[0].1, shown[3].1), (8 << 10, 1 << 10));
        assert_eq!(plan.free_extents, 0);
        layout.data.max = Some(Size(2 << 30));
        let plan = planned(100 << 30, &layout, Needs::default()).unwrap();
        assert_eq!(sizes(&plan)[2].1, 2 << 10);
        assert!(plan.free_extents * EXTENT_BYTES > 70 << 30);
    }

    #[test]
    fn what_does_not_fit_is_refused_with_the_numbers() {
        let layout = Layout::default();
        let needs = |gib: u64| Needs {
            slot_bytes: gib << 30,
            boot_bytes: 0,
        };
        // 1 GiB, twice 2 GiB, 768 MiB, and 5 MiB of tables, GRUB and LVM's own.
        let least = (5 << 30) + (768 + 5) * MIB;
        assert_eq!(planned(least, &layout, needs(0)).unwrap().free_extents, 0);
        for (size, needs, words) in [
            (
                least - 1,
                needs(0),
                ["the disk has 5892 MiB", "needs 5893 MiB"],
            ),
            (
                least,
                needs(3),
                ["each of the two slots 3072 MiB", "needs 7941 MiB"],
            ),
            (
                0,
                Needs {
                    boot_bytes: 2 << 30,
                    ..needs(0)
                },
                ["has 0 MiB", "/boot 2048 MiB"],
            ),
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
        let error = plan(disk, &layout, &Volumes::default(), needs(0)).unwrap_err();
        assert!(format!("{error:#}").contains("sectors of 4096 bytes"));
    }

    #[test]
    fn every_size_of_disk_is_used_without_overlap() {
        let layout = Layout::default();
        for mib in (5893..60_000).step_by(977) {
            let plan = planned(mib * MIB + 511, &layout, Needs::default()).unwrap();
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
