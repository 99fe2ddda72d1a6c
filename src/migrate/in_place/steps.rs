//! What is made before the upgrade: room, volumes, file systems, names.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::names;
use super::plan::{NewVolume, Plan, SharedVolume, SmallerSwap};
use super::record::Record;
use crate::appliance::Appliance;
use crate::appliance::machine;
use crate::disk::blkid::{self, Tag};
use crate::disk::lvm::{self, LogicalVolume};
use crate::disk::mkfs::{self, FsType};
use crate::disk::{swap, volumes};
use crate::linux::meminfo::swaps;
use crate::linux::{device_mapper, mountinfo};
use crate::paths::{CONFIG_FILE, OTHER_MOUNT};
use crate::progress::Step;
use crate::signals;
use crate::system::{Mount, Mounted, files};

const FSTAB: &str = "/etc/fstab";

/// Does every step that is not done yet.
///
/// # Errors
/// When one fails, or a signal comes between two.
pub fn run(named: &Appliance, record: &Record) -> Result<()> {
    let plan = &record.plan;
    if let Some(smaller) = &plan.swap {
        named
            .progress
            .start(Step::ShrinkSwap(smaller.volume.clone()), None);
        shrink_swap(named, plan, smaller)
            .with_context(|| format!("making room in the swap {}", smaller.volume))?;
    }
    for volume in plan.made() {
        signals::check()?;
        named
            .progress
            .start(Step::MakeVolume(volume.name.clone()), None);
        make_volume(named, plan, volume)
            .with_context(|| format!("making the volume {}", volume.name))?;
    }
    for shared in &plan.shared {
        signals::check()?;
        named
            .progress
            .start(Step::FormatShared(shared.volume.name.clone()), None);
        format_shared(named, plan, shared)
            .with_context(|| format!("making the file system of {}", shared.volume.name))?;
    }
    signals::check()?;
    named.progress.start(Step::NameVolumes, None);
    add_to_fstab(named, &record.fstab_lines)?;
    name_volumes(named)
}

/// Returns the volumes of the group by name.
pub(super) fn volume(named: &Appliance, name: &str) -> Result<Option<LogicalVolume>> {
    let listed = lvm::list(named.sys, &named.config.vg)?;
    Ok(listed.into_iter().find(|volume| volume.name == name))
}

fn extents(plan: &Plan, volume: &LogicalVolume) -> u64 {
    volume.size_bytes / plan.extent_bytes.max(1)
}

/// Makes a swap area smaller. The new one is written at the beginning of the volume
/// before that shrinks, so that every start finds one that is whole, under the name
/// it always had: no initramfs and no fstab waits for it in vain.
fn shrink_swap(named: &Appliance, plan: &Plan, smaller: &SmallerSwap) -> Result<()> {
    let size = |volume: Option<LogicalVolume>| {
        let volume = volume.with_context(|| format!("there is no volume {}", smaller.volume))?;
        anyhow::Ok(extents(plan, &volume))
    };
    if size(volume(named, &smaller.volume)?)? <= smaller.to_extents {
        return Ok(());
    }
    let device = plan.device(&smaller.volume);
    turn_off_swap(named, &plan.group, &smaller.volume)?;
    let bytes = smaller.to_extents * plan.extent_bytes;
    swap::make(named.sys, &device, &smaller.name, bytes)?;
    volumes::shrink(named.sys, &plan.group, &smaller.volume, smaller.to_extents)?;
    let found = size(volume(named, &smaller.volume)?)?;
    ensure!(
        found == smaller.to_extents,
        "it has {found} extents afterwards"
    );
    turn_on_swap(named, &plan.group, &smaller.volume)
}

/// Turns a swap area on, where systemd has not done it already.
pub(super) fn turn_on_swap(named: &Appliance, group: &str, volume: &str) -> Result<()> {
    match is_swapped_to(named, group, volume) {
        true => Ok(()),
        false => swap::turn_on(named.sys, &device_mapper::path(group, volume)),
    }
}

/// Turns a swap area off, where it is on.
pub(super) fn turn_off_swap(named: &Appliance, group: &str, volume: &str) -> Result<()> {
    if !is_swapped_to(named, group, volume) {
        return Ok(());
    }
    swap::turn_off(named.sys, &device_mapper::path(group, volume))?;
    ensure!(
        !is_swapped_to(named, group, volume),
        "swap is in use after it was turned off"
    );
    Ok(())
}

fn is_swapped_to(named: &Appliance, group: &str, volume: &str) -> bool {
    let text = fs::read_to_string(named.at("/proc/swaps")).unwrap_or_default();
    let wanted = device_mapper::name(group, volume);
    swaps(&text).iter().any(|area| {
        let node = Path::new(&area.device).file_name().unwrap_or_default();
        let file = named.at("/sys/class/block").join(node).join("dm/name");
        fs::read_to_string(file).is_ok_and(|name| name.trim() == wanted)
    })
}

