//! Every check before anything is changed.
//!
//! Checks of the appliance, then, with a bundle, whether it fits. All of them
//! run, so that one report names everything that is wrong. By subject:
//! `release`, `system`, `moment`, `volumes`, `boot`, `cards`, `mounts`.

mod boot;
mod cards;
mod checked;
mod moment;
mod mounts;
mod release;
mod system;
mod volumes;

use std::path::PathBuf;

pub use self::system::check_programs;
pub use self::volumes::slot_bytes;

use self::checked::{Checked, refuse};
use crate::appliance::Appliance;
use crate::appliance::hypervisor::Hypervisor;
use crate::appliance::machine::Machine;
use crate::bundle::Manifest;
use crate::disk::lvm::LogicalVolume;
use crate::disk::mkfs::FsType;
use crate::report::{Finding, Report};
use crate::slot::Slot;
use crate::upgrade::kernel_drift;

/// The checks that `checks` in config.yaml may make more or less strict; nothing
/// can go on without the others.
const NEGOTIABLE: [&str; 10] = [
    "boot features",
    "boot sector",
    "clock",
    "installed kernels",
    "last trial",
    "left out of fstab",
    "memory",
    "packages",
    "processor",
    "version",
];

/// What the checks found out and `apply` needs.
pub struct Facts {
    /// The slot that is written.
    pub target: Slot,
    /// Its volume.
    pub volume: LogicalVolume,
    /// The type of its new file system.
    pub fs_type: FsType,
    /// The disk that GRUB starts from.
    pub disk: PathBuf,
    /// The UUID of the file system on `/boot`.
    pub boot_uuid: String,
}

/// A bundle that is offered to an appliance.
#[derive(Clone, Copy)]
pub struct Offer<'a> {
    /// Its manifest.
    pub manifest: &'a Manifest,
    /// Whether a version older than the running one is taken.
    pub allow_downgrade: bool,
}

/// Whether the volume that is written is there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Inactive {
    /// It is.
    Volume,
    /// It is made later.
    ToBeMade,
}

/// Runs every check that needs no second slot.
pub fn check_without_slot(appliance: &Appliance, machine: &Machine, offer: Offer) -> Report {
    run(appliance, machine, Some(offer), Inactive::ToBeMade).0
}

/// Runs every check that needs no slots at all: of a system with one root.
pub fn check_single_root(appliance: &Appliance, offer: Offer) -> Report {
    let mut report = start(appliance);
    add_release(&mut report, appliance, offer);
    add_moment(&mut report, appliance, Some(offer.manifest));
    report.add("sync rules", system::check_rules(appliance));
    cards::check(appliance, &mut report);
    report
}

/// Runs every check on the machine, and on a bundle when there is one.
///
/// Returns the report, and what was found when nothing was in the way.
pub fn check(
    appliance: &Appliance,
    machine: &Machine,
    offer: Option<Offer>,
) -> (Report, Option<Facts>) {
    run(appliance, machine, offer, Inactive::Volume)
}

fn run(
    appliance: &Appliance,
    machine: &Machine,
    offer: Option<Offer>,
    inactive: Inactive,
) -> (Report, Option<Facts>) {
    let mut report = start(appliance);
    let target = machine.booted.other();
    let manifest = offer.map(|offer| offer.manifest);
    if let Some(offer) = offer {
        add_release(&mut report, appliance, offer);
    }
    report.add("boot state", system::check_boot_state(appliance, machine));
    report.add("tools", system::check_tools(appliance, machine));
    report.add("firmware", system::check_firmware(appliance));
    add_moment(&mut report, appliance, manifest);
    report.add("sync rules", system::check_rules(appliance));
    report.add("selinux", system::check_selinux(appliance));
    let volume = match inactive {
        Inactive::ToBeMade => None,
        Inactive::Volume => {
            let found = report.add("volumes", volumes::check_volumes(appliance, target));
            report.add("inactive slot", volumes::check_unused(appliance, target));
            found
        }
    };
    let fs_type = report.add("file system", volumes::check_fs_type(machine));
    let disk = report.add("boot disk", boot::check_disk(appliance));
    if disk.is_some() {
        boot::check_sector(appliance, machine, &mut report);
    }
    let boot_uuid = report.add("boot", boot::check_boot(appliance, machine));
    boot::check_features(appliance, machine, &mut report);
    report.add("running kernel", boot::check_adoption(appliance, machine));
    if let Some(drift) = kernel_drift::look(appliance, machine) {
        report.warn("installed kernels", drift.to_string());
    }
    cards::check(appliance, &mut report);
    if let Some(left_behind) = report.add("fstab", mounts::check_fstab(appliance))
        && !left_behind.is_empty()
    {
        let lines = left_behind.join("; ");
        let message = format!("not mounted in the new system, which brings what is there: {lines}");
        report.warn("left out of fstab", message);
    }
    if let (Some(manifest), Some(volume)) = (manifest, &volume) {
        let slot_space = volumes::check_slot_space(appliance, target, volume, manifest);
        report.add("slot space", slot_space);
    }
    if let Some(manifest) = manifest
        && (volume.is_some() || inactive == Inactive::ToBeMade)
    {
        let boot_space = boot::check_boot_space(appliance, machine, manifest);
        report.add("boot space", boot_space);
    }
    if let Some((slot, reason)) = machine.state().failed() {
        let finding = Finding::new(
            format!("the last trial, in slot {slot}, failed: {reason}"),
            "a cause that is known and gone",
            "read its report, which `va-upgrade status` names",
        );
        report.warn("last trial", finding);
    }
    let facts = match (volume, fs_type, disk, boot_uuid) {
        (Some(volume), Some(fs_type), Some(disk), Some(boot_uuid)) if report.ok => Some(Facts {
            target,
            volume,
            fs_type,
            disk,
            boot_uuid,
        }),
        _ => None,
    };
    (report, facts)
}

/// Begins a report by the policies in the settings.
fn start(appliance: &Appliance) -> Report {
    let mut report = Report::new(&appliance.config.checks);
    if !appliance.config.checks.is_empty() {
        report.add("configuration", check_policies(appliance));
    }
    report
}

/// Adds what is to be said of the release that is offered.
fn add_release(report: &mut Report, appliance: &Appliance, offer: Offer) {
    let manifest = offer.manifest;
    report.add("product", release::check_product(appliance, manifest));
    report.add("version", release::check_version(appliance, &offer));
    report.add("processor", release::check_processor(appliance, manifest));
}

/// Adds whether this is a good moment.
fn add_moment(report: &mut Report, appliance: &Appliance, manifest: Option<&Manifest>) {
    report.add("memory", moment::check_memory(appliance));
    report.add("packages", moment::check_packages(appliance));
    let remedy = Hypervisor::of(appliance).set_clock();
    let now = appliance.sys.now();
    if let Some(fault) = manifest.and_then(|it| moment::clock_fault(it.created, now, remedy)) {
        report.warn("clock", fault);
    }
}

/// Looks whether the settings name checks that there are.
fn check_policies(appliance: &Appliance) -> Checked<()> {
    let policies = &appliance.config.checks;
    if let Some(name) = policies
        .keys()
        .find(|name| !NEGOTIABLE.contains(&&name[..]))
    {
        return refuse(
            format!("checks in config.yaml names {name:?}, which is none that can be set"),
            format!("one of {}", NEGOTIABLE.join(", ")),
            "take it out",
        );
    }
    Ok(((), format!("{} checks have a policy", policies.len())))
}
