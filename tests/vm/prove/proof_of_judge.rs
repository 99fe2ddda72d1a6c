//! Judges the judge: what it calls bootable starts, and a byte that is changed in any
//! structure of the boot path is noticed.

use std::fs;
use std::rc::Rc;

use anyhow::{Context, Result, ensure};
use va_upgrade::system::{Cmd, System};

use super::disk_state::{DiskState, Recording};
use super::grub_view::Boot;
use super::judge::{Judge, Verdict};
use super::record::{Mark, Place};
use super::replay::Replay;
use super::volumes::{As, PV_START, file_system, volume};
use crate::appliance::Appliance;
use crate::lab::host;
use crate::lab::tell::say;

/// Changes one byte in each structure that the boot path reads, on the disk of a mark
/// whose committed slot is `slot`.
pub fn notices_harm(judge: &Judge, disk: &DiskState, slot: &str) -> Result<()> {
    let boot = Boot::open(disk)?;
    let mut sector = [0; 512];
    disk.read(0, &mut sector)?;
    let core = u64::from_le_bytes(std::array::from_fn(|byte| sector[0x5c + byte])) * 512;
    let grub = boot.grub(&[])?;
    let start = boot.start(slot, false)?.context("no start")?;
    let root = volume(disk, slot)?;
    let fs = file_system(disk, root, As::Kernel)?;
    disk.take_trace();
    let program = fs
        .read("/lib/systemd/systemd")
        .map_err(|error| anyhow::anyhow!("{error}"))?;
    let program = disk.find_read(&program)?.context("where systemd lies")?;
    let on_boot = |path: &str| boot.byte_of(path);
    let structures = [
        ("boot code", 0x100),
        ("place of the core", 0x5c),
        ("signature of sector 0", 510),
        ("first sector of the core", core + 8),
        ("core", core + 512 + 100),
        ("core, further on", core + 512 * 40),
        (
            "a module",
            on_boot(&format!("{}/i386-pc/normal.mod", grub.dir))?,
        ),
        ("menu", on_boot(&format!("{}/grub.cfg", grub.dir))?),
        ("entry", on_boot(&format!("/va/{slot}/entry.cfg"))?),
        ("kernel", on_boot(&start.kernel)?),
        ("initramfs", on_boot(&format!("/va/{slot}/initrd"))?),
        ("LVM label", PV_START + 512),
        ("LVM metadata", PV_START + 4096 + 8),
        ("superblock of the root", root + 1024 + 0x38),
        ("init of the root", program),
    ];
    for (what, at) in structures {
        let verdict = judge.judge(&disk.harmed(at)).0;
        ensure!(
            verdict.is_err(),
            "with a byte changed in the {what} the verdict is {verdict:?}"
        );
    }
    say(&format!(
        "{} structures: a changed byte is noticed in each",
        structures.len()
    ));
    Ok(())
}

/// Starts machines from `count` of the disks that were judged and compares.
pub fn agrees_with_machines(
    recording: &Rc<Recording>,
    judge: &Judge,
    marks: &[Mark],
    count: usize,
) -> Result<()> {
    let ends = [marks.first(), marks.last()].map(|mark| mark.map_or(0, |mark| mark.log_bytes));
    let [first, last] = ends.map(|bytes| recording.log.entries_before(bytes));
    for number in 0..count {
        // Spread over the whole life.
        let at = first + (last - first) * (2 * number + 1) / (2 * count);
        let mut replay = Replay::new(recording, judge, 0)?;
        let disk = replay.disk_at(at)?;
        let verdict = judge.judge(&disk).0.map_err(anyhow::Error::msg)?;
        let (version, is_trial) = started(&disk, number)?;
        say(&format!(
            "entry {at}: judged {verdict:?}, started {version}"
        ));
        let was = Verdict { version, is_trial };
        ensure!(
            was == verdict,
            "entry {at}: judged {verdict:?}, started {was:?}"
        );
    }
    Ok(())
}

/// Starts a machine from a disk; returns which version runs, and whether on trial.
fn started(disk: &DiskState, number: usize) -> Result<(String, bool)> {
    let place = Place::new();
    let raw = place.base().with_file_name(format!("started-{number}.raw"));
    let copy = Cmd::new("cp").arg("--sparse=always").arg(place.base());
    host().run(&copy.arg(&raw))?;
    disk.write_to(&raw)?;
    let mut appliance = Appliance::of_disk(&format!("judged-{number}"), &raw)?;
    let line = appliance.command_lines().into_iter().next();
    let line = line.context("no kernel was started")?;
    let version = appliance.ok("cat /etc/va-upgrade/release.yaml 2>/dev/null || true")?;
    let version = version
        .lines()
        .find_map(|line| line.strip_prefix("version: "));
    let version = version.unwrap_or(super::record::OLD).trim().to_owned();
    appliance.cut_power()?;
    fs::remove_file(&raw)?;
    Ok((version, line.contains("va.why=trial")))
}
