//! What a machine with one root is: all that the ladder decides from. Changes nothing.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::appliance::Appliance;
use crate::appliance::machine;
use crate::boot::bios::area::BootArea;
use crate::disk::lvm::{self, LogicalVolume};
use crate::disk::swap;
use crate::disk::volumes::{self, Room};
use crate::linux::device_mapper;
use crate::linux::meminfo::{available_bytes, swaps};
use crate::linux::mountinfo::{self, MountEntry};
use crate::paths::BOOT;

/// What stays free of memory when swap is made smaller.
const SPARE_MEMORY_BYTES: u64 = 256 << 20;

/// Where `/` is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Root {
    /// On a logical volume.
    Volume {
        /// Its volume group.
        group: String,
        /// The volume.
        volume: LogicalVolume,
    },
    /// On anything else.
    Other(String),
}

/// Where `/boot` is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BootPlace {
    /// On a partition of its own.
    Partition(String),
    /// On a mapped device of this name.
    Mapped(String),
    /// In the root file system.
    OnRoot,
}

/// Where GRUB's core lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Area {
    /// In a bios_grub partition, with so many sectors free beside it.
    Free(u64),
    /// Somewhere else, for this reason.
    Missing(String),
}

/// The volume group of the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// How many groups have its name.
    pub count: usize,
    /// The one machine that may use it.
    pub system_id: Option<String>,
    /// The room in it.
    pub room: Room,
    /// The volumes in it.
    pub volumes: Vec<LogicalVolume>,
}

/// A swap area in a volume of the group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SwapArea {
    /// The volume.
    pub volume: LogicalVolume,
    /// What names the area.
    pub name: swap::Name,
    /// What is in use of all swap of the machine.
    pub used_bytes: u64,
    /// What is free of its memory, where the kernel tells.
    pub available_bytes: Option<u64>,
}

impl SwapArea {
    /// Tells whether the memory can do without it for a while.
    pub fn is_dispensable(&self) -> bool {
        let wanted = self.used_bytes.saturating_add(SPARE_MEMORY_BYTES);
        self.available_bytes.is_some_and(|free| free >= wanted)
    }
}

/// All that is decided from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Where `/` is.
    pub root: Root,
    /// Where `/boot` is.
    pub boot: BootPlace,
    /// Where GRUB is.
    pub area: Area,
    /// The volume group of the root.
    pub group: Option<Group>,
    /// Swap in it.
    pub swap: Option<SwapArea>,
    /// Which of `/data` and `/image` hold something already.
    pub occupied: Vec<String>,
    /// What the new system takes.
    pub need_bytes: u64,
}

/// Looks at the machine, which is to take a system of `need_bytes`.
///
/// # Errors
/// When a tool of LVM fails, or the kernel does not tell what is mounted.
pub fn look(appliance: &Appliance, need_bytes: u64) -> Result<Facts> {
    let table = machine::mounts(appliance)?;
    let mounted = mountinfo::at(&table, Path::new("/")).context("the mount table has no root")?;
    let mapped = mapped_name(appliance, &format!("dev/block/{}", mounted.device_number));
    // A root on no mapped device is looked at without the tools of LVM.
    let names = match &mapped {
        None => Vec::new(),
        Some(_) => volumes::names(appliance.sys)?,
    };
    let volume = mapped.and_then(|name| volume_called(&names, &name));
    let (root, group) = match volume {
        Some((group, name)) => {
            let found = look_at_group(appliance, &group)?;
            let volume = found.volumes.iter().find(|v| v.name == name);
            let volume = volume.with_context(|| format!("lvs lists no {group}/{name}"))?;
            let root = Root::Volume {
                group,
                volume: volume.clone(),
            };
            (root, Some(found))
        }
        None => (Root::Other(mounted.source.clone()), None),
    };
    let swap = match &root {
        Root::Volume { group, .. } => swap_in(appliance, &names, group)?,
        Root::Other(_) => None,
    };
    Ok(Facts {
        boot: boot_place(appliance, &table),
        area: boot_area(appliance, &root),
        occupied: ["/data", "/image"]
            .into_iter()
            .filter(|path| is_occupied(appliance, &table, path))
            .map(str::to_owned)
            .collect(),
        root,
        group,
        swap,
        need_bytes,
    })
}

