//! Every check before anything is changed.
//!
//! Checks of the appliance, then, with a bundle, whether it fits. All of them
//! run, so that one report names everything that is wrong.

use std::fs;
use std::path::PathBuf;

use anyhow::{Error, Result, anyhow};
use serde::Serialize;

use super::machine::{BOOT, BOOT_DIR, Machine, boot_disk, slot_volume};
use super::record::ReleaseRecord;
use super::slot_boot;
use crate::boot::core::BootArea;
use crate::boot::entry;
use crate::bundle::Manifest;
use crate::config::Config;
use crate::cpu;
use crate::disk::lvm::{self, LogicalVolume};
use crate::disk::mkfs::FsType;
use crate::disk::{mounts, space};
use crate::failure::{Class, class_of, with_class};
use crate::slot::Slot;
use crate::system::{Cmd, System};
use crate::version;

/// Programs of the running system that the flows call.
const TOOLS: [&str; 13] = [
    "blkid",
    "blockdev",
    "chroot",
    "cp",
    "fsfreeze",
    "ip",
    "lvchange",
    "lvs",
    "mount",
    "pvs",
    "stat",
    "systemctl",
    "vgs",
];

/// What GRUB's modules, fonts and translations take on `/boot`, generously.
const GRUB_BYTES: u64 = 16 << 20;

/// Files that an upgrade makes on `/boot`; GRUB has about 300 modules.
const BOOT_INODES: u64 = 500;

/// Sectors a GRUB core may take: 120 KiB, twice of what was ever seen.
const CORE_SECTORS: u64 = 240;

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Pass,
    /// Worth knowing; not in the way.
    Warn,
    /// In the way.
    Fail,
}

/// One check.
#[derive(Debug, Serialize)]
pub struct Check {
    /// What was checked.
    pub name: &'static str,
    /// How it ended.
    pub verdict: Verdict,
    /// What was found, and for a failure the way out.
    pub message: String,
    #[serde(skip)]
    class: Option<Class>,
}

/// The report of all checks; its JSON form is what `check --json` prints.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The version of this shape.
    pub format: u32,
    /// Whether an upgrade may go ahead.
    pub ok: bool,
    /// The checks in the order they ran.
    pub checks: Vec<Check>,
}

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

impl Report {
    fn new() -> Report {
        Report {
            format: 1,
            ok: true,
            checks: Vec::new(),
        }
    }

    /// Makes the report of what could not be checked any further.
    pub fn refusal(name: &'static str, error: &Error) -> Report {
        Report {
            ok: false,
            checks: vec![Check {
                name,
                verdict: Verdict::Fail,
                message: format!("{error:#}"),
                class: Some(class_of(error)),
            }],
            ..Report::new()
        }
    }

    /// Notes how a check ended; an error keeps its class, else it is a refusal.
    fn add<T>(&mut self, name: &'static str, outcome: Result<(T, String)>) -> Option<T> {
        match outcome {
            Ok((value, message)) => {
                self.checks.push(Check {
                    name,
                    verdict: Verdict::Pass,
                    message,
                    class: None,
                });
                Some(value)
            }
            Err(error) => {
                let class = match class_of(&error) {
                    Class::Unexpected => Class::Refused,
                    class => class,
                };
                let message = format!("{error:#}");
                self.checks.push(Check {
                    name,
                    verdict: Verdict::Fail,
                    message,
                    class: Some(class),
                });
                self.ok = false;
                None
            }
        }
    }

    fn warn(&mut self, name: &'static str, message: String) {
        self.checks.push(Check {
            name,
            verdict: Verdict::Warn,
            message,
            class: None,
        });
    }

    /// Fails with everything that is in the way, classed as the first of it.
    ///
    /// # Errors
    /// When a check failed.
    pub fn require(&self) -> Result<()> {
        let failed: Vec<&Check> = self
            .checks
            .iter()
            .filter(|c| c.verdict == Verdict::Fail)
            .collect();
        let Some(class) = failed.first().and_then(|check| check.class) else {
            return Ok(());
        };
        let messages: Vec<&str> = failed.iter().map(|check| check.message.as_str()).collect();
        Err(with_class(class, anyhow!("{}", messages.join("; "))))
    }
}

