//! The flow of `grow`: free disk space goes to the volumes that the settings name.
//!
//! 1. what there is: disk, partition, volume group, the volumes of `grow`;
//! 2. the partition of the volume group takes what the disk has grown by
//!    ([`gpt`]), and the kernel is told;
//! 3. the physical volume takes its partition;
//! 4. each volume takes its share of what is free, and its file system the volume.
//!
//! Each step does nothing where it was done before, so whatever it was stopped by, it
//! can be run again. Nothing is ever made smaller or moved.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::appliance::Appliance;
use crate::appliance::devices::is_mapped;
use crate::appliance::machine;
use crate::config::amount::Amount;
use crate::disk::blkid::{self, Tag};
use crate::disk::enlarge;
use crate::disk::gpt::{self, Growth};
use crate::disk::lvm;
use crate::disk::mkfs::FsType;
use crate::disk::volumes::{self, Room};
use crate::linux::device_mapper;
use crate::paths::{GROWN_FILE, OTHER_MOUNT};
use crate::progress::Step;
use crate::refuse;
use crate::signals;
use crate::system::{Cmd, Mount, Mounted, files};

/// When it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occasion {
    /// A person asks for it.
    Asked,
    /// The first start; later ones do nothing.
    FirstStart,
}

/// How far it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Only what would be done.
    DryRun,
    /// All of it.
    Whole,
}

/// What has grown, or would.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Grown {
    /// The partition and its sizes in bytes, before and after.
    pub partition: Option<(PathBuf, u64, u64)>,
    /// The volumes, each with its sizes in bytes, before and after.
    pub volumes: Vec<(String, u64, u64)>,
    /// What is free in the volume group afterwards, in bytes.
    pub free_bytes: u64,
}

/// Where the volume group lies.
struct Place {
    disk: PathBuf,
    partition: PathBuf,
    number: u32,
    growth: Option<Growth>,
}

/// A volume that takes free space.
struct Share {
    name: String,
    from_extents: u64,
    to_extents: u64,
}

/// Takes free disk space; writes the partition table, LVM's metadata and file systems.
///
/// # Errors
/// Class `Refused` when the layout is another or a volume is missing: nothing was
/// changed; else when a step fails, after which it can be run again.
pub fn grow(appliance: &Appliance, occasion: Occasion, extent: Extent) -> Result<Grown> {
    let stamp = appliance.at(GROWN_FILE);
    let is_wanted = !appliance.config.grow.is_empty() && !stamp.exists();
    if occasion == Occasion::FirstStart && !is_wanted {
        return Ok(Grown::default());
    }
    let _lock = appliance.lock()?;
    let config = appliance.config;
    let place = look(appliance)?;
    let mut room = volumes::room(appliance.sys, &config.vg)?;
    require_volumes(appliance)?;
    let mut grown = Grown {
        partition: None,
        ..Grown::default()
    };
    if let Some(growth) = &place.growth {
        let (from, to) = (growth.from_bytes, growth.to_bytes);
        grown.partition = Some((place.partition.clone(), from, to));
        room.free_extents += (to - from) / room.extent_bytes.max(1);
    }
    if extent == Extent::Whole {
        enlarge_partition(appliance, &place)?;
        room = volumes::room(appliance.sys, &config.vg)?;
    }
    let shares = shares(appliance, room)?;
    let mut free = room.free_extents;
    for share in &shares {
        free -= share.to_extents - share.from_extents;
        if share.to_extents > share.from_extents {
            let [from, to] =
                [share.from_extents, share.to_extents].map(|extents| extents * room.extent_bytes);
            grown.volumes.push((share.name.clone(), from, to));
        }
    }
    grown.free_bytes = free * room.extent_bytes;
    if extent == Extent::DryRun {
        return Ok(grown);
    }
    for share in &shares {
        signals::check()?;
        appliance
            .progress
            .start(Step::GrowVolume(share.name.clone()), None);
        enlarge_volume(appliance, share)
            .with_context(|| format!("enlarging the volume {}", share.name))?;
    }
    if occasion == Occasion::FirstStart {
        let dir = stamp.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
        files::write_atomic(&stamp, b"", 0o644)?;
    }
    Ok(grown)
}

/// Finds the one partition that holds the volume group, and what it can take.
fn look(appliance: &Appliance) -> Result<Place> {
    let vg = &appliance.config.vg;
    let physical = volumes::physical(appliance.sys, vg)?;
    let [partition] = physical.as_slice() else {
        refuse!(
            "volume group {vg} lies on {} devices; it can grow where it lies on one partition",
            physical.len()
        );
    };
    let disk = lvm::disk_of_group(appliance.sys, &appliance.at("/sys"), vg)?;
    let number = u32::try_from(read_number(appliance, partition, "partition")?)?;
    let sector_bytes = read_number(appliance, &disk, "queue/logical_block_size").unwrap_or(512);
    if sector_bytes != 512 {
        refuse!(
            "{} has sectors of {sector_bytes} bytes, not 512",
            disk.display()
        );
    }
    Ok(Place {
        growth: gpt::plan(&appliance.at(&disk), number)?,
        disk,
        partition: partition.clone(),
        number,
    })
}