/// Returns the name of the mapped device at `path` in `/sys`.
fn mapped_name(appliance: &Appliance, path: &str) -> Option<String> {
    let file = appliance.at(format!("/sys/{path}/dm/name"));
    let name = fs::read_to_string(file).ok()?;
    Some(name.trim().to_owned())
}

fn volume_called(names: &[(String, String)], mapped: &str) -> Option<(String, String)> {
    let is_it = |(group, volume): &&(String, String)| device_mapper::name(group, volume) == mapped;
    names.iter().find(is_it).cloned()
}

fn look_at_group(appliance: &Appliance, group: &str) -> Result<Group> {
    let same_name = lvm::groups(appliance.sys, group)?;
    Ok(Group {
        count: same_name.len(),
        system_id: same_name
            .into_iter()
            .map(|group| group.system_id)
            .find(|id| !id.is_empty()),
        room: volumes::room(appliance.sys, group)?,
        volumes: lvm::list(appliance.sys, group)?,
    })
}

fn boot_place(appliance: &Appliance, table: &[MountEntry]) -> BootPlace {
    let Some(mount) = mountinfo::at(table, Path::new(BOOT)) else {
        return BootPlace::OnRoot;
    };
    match mapped_name(appliance, &format!("dev/block/{}", mount.device_number)) {
        Some(name) => BootPlace::Mapped(name),
        None => BootPlace::Partition(mount.source.clone()),
    }
}

fn boot_area(appliance: &Appliance, root: &Root) -> Area {
    let look = || -> Result<u64> {
        let disk = match (&appliance.config.disk, root) {
            (Some(disk), _) => disk.clone(),
            (None, Root::Volume { group, .. }) => {
                lvm::disk_of_group(appliance.sys, &appliance.at("/sys"), group)?
            }
            (None, Root::Other(_)) => anyhow::bail!("not looked at"),
        };
        BootArea::look(&appliance.at(disk))?.free_sectors()
    };
    match look() {
        Ok(sectors) => Area::Free(sectors),
        Err(error) => Area::Missing(format!("{error:#}")),
    }
}

/// Returns the largest swap area in a volume of `group`.
fn swap_in(
    appliance: &Appliance,
    names: &[(String, String)],
    group: &str,
) -> Result<Option<SwapArea>> {
    let text = fs::read_to_string(appliance.at("/proc/swaps")).unwrap_or_default();
    let memory = fs::read_to_string(appliance.at("/proc/meminfo")).unwrap_or_default();
    let all = swaps(&text);
    let used_bytes = all.iter().map(|area| area.used_bytes).sum();
    let listed = lvm::list(appliance.sys, group)?;
    let in_group = all.iter().filter_map(|area| {
        let node = Path::new(&area.device).file_name()?.to_str()?;
        let mapped = mapped_name(appliance, &format!("class/block/{node}"))?;
        let (found, name) = volume_called(names, &mapped)?;
        let volume = listed.iter().find(|v| v.name == name)?;
        (found == group && volume.segment_type == "linear").then(|| volume.clone())
    });
    let Some(volume) = in_group.max_by_key(|volume| volume.size_bytes) else {
        return Ok(None);
    };
    let device = device_mapper::path(group, &volume.name);
    Ok(Some(SwapArea {
        name: swap::name(appliance.sys, &device)?,
        volume,
        used_bytes,
        available_bytes: available_bytes(&memory),
    }))
}

/// Tells whether something is at or below `path` that a mount there would hide.
fn is_occupied(appliance: &Appliance, table: &[MountEntry], path: &str) -> bool {
    let is_mounted = mountinfo::at(table, Path::new(path)).is_some();
    let dir = appliance.at(path);
    let is_empty = match fs::read_dir(&dir) {
        Ok(mut entries) => entries.next().is_none(),
        Err(_) => dir.symlink_metadata().is_err(),
    };
    is_mounted || !is_empty
}
