//! What is made of a volume group: sizes and names. Pure.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::config::amount::Amount;
use crate::disk::lvm::LogicalVolume;
use crate::disk::swap;
use crate::disk::volumes::Room;
use crate::linux::device_mapper;
use crate::migrate::facts::{Facts, Group, SwapArea};

/// What is left of a swap area that is made smaller.
const LEAST_SWAP_BYTES: u64 = 64 << 20;

/// A volume below this size is not worth making.
const LEAST_VOLUME_BYTES: u64 = 64 << 20;

/// What is done to the volume group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The volume group, which keeps its name.
    pub group: String,
    /// The volume of the running root, which keeps its name.
    pub root: String,
    /// The size of an extent.
    pub extent_bytes: u64,
    /// The swap area that gives room.
    pub swap: Option<SmallerSwap>,
    /// The second root.
    pub back: NewVolume,
    /// The volumes beside the slots that are made.
    pub shared: Vec<SharedVolume>,
    /// What of the layout is not made, and why.
    pub left_out: Vec<String>,
}

/// A swap area that is made smaller in its place, under its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SmallerSwap {
    /// Its volume.
    pub volume: String,
    /// What names the area.
    pub name: swap::Name,
    /// Its size before.
    pub from_extents: u64,
    /// Its size afterwards.
    pub to_extents: u64,
}

/// A volume that is made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewVolume {
    /// Its name.
    pub name: String,
    /// Its size.
    pub extents: u64,
}

/// A volume for both systems, with a file system that the running one mounts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SharedVolume {
    /// The volume.
    pub volume: NewVolume,
    /// Where it is mounted.
    pub mount_point: PathBuf,
}

impl Plan {
    /// Returns the settings by which the running system is the slot `root`.
    pub fn config(&self, config: &Config) -> Config {
        let mut config = config.clone();
        config.vg.clone_from(&self.group);
        config.volumes.root.clone_from(&self.root);
        config.volumes.back.clone_from(&self.back.name);
        config
    }

    /// Returns the device of a volume of the group.
    pub fn device(&self, volume: &str) -> PathBuf {
        device_mapper::path(&self.group, volume)
    }

    /// Returns every volume that is made, in the order of their making.
    pub fn made(&self) -> impl DoubleEndedIterator<Item = &NewVolume> {
        let shared = self.shared.iter().map(|shared| &shared.volume);
        std::iter::once(&self.back).chain(shared)
    }

    /// Says where the room comes from.
    pub fn room_in_words(&self, room: Room) -> String {
        let free = format!(
            "{} MiB are free, {} of them for {}",
            room.free_bytes() >> 20,
            self.mib(self.back.extents),
            self.back.name
        );
        match &self.swap {
            None => free,
            Some(swap) => format!(
                "{free}, with {} MiB of the swap {}",
                self.mib(swap.from_extents - swap.to_extents),
                swap.volume
            ),
        }
    }

    fn mib(&self, extents: u64) -> u64 {
        extents.saturating_mul(self.extent_bytes) >> 20
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Plan { group, root, .. } = self;
        writeln!(f, "  {group}/{root} becomes the slot root, under its name")?;
        if let Some(swap) = &self.swap {
            let (from, to) = (self.mib(swap.from_extents), self.mib(swap.to_extents));
            let name = &swap.volume;
            writeln!(
                f,
                "  the swap {group}/{name} shrinks from {from} to {to} MiB"
            )?;
        }
        let NewVolume { name, extents } = &self.back;
        writeln!(f, "  {group}/{name} is made, {} MiB", self.mib(*extents))?;
        for SharedVolume {
            volume,
            mount_point,
        } in &self.shared
        {
            let (name, size) = (&volume.name, self.mib(volume.extents));
            let at = mount_point.display();
            writeln!(
                f,
                "  {group}/{name} is made, {size} MiB, and mounted at {at}"
            )?;
        }
        Ok(())
    }
}

/// Plans the volumes; in words what room is missing.
pub fn make(
    group: &str,
    root: &LogicalVolume,
    found: &Group,
    facts: &Facts,
    config: &Config,
) -> Result<Plan, String> {
    let room = found.room;
    let need = room.extents(facts.need_bytes);
    let (back, swap) = match room.free_extents {
        free if free >= need => (room.extents(root.size_bytes).clamp(need, free), None),
        free => {
            let swap = spare_swap(facts.swap.as_ref(), room, need - free)
                .ok_or_else(|| shortage(facts, room))?;
            (need, Some(swap))
        }
    };
    let mut plan = Plan {
        group: group.to_owned(),
        root: root.name.clone(),
        extent_bytes: room.extent_bytes,
        swap,
        back: NewVolume {
            name: config.volumes.back.clone(),
            extents: back,
        },
        shared: Vec::new(),
        left_out: Vec::new(),
    };
    let mut left = room.free_extents.saturating_sub(back);
    let shared = [
        (&config.volumes.data, config.layout.data, "/data"),
        (&config.volumes.image, config.layout.image, "/image"),
    ];
    for (name, size, mount_point) in shared {
        let is_there = found.volumes.iter().any(|volume| volume.name == *name);
        if size == Amount::Bytes(0) || is_there {
            continue;
        }
        let extents = size.units(left, room.extent_bytes);
        if facts.occupied.iter().any(|path| path == mount_point) {
            let why = format!("{name} is not made: {mount_point} holds something already");
            plan.left_out.push(why);
        } else if extents.saturating_mul(room.extent_bytes) < LEAST_VOLUME_BYTES {
            let free = left.saturating_mul(room.extent_bytes) >> 20;
            let why = format!("{name} is not made: {free} MiB are left for it");
            plan.left_out.push(why);
        } else {
            left -= extents;
            plan.shared.push(SharedVolume {
                volume: NewVolume {
                    name: name.clone(),
                    extents,
                },
                mount_point: mount_point.into(),
            });
        }
    }
    Ok(plan)
}

/// Takes `missing` extents from a swap area, where it has them and the memory does
/// not need it.
fn spare_swap(swap: Option<&SwapArea>, room: Room, missing: u64) -> Option<SmallerSwap> {
    let swap = swap.filter(|swap| swap.is_dispensable())?;
    let from_extents = room.extents(swap.volume.size_bytes);
    let to_extents = from_extents.checked_sub(missing)?;
    (to_extents >= room.extents(LEAST_SWAP_BYTES)).then(|| SmallerSwap {
        volume: swap.volume.name.clone(),
        name: swap.name.clone(),
        from_extents,
        to_extents,
    })
}

fn shortage(facts: &Facts, room: Room) -> String {
    let mut words = format!(
        "a second root takes {} MiB, {} MiB are free in the volume group",
        facts.need_bytes.div_ceil(1 << 20),
        room.free_bytes() >> 20
    );
    match &facts.swap {
        None => {}
        Some(swap) if !swap.is_dispensable() => {
            words += ", and the memory needs its swap";
        }
        Some(swap) => {
            let size = swap.volume.size_bytes >> 20;
            words += &format!(", and its swap of {size} MiB is too small to help");
        }
    }
    words
}