/// Runs every check on the machine, and on `manifest` when there is one.
///
/// Returns the report, and what was found when nothing was in the way.
pub fn check(
    sys: &dyn System,
    config: &Config,
    machine: &Machine,
    manifest: Option<&Manifest>,
) -> (Report, Option<Facts>) {
    let mut report = Report::new();
    let target = machine.booted.other();
    if let Some(manifest) = manifest {
        report.add("product", check_product(config, manifest));
        report.add("version", check_version(config, manifest));
        report.add("processor", check_processor(config, manifest));
    }
    report.add("boot state", check_boot_state(machine));
    report.add("tools", check_tools(sys, machine));
    report.add("firmware", check_firmware(config));
    let volume = report.add("volumes", check_volumes(sys, config, target));
    report.add("inactive slot", check_unused(config, target));
    let fs_type = report.add("file system", check_fs_type(machine));
    let disk = report.add("boot disk", check_disk(sys, config));
    let boot_uuid = report.add("boot", check_boot(sys, config, machine));
    report.add("running kernel", check_adoption(config, machine));
    if let (Some(manifest), Some(volume)) = (manifest, &volume) {
        report.add(
            "slot space",
            check_slot_space(config, target, volume, manifest),
        );
        report.add(
            "boot space",
            check_boot_space(sys, config, machine, manifest),
        );
    }
    if let Some((slot, reason)) = machine.state().failed() {
        report.warn(
            "last trial",
            format!("the last trial, in slot {slot}, failed: {reason}"),
        );
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

type Outcome<T> = Result<(T, String)>;

fn check_product(config: &Config, manifest: &Manifest) -> Outcome<()> {
    match ReleaseRecord::of_running(config)?.product {
        Some(product) if product != manifest.product => crate::bad_bundle!(
            "the bundle is for product {:?}, this appliance is {product:?}; use the bundle made for it",
            manifest.product
        ),
        Some(product) => Ok(((), product)),
        None => Ok((
            (),
            "this appliance does not say which product it is; not compared".into(),
        )),
    }
}

fn check_version(config: &Config, manifest: &Manifest) -> Outcome<()> {
    let running = ReleaseRecord::of_running(config)?.version;
    if let Some(min) = &manifest.min_version
        && version::compare(&running, min).is_lt()
    {
        crate::refuse!(
            "version {running} is too old for version {}, which upgrades {min} or newer; upgrade to {min} first",
            manifest.version
        );
    }
    Ok(((), format!("from {running} to {}", manifest.version)))
}

fn check_processor(config: &Config, manifest: &Manifest) -> Outcome<()> {
    if manifest.architecture != "x86_64" {
        crate::refuse!(
            "the bundle is for {}, this machine is x86_64",
            manifest.architecture
        );
    }
    let cpuinfo = fs::read_to_string(config.at("/proc/cpuinfo"))?;
    let missing = cpu::missing_flags(&cpuinfo, manifest.cpu_level);
    if !missing.is_empty() {
        crate::refuse!(
            "version {} needs a processor of level {}; this one lacks {}. \
             On a cluster, raise its CPU compatibility mode (EVC) and restart the machine from power-off",
            manifest.version,
            manifest.cpu_level,
            missing.join(", ")
        );
    }
    Ok(((), format!("{} is there", manifest.cpu_level)))
}

fn check_boot_state(machine: &Machine) -> Outcome<()> {
    let state = machine.state();
    match state.trial() {
        Some(trial) if trial.slot == machine.booted => crate::refuse!(
            "this system, in slot {}, is on trial itself; wait until it is confirmed, or run `va-upgrade confirm`",
            trial.slot
        ),
        _ if state.committed() != machine.booted => crate::refuse!(
            "this system runs from slot {}, but slot {} is the default; restart into it, \
             or run `va-upgrade rollback` to keep this one",
            machine.booted,
            state.committed()
        ),
        _ => Ok(((), format!("slot {} runs and is committed", machine.booted))),
    }
}

fn check_tools(sys: &dyn System, machine: &Machine) -> Outcome<()> {
    let mut wanted = TOOLS.to_vec();
    if let Ok(fs_type) = FsType::from_name(&machine.root_fs_type) {
        wanted.push(fs_type.program());
    }
    let script = "for tool; do command -v \"$tool\" >/dev/null || echo \"$tool\"; done";
    let missing = sys.run(&Cmd::new("sh").args(["-c", script, "sh"]).args(&wanted))?;
    if !missing.trim().is_empty() {
        let names: Vec<&str> = missing.split_whitespace().collect();
        crate::refuse!(
            "these programs are missing on this system: {}",
            names.join(", ")
        );
    }
    Ok(((), format!("{} programs are there", wanted.len())))
}

fn check_firmware(config: &Config) -> Outcome<()> {
    if config.at("/sys/firmware/efi").exists() {
        crate::refuse!("this machine was started by UEFI; only BIOS is supported so far");
    }
    Ok(((), "BIOS".into()))
}

fn check_volumes(sys: &dyn System, config: &Config, target: Slot) -> Outcome<LogicalVolume> {
    let uuids = lvm::group_uuids(sys, &config.vg)?;
    match uuids.as_slice() {
        [] => crate::refuse!(
            "there is no volume group {}; set vg in config.yaml",
            config.vg
        ),
        [_] => {}
        several => crate::refuse!(
            "there are {} volume groups called {} ({}); detach the disk that does not belong to this machine",
            several.len(),
            config.vg,
            several.join(", ")
        ),
    }
    let volumes = lvm::list(sys, &config.vg)?;
    slot_volume(config, &volumes, target.other())?;
    let volume = slot_volume(config, &volumes, target)?.clone();
    let message = format!(
        "{} has {} MiB",
        config.device(target).display(),
        volume.size_bytes >> 20
    );
    Ok((volume, message))
}

fn check_unused(config: &Config, target: Slot) -> Outcome<()> {
    let name = lvm::mapper_name(&config.vg, config.volume(target));
    let table = mounts::read(&config.at("/proc/self/mountinfo"))?;
    for mount in &table {
        let path = config.at(format!("/sys/dev/block/{}/dm/name", mount.device_number));
        if fs::read_to_string(path).is_ok_and(|found| found.trim() == name) {
            crate::refuse!(
                "slot {target} is mounted at {}; unmount it",
                mount.target.display()
            );
        }
    }
    Ok(((), format!("slot {target} is not mounted")))
}

fn check_fs_type(machine: &Machine) -> Outcome<FsType> {
    let fs_type = FsType::from_name(&machine.root_fs_type)?;
    Ok((fs_type, fs_type.name().to_owned()))
}

fn check_disk(sys: &dyn System, config: &Config) -> Outcome<PathBuf> {
    let disk = boot_disk(sys, config)?;
    let area = BootArea::look(&config.at(&disk))?;
    let free = area.free_sectors()?;
    if free < CORE_SECTORS {
        crate::refuse!(
            "the bios_grub partition of {} has {free} sectors free beside the current GRUB, {CORE_SECTORS} are needed; \
             enlarge it to 1 MiB",
            disk.display()
        );
    }
    let message = format!(
        "{}, {free} sectors free for a second GRUB core",
        disk.display()
    );
    Ok((disk, message))
}

fn check_boot(sys: &dyn System, config: &Config, machine: &Machine) -> Outcome<String> {
    if !machine.boot.writable {
        crate::refuse!("/boot is mounted read-only; run `mount -o remount,rw /boot`");
    }
    if !["ext4", "ext3", "ext2", "xfs"].contains(&machine.boot.fs_type.as_str()) {
        crate::refuse!(
            "/boot is {}; GRUB can keep its state on ext4 and XFS",
            machine.boot.fs_type
        );
    }
    if config
        .at(format!("/sys/dev/block/{}/dm", machine.boot.device_number))
        .exists()
    {
        crate::refuse!(
            "/boot is on {}, a mapped device, where GRUB cannot write",
            machine.boot.source
        );
    }
    let uuid = machine.boot_uuid(sys)?;
    let message = format!("{} on {}", machine.boot.fs_type, machine.boot.source);
    Ok((uuid, message))
}

fn check_adoption(config: &Config, machine: &Machine) -> Outcome<()> {
    entry::check(&entry::own_arguments(&machine.cmdline))?;
    if slot_boot::is_whole(config, machine.booted) {
        let message = format!("slot {} has its own boot files", machine.booted);
        return Ok(((), message));
    }
    let kernel = slot_boot::running_kernel(config)?;
    Ok((
        (),
        format!(
            "{} will be kept for slot {}",
            kernel.release, machine.booted
        ),
    ))
}

fn check_slot_space(
    config: &Config,
    target: Slot,
    volume: &LogicalVolume,
    manifest: &Manifest,
) -> Outcome<()> {
    // Inodes of 512 bytes, a journal, and what a file system keeps for itself.
    let tree = &manifest.tree;
    let need = tree.data_bytes + tree.inodes * 512 + (tree.data_bytes / 20).max(64 << 20);
    if volume.size_bytes < need {
        crate::refuse!(
            "{} has {} MiB, version {} needs {} MiB; enlarge the volume with lvextend",
            config.device(target).display(),
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

fn check_boot_space(
    sys: &dyn System,
    config: &Config,
    machine: &Machine,
    manifest: &Manifest,
) -> Outcome<()> {
    let free = space::free(sys, &config.at(BOOT))?;
    let boot = &manifest.boot;
    let mut need = boot.kernel_bytes + boot.initramfs_bytes + GRUB_BYTES;
    if !slot_boot::is_whole(config, machine.booted) {
        let running = slot_boot::running_kernel(config)?;
        need += running.kernel.metadata()?.len() + running.initramfs.metadata()?.len();
    }
    // The old files of the inactive slot go first.
    let freed = directory_bytes(&config.at(BOOT_DIR).join(machine.booted.other().name()));
    if free.bytes + freed < need {
        crate::refuse!(
            "/boot has {} MiB free, version {} needs {} MiB there; remove old kernels",
            (free.bytes + freed) >> 20,
            manifest.version,
            need.div_ceil(1 << 20)
        );
    }
    if let Some(inodes) = free.inodes
        && inodes < BOOT_INODES
    {
        crate::refuse!(
            "/boot has room for {inodes} more files, {BOOT_INODES} are needed; remove old files"
        );
    }
    Ok((
        (),
        format!(
            "{} MiB of {} MiB free",
            need >> 20,
            (free.bytes + freed) >> 20
        ),
    ))
}

fn directory_bytes(dir: &std::path::Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else {
        return 0;
    };
    entries
        .flatten()
        .filter_map(|entry| entry.metadata().ok())
        .map(|meta| meta.len())
        .sum()
}