fn make_volume(named: &Appliance, plan: &Plan, wanted: &NewVolume) -> Result<()> {
    // The record says that it was not there, so it is ours.
    if volume(named, &wanted.name)?.is_none() {
        volumes::create(named.sys, &plan.group, &wanted.name, wanted.extents)?;
    }
    let made = volume(named, &wanted.name)?.context("it is not there afterwards")?;
    let found = extents(plan, &made);
    ensure!(
        found == wanted.extents && made.segment_type == "linear",
        "it is {} and has {found} extents, not {}",
        made.segment_type,
        wanted.extents
    );
    Ok(())
}

/// Makes a file system where there is none that can be mounted.
fn format_shared(named: &Appliance, plan: &Plan, shared: &SharedVolume) -> Result<()> {
    let NewVolume { name, extents } = &shared.volume;
    let device = plan.device(name);
    let point = named.at(&shared.mount_point);
    fs::create_dir_all(&point).with_context(|| format!("making {}", point.display()))?;
    lvm::activate(named.sys, &plan.group, name)?;
    let found = blkid::ask(named.sys, &device, Tag::Type).unwrap_or_default();
    if found.as_deref() == Some(FsType::Ext4.name()) {
        return Ok(());
    }
    let size_bytes = extents * plan.extent_bytes;
    let format = mkfs::command(named.sys, FsType::Ext4, &device, size_bytes, 0)?;
    named.sys.run(&format)?;
    let mount = Mount::device(&device, &named.at(OTHER_MOUNT), FsType::Ext4.name(), "");
    Mounted::new(named.sys, &mount)?.unmount()
}

/// Mounts the data volume, where it was made and no start has mounted it.
pub(super) fn mount_data<'a>(named: &Appliance<'a>, plan: &Plan) -> Result<Option<Mounted<'a>>> {
    let is_data = |shared: &&SharedVolume| shared.volume.name == named.config.volumes.data;
    let Some(data) = plan.shared.iter().find(is_data) else {
        return Ok(None);
    };
    if mountinfo::at(&machine::mounts(named)?, &data.mount_point).is_some() {
        return Ok(None);
    }
    let (device, point) = (plan.device(&data.volume.name), named.at(&data.mount_point));
    Mounted::new(named.sys, &Mount::device(&device, &point, "ext4", "")).map(Some)
}

/// Returns what fstab gets: a line for each volume that both systems share. It may
/// be missing, so that an unfinished migration stops no start.
///
/// # Errors
/// When fstab cannot be read.
pub fn fstab_lines(named: &Appliance, plan: &Plan) -> Result<String> {
    if plan.shared.is_empty() {
        return Ok(String::new());
    }
    let path = named.at(FSTAB);
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let is_open = !text.is_empty() && !text.ends_with('\n');
    let mut lines = if is_open { "\n" } else { "" }.to_owned();
    for SharedVolume {
        volume,
        mount_point,
    } in &plan.shared
    {
        let (device, at) = (plan.device(&volume.name), mount_point.display());
        lines += &format!("{} {at} ext4 defaults,nofail 0 2\n", device.display());
    }
    Ok(lines)
}

fn add_to_fstab(named: &Appliance, lines: &str) -> Result<()> {
    change_fstab(named, |text| {
        (!text.contains(lines)).then(|| text.to_owned() + lines)
    })
}

/// Takes out of fstab what was added to it.
pub(super) fn take_from_fstab(named: &Appliance, lines: &str) -> Result<()> {
    change_fstab(named, |text| {
        (!lines.is_empty() && text.contains(lines)).then(|| text.replacen(lines, "", 1))
    })
}

fn change_fstab(named: &Appliance, change: impl Fn(&str) -> Option<String>) -> Result<()> {
    let path = named.at(FSTAB);
    let text = match fs::read_to_string(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        other => other.with_context(|| format!("reading {}", path.display()))?,
    };
    match change(&text) {
        None => Ok(()),
        Some(after) => replace(&path, &after),
    }
}

fn name_volumes(named: &Appliance) -> Result<()> {
    match names::named(&names::current(named)?, named.config)? {
        None => Ok(()),
        Some(after) => {
            let path = named.at(CONFIG_FILE);
            let dir = path.parent().unwrap_or(Path::new("/"));
            fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
            replace(&path, &after)
        }
    }
}

/// Replaces a file of settings, whose mode stays.
fn replace(path: &Path, text: &str) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let mode = path
        .metadata()
        .map_or(0o644, |meta| meta.permissions().mode() & 0o7777);
    files::write_atomic(path, text.as_bytes(), mode)
}
