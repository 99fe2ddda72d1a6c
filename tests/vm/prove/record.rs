//! Records what an appliance's disk sees while it is upgraded, tried, rolled back.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use va_upgrade::system::{Cmd, System};

use crate::appliance::{Appliance, NEXT_RELEASE, RELEASE};
use crate::lab::host;
use crate::lab::tell::say;

/// The version of the system that the appliance was installed with.
pub const OLD: &str = "7.9.0";

/// A moment at which everything was on the disk, and the machine known to start from
/// it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Mark {
    /// What ended here, or nothing where only the test itself changed something.
    pub operation: Option<String>,
    /// How long the write log was.
    pub log_bytes: u64,
    /// The version in each slot.
    pub slots: Vec<(String, String)>,
    /// Whether the installer's GRUB starts the machine.
    pub is_foreign: bool,
}

/// Where a recording is kept.
pub struct Place(PathBuf);

impl Place {
    /// The one place for it.
    pub fn new() -> Place {
        Place(Path::new(env!("CARGO_TARGET_TMPDIR")).join("prove"))
    }

    /// The raw disk of before.
    pub fn base(&self) -> PathBuf {
        self.0.join("base.raw")
    }

    /// Every write since.
    pub fn log(&self) -> PathBuf {
        self.0.join("writes.log")
    }

    fn marks_file(&self) -> PathBuf {
        self.0.join("marks.json")
    }

    /// Returns the marks, oldest first.
    pub fn marks(&self) -> Result<Vec<Mark>> {
        let path = self.marks_file();
        let text = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        Ok(serde_json::from_slice(&text)?)
    }
}

/// A machine that is recorded.
struct Recorder {
    appliance: Appliance,
    place: Place,
    marks: Vec<Mark>,
    slots: [Option<&'static str>; 2],
    is_foreign: bool,
}

impl Recorder {
    fn mark(&mut self, operation: Option<&str>) -> Result<()> {
        self.appliance.ok("sync; sleep 1; sync")?;
        let log_bytes = fs::metadata(self.place.log())?.len();
        let slots = ["root", "back"].into_iter().zip(self.slots);
        let mark = Mark {
            operation: operation.map(str::to_owned),
            log_bytes,
            slots: slots
                .filter_map(|(slot, version)| Some((slot.to_owned(), version?.to_owned())))
                .collect(),
            is_foreign: self.is_foreign,
        };
        say(&format!("recorded: {}", operation.unwrap_or("(prepared)")));
        self.marks.push(mark);
        fs::write(self.place.marks_file(), serde_json::to_vec(&self.marks)?)?;
        Ok(())
    }

    fn ok(&mut self, script: &str) -> Result<()> {
        self.appliance.ok(script).map(drop)
    }
}

/// Makes the disk that a recording starts from.
fn make_base(place: &Place) -> Result<()> {
    fs::create_dir_all(&place.0)?;
    let mut appliance = Appliance::old("prove-base")?;
    appliance.ok("umount /mnt; mkdir -p /etc/cron.d; echo early >/etc/cron.d/lab")?;
    appliance.power_off()?;
    let disk = place.0.join("base.qcow2");
    appliance.keep_disk(&disk)?;
    let convert = Cmd::new("qemu-img").args(["convert", "-O", "raw"]);
    host().run(&convert.arg(&disk).arg(place.base()))?;
    Ok(fs::remove_file(disk)?)
}

/// Records a whole life: first upgrade, rollback, failures, repair.
pub fn record() -> Result<()> {
    let place = Place::new();
    make_base(&place)?;
    File::create(place.log())?;
    let appliance = Appliance::recorded("prove", &place.base(), &place.log())?;
    let mut lab = Recorder {
        appliance,
        place,
        marks: Vec::new(),
        slots: [Some(OLD), None],
        is_foreign: true,
    };
    lab.mark(None)?;

    lab.appliance.apply(RELEASE)?;
    lab.slots[1] = Some(RELEASE);
    lab.is_foreign = false;
    lab.mark(Some("first apply"))?;
    lab.ok("echo late >/etc/cron.d/lab")?;
    lab.mark(None)?;
    lab.appliance.reboot()?;
    lab.appliance.wait_until_committed("back")?;
    lab.mark(Some("trial, late settings, confirm"))?;
    ensure!(
        lab.appliance.ok("cat /etc/cron.d/lab")? == "late",
        "what was changed late was not carried over"
    );

    lab.ok("va-upgrade rollback")?;
    lab.mark(Some("rollback"))?;
    lab.appliance.reboot()?;
    lab.mark(Some("start after the rollback"))?;

    lab.appliance.mount_payload()?;
    lab.ok("echo 'grub-install after' >/run/va-lab-fault")?;
    let output = lab
        .appliance
        .va_upgrade(&format!("apply /mnt/{NEXT_RELEASE}.vab"))?;
    ensure!(output.status == 5, "{output:?}");
    lab.ok("rm /run/va-lab-fault; umount /mnt")?;
    lab.slots[1] = None;
    lab.mark(Some("apply that fails and is undone"))?;

    lab.appliance.apply(NEXT_RELEASE)?;
    lab.slots[1] = Some(NEXT_RELEASE);
    lab.mark(Some("later apply"))?;
    lab.ok("va-upgrade discard")?;
    lab.slots[1] = None;
    lab.mark(Some("discard"))?;

    lab.appliance.apply(NEXT_RELEASE)?;
    lab.slots[1] = Some(NEXT_RELEASE);
    lab.appliance.in_back(
        "mkdir -p etc/va-upgrade/health.d && printf '#!/bin/sh\\nexit 1\\n' \
         >etc/va-upgrade/health.d/10-lab && chmod 755 etc/va-upgrade/health.d/10-lab",
    )?;
    lab.mark(None)?;
    let status = lab.appliance.fail_trial()?;
    ensure!(status["failed"]["reason"] == "health", "{status}");
    lab.mark(Some("trial that fails"))?;

    lab.ok("grub-install --target=i386-pc /dev/vda")?;
    lab.is_foreign = true;
    lab.mark(None)?;
    lab.ok("va-upgrade repair")?;
    lab.is_foreign = false;
    lab.mark(Some("repair"))?;
    lab.appliance.reboot()?;
    ensure!(lab.appliance.status()?["booted"] == "root");
    lab.appliance.cut_power()
}