/// Reads what the kernel tells of a device.
fn read_number(appliance: &Appliance, device: &Path, what: &str) -> Result<u64> {
    let name = device.file_name().context("a device without a name")?;
    let path = appliance.at("/sys/class/block").join(name).join(what);
    let read = || Ok::<_, anyhow::Error>(fs::read_to_string(&path)?.trim().parse()?);
    read().with_context(|| format!("reading {}", path.display()))
}

/// Refuses where the settings name a volume that cannot grow.
fn require_volumes(appliance: &Appliance) -> Result<()> {
    let vg = &appliance.config.vg;
    let listed = lvm::list(appliance.sys, vg)?;
    for name in appliance.config.grow.keys() {
        match listed.iter().find(|volume| volume.name == *name) {
            Some(volume) if volume.segment_type == "linear" => {}
            Some(volume) => refuse!("{vg}/{name} is {}, not linear", volume.segment_type),
            None => refuse!("`grow` in config.yaml names {vg}/{name}, which is not there"),
        }
    }
    Ok(())
}

fn enlarge_partition(appliance: &Appliance, place: &Place) -> Result<()> {
    let sys = appliance.sys;
    let disk = appliance.at(&place.disk);
    appliance.progress.start(Step::GrowPartition, None);
    if let Some(growth) = &place.growth {
        gpt::write(&disk, growth)?;
    }
    let wanted = gpt::size_bytes(&disk, place.number)? / 512;
    let is_known = |appliance: &Appliance| {
        read_number(appliance, &place.partition, "size").is_ok_and(|size| size == wanted)
    };
    if !is_known(appliance) {
        let number = place.number.to_string();
        let cmd = Cmd::new("partx").args(["--update", "--nr", &number]);
        sys.run(&cmd.arg(&place.disk))?;
        ensure!(
            is_known(appliance),
            "the kernel still has the old size of {}; restart this machine and run \
             `va-upgrade grow` again",
            place.partition.display()
        );
    }
    volumes::resize_physical(sys, &place.partition)
}

/// Says what each volume takes. Shares are of what is free before the first one.
fn shares(appliance: &Appliance, room: Room) -> Result<Vec<Share>> {
    let config = appliance.config;
    let listed = lvm::list(appliance.sys, &config.vg)?;
    let mut left = room.free_extents;
    let mut shares = Vec::new();
    for (name, amount) in &config.grow {
        let volume = listed.iter().find(|volume| volume.name == *name);
        let volume = volume.with_context(|| format!("there is no volume {name}"))?;
        let from_extents = volume.size_bytes / room.extent_bytes.max(1);
        let more = match amount {
            Amount::Bytes(bytes) => room.extents(*bytes).saturating_sub(from_extents),
            Amount::Percent(_) => amount.units(room.free_extents, room.extent_bytes),
        };
        let more = more.min(left);
        left -= more;
        shares.push(Share {
            name: name.clone(),
            from_extents,
            to_extents: from_extents + more,
        });
    }
    Ok(shares)
}

fn enlarge_volume(appliance: &Appliance, share: &Share) -> Result<()> {
    let (sys, config) = (appliance.sys, appliance.config);
    if share.to_extents > share.from_extents {
        volumes::enlarge(sys, &config.vg, &share.name, share.to_extents)?;
    }
    let device = device_mapper::path(&config.vg, &share.name);
    let found = blkid::ask(sys, &device, Tag::Type).unwrap_or_default();
    let Some(fs_type) = found.and_then(|name| FsType::from_name(&name).ok()) else {
        appliance.progress.note(&format!(
            "{} holds no file system that grows",
            device.display()
        ));
        return Ok(());
    };
    let table = machine::mounts(appliance)?;
    let mapped = device_mapper::name(&config.vg, &share.name);
    if let Some(mount) = table
        .iter()
        .find(|mount| is_mapped(appliance, mount, &mapped))
    {
        return enlarge::file_system(sys, fs_type, &device, &mount.mount_point);
    }
    // Both kinds grow while they are mounted, and need no check before.
    lvm::activate(sys, &config.vg, &share.name)?;
    let mount = Mount::device(&device, &appliance.at(OTHER_MOUNT), fs_type.name(), "");
    let mounted = Mounted::new(sys, &mount)?;
    enlarge::file_system(sys, fs_type, &device, mounted.path())?;
    mounted.unmount()
}
