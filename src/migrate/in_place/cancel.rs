//! Undoing a migration whose new system has not been started.
//!
//! 1. the trial goes, the slot is empty, the old boot area comes back, `/boot/va`
//!    goes: the old GRUB starts the old system by its own menu;
//! 2. fstab as it was; the new volumes go;
//! 3. the swap area has its old size;
//! 4. files are as they were;
//! 5. the record goes.
//!
//! Each looks at what is there first, so that it can be done again after a cut.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::plan::{NewVolume, Plan, SmallerSwap};
use super::record::Record;
use super::steps;
use crate::appliance::Appliance;
use crate::appliance::devices::is_mapped;
use crate::appliance::machine::{Machine, boot_disk};
use crate::boot::bios::area::BootArea;
use crate::boot::state::Phase;
use crate::disk::blkid::{self, Tag};
use crate::disk::{swap, volumes};
use crate::linux::device_mapper;
use crate::linux::mountinfo;
use crate::paths::{BOOT_DIR, OTHER_MOUNT};
use crate::progress::Step;
use crate::refuse;
use crate::slot::Slot;
use crate::system::{Cmd, Lock, Mount, Mounted, files};
use crate::upgrade::stage;

/// Undoes a migration in place; `None` where none was begun here.
///
/// # Errors
/// Class `Refused` when the new system was started already, or a volume holds what
/// is not ours; else when a step fails, after which it can be run again.
pub fn cancel(appliance: &Appliance) -> Result<Option<Plan>> {
    let lock = appliance.lock()?;
    let Some(record) = Record::load(appliance)? else {
        return Ok(None);
    };
    let config = record.plan.config(appliance.config);
    let named = &Appliance {
        config: &config,
        ..*appliance
    };
    require_unstarted(&Machine::look(named)?)?;
    for shared in &record.plan.shared {
        require_only_ours(named, &record.plan, &shared.volume)?;
    }
    named.progress.start(Step::Undo, None);
    take_back_upgrade(named, &record, &lock)?;
    steps::take_from_fstab(named, &record.fstab_lines)?;
    for volume in record.plan.made().rev() {
        remove_volume(named, &record.plan, volume)
            .with_context(|| format!("removing the volume {}", volume.name))?;
    }
    if let Some(smaller) = &record.plan.swap {
        enlarge_swap(named, &record.plan, smaller)
            .with_context(|| format!("giving the swap {} its size back", smaller.volume))?;
    }
    for kept in &record.files {
        record.put_back(named, kept)?;
    }
    for dir in record.new_dirs.iter().rev() {
        // One that somebody uses meanwhile stays.
        let _ = fs::remove_dir(named.at(dir));
    }
    Record::forget(named)?;
    Ok(Some(record.plan))
}

/// Refuses where a person may have worked in the new system, or it runs.
fn require_unstarted(machine: &Machine) -> Result<()> {
    if machine.booted != Slot::Root {
        refuse!("the new system runs; `va-upgrade rollback` goes back to the old one");
    }
    let state = machine.state();
    let phase = state.phase(Slot::Back);
    if matches!(phase, Phase::Good | Phase::Committed) {
        refuse!(
            "the new system was started and kept; slot back is {phase}, and stays as a system to \
             go to with `va-upgrade rollback`"
        );
    }
    Ok(())
}

/// Puts the old boot area back and removes what an upgrade made on `/boot`.
///
/// # Errors
/// Class `Refused` when the old GRUB was overwritten by a later upgrade; else when a
/// step fails. Until the boot area is back our GRUB starts the old system.
pub fn take_back_upgrade(named: &Appliance, record: &Record, lock: &Lock) -> Result<()> {
    let disk = named.at(boot_disk(named)?);
    let area = BootArea::change(&disk)?;
    let saved = area.saved(&record.boot_area(named)?)?;
    if !area.still_holds(&saved)? {
        refuse!(
            "the GRUB of before lies no more on {}, which another upgrade has overwritten; \
             go on with `va-upgrade apply`",
            disk.display()
        );
    }
    if !named.at(BOOT_DIR).exists() {
        return area.restore(&saved);
    }
    let machine = Machine::look(named)?;
    require_unstarted(&machine)?;
    stage::discard(named, &machine, lock)?;
    area.restore(&saved)?;
    files::remove_tree(&named.at(BOOT_DIR))?;
    named.flush_boot()
}

/// Refuses where a volume holds anything that we did not put there.
fn require_only_ours(named: &Appliance, plan: &Plan, volume: &NewVolume) -> Result<()> {
    let device = plan.device(&volume.name);
    if steps::volume(named, &volume.name)?.is_none() {
        return Ok(());
    }
    unmount_everywhere(named, &plan.group, &volume.name)?;
    let found = blkid::ask(named.sys, &device, Tag::Type).unwrap_or_default();
    if found.is_none() {
        return Ok(());
    }
    let mount = Mount::device(&device, &named.at(OTHER_MOUNT), "ext4", "");
    let mounted = Mounted::new(named.sys, &mount)?;
    let foreign = foreign_entry(mounted.path());
    mounted.unmount()?;
    if let Some(name) = foreign? {
        refuse!(
            "the volume {} holds {name:?}, which would be lost; move it elsewhere first",
            volume.name
        );
    }
    Ok(())
}

fn foreign_entry(dir: &Path) -> Result<Option<String>> {
    for entry in fs::read_dir(dir).with_context(|| format!("listing {}", dir.display()))? {
        let name = entry?.file_name();
        if name != "lost+found" && name != "va-upgrade" {
            return Ok(Some(name.to_string_lossy().into_owned()));
        }
    }
    Ok(None)
}

/// Unmounts a volume in the mount namespace of the machine, where a start since then
/// has mounted it.
fn unmount_everywhere(named: &Appliance, group: &str, volume: &str) -> Result<()> {
    let wanted = device_mapper::name(group, volume);
    let text = fs::read_to_string(named.at("/proc/1/mountinfo")).unwrap_or_default();
    for mount in mountinfo::parse(&text)
        .iter()
        .rev()
        .filter(|mount| is_mapped(named, mount, &wanted))
    {
        let cmd = Cmd::new("nsenter").args(["--target=1", "--mount", "umount", "--"]);
        named.sys.run(&cmd.arg(&mount.mount_point))?;
    }
    // Our own copies of the mounts hold it, too.
    let own = fs::read_to_string(named.at("/proc/self/mountinfo")).unwrap_or_default();
    for mount in mountinfo::parse(&own)
        .iter()
        .rev()
        .filter(|mount| is_mapped(named, mount, &wanted))
    {
        named.sys.unmount(&named.at(&mount.mount_point))?;
    }
    Ok(())
}

fn remove_volume(named: &Appliance, plan: &Plan, wanted: &NewVolume) -> Result<()> {
    if steps::volume(named, &wanted.name)?.is_none() {
        return Ok(());
    }
    volumes::remove(named.sys, &plan.group, &wanted.name)?;
    match steps::volume(named, &wanted.name)? {
        None => Ok(()),
        Some(_) => bail!("it is there afterwards"),
    }
}

fn enlarge_swap(named: &Appliance, plan: &Plan, smaller: &SmallerSwap) -> Result<()> {
    let from = smaller.from_extents;
    let found = steps::volume(named, &smaller.volume)?.context("it is not there")?;
    if found.size_bytes < from * plan.extent_bytes {
        volumes::enlarge(named.sys, &plan.group, &smaller.volume, from)?;
    }
    // A cut between the steps leaves a whole area, of the smaller size.
    steps::turn_off_swap(named, &plan.group, &smaller.volume)?;
    let device = plan.device(&smaller.volume);
    swap::make(named.sys, &device, &smaller.name, from * plan.extent_bytes)?;
    steps::turn_on_swap(named, &plan.group, &smaller.volume)
}
