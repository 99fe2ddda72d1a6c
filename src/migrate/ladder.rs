//! Which way of migrating fits a machine: the safest one. Pure: facts in, the way
//! and its reasons out.

use std::fmt;

use super::facts::{Area, BootPlace, Facts, Group, Root};
use super::in_place::plan::{self, Plan};
use crate::config::Config;
use crate::disk::lvm::LogicalVolume;

/// Sectors a second GRUB core may take, as before an upgrade.
const CORE_SECTORS: u64 = 240;

/// A way to migrate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rung {
    /// A second root beside the one there is.
    InPlace(Box<Plan>),
    /// Everything anew, from memory.
    InRam,
    /// Something has to be put right first.
    Neither,
}

/// Whether a condition of the first rung is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// It is.
    Fits,
    /// It is in the way.
    Obstacle,
    /// It is in the way of both ways, and somebody can put it right.
    Fault,
}

/// A condition, and what was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it is about.
    pub subject: &'static str,
    /// Whether it is met.
    pub fit: Fit,
    /// What was found.
    pub message: String,
}

/// The way that was chosen, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The way.
    pub rung: Rung,
    /// Every condition of the first rung.
    pub findings: Vec<Finding>,
}

impl Choice {
    /// Returns the choice of a migration that was begun with `plan`.
    pub fn begun(plan: Plan) -> Choice {
        Choice {
            rung: Rung::InPlace(Box::new(plan)),
            findings: vec![fits("begun", "goes on where it was left".to_owned())],
        }
    }

    /// Returns what is in the way of the first rung, in words.
    pub fn obstacles(&self) -> String {
        let found = self.findings.iter().filter(|f| f.fit != Fit::Fits);
        let words: Vec<&str> = found.map(|finding| &finding.message[..]).collect();
        words.join("; ")
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.rung {
            Rung::InPlace(_) => "fits",
            Rung::InRam | Rung::Neither => "does not fit",
        };
        writeln!(f, "in place: {word}")?;
        for finding in &self.findings {
            let mark = match finding.fit {
                Fit::Fits => "ok",
                Fit::Obstacle | Fit::Fault => "no",
            };
            writeln!(f, "  {mark}  {}: {}", finding.subject, finding.message)?;
        }
        match &self.rung {
            Rung::InPlace(plan) => write!(f, "in RAM: not needed\n\nwould do:\n{plan}"),
            Rung::InRam => writeln!(
                f,
                "in RAM: the way that is left; the disk is made anew from memory"
            ),
            Rung::Neither => writeln!(f, "in RAM: not before what is in the way is put right"),
        }
    }
}

/// Chooses the first rung where all its conditions are met, else the second.
pub fn choose(facts: &Facts, config: &Config) -> Choice {
    let mut findings = vec![check_root(facts), check_boot(facts), check_area(facts)];
    let mut made = None;
    if let (Root::Volume { group, volume }, Some(found)) = (&facts.root, &facts.group) {
        findings.push(check_group(group, found));
        findings.push(check_names(group, volume, found, config));
        match plan::make(group, volume, found, facts, config) {
            Ok(plan) => {
                findings.push(fits("room", plan.room_in_words(found.room)));
                findings.extend(plan.left_out.iter().map(|why| fits("layout", why.clone())));
                made = Some(plan);
            }
            Err(short) => findings.push(obstacle("room", short)),
        }
    }
    let is_any = |fit: Fit| findings.iter().any(|finding| finding.fit == fit);
    let is_clear = !is_any(Fit::Obstacle);
    let rung = match made {
        _ if is_any(Fit::Fault) => Rung::Neither,
        Some(plan) if is_clear => Rung::InPlace(Box::new(plan)),
        _ => Rung::InRam,
    };
    Choice { rung, findings }
}

fn check_root(facts: &Facts) -> Finding {
    match &facts.root {
        Root::Other(source) => obstacle(
            "root",
            format!("this system runs from {source}, which is no logical volume"),
        ),
        Root::Volume { group, volume } if volume.segment_type != "linear" => obstacle(
            "root",
            format!(
                "{group}/{} is {}, not linear",
                volume.name, volume.segment_type
            ),
        ),
        Root::Volume { group, volume } => fits(
            "root",
            format!("{group}/{}, {} MiB", volume.name, volume.size_bytes >> 20),
        ),
    }
}

fn check_boot(facts: &Facts) -> Finding {
    match &facts.boot {
        BootPlace::Partition(source) => fits("boot", format!("/boot is on {source}")),
        BootPlace::Mapped(name) => obstacle(
            "boot",
            format!("/boot is on the mapped device {name}, no partition"),
        ),
        BootPlace::OnRoot => obstacle("boot", "there is no /boot of its own".to_owned()),
    }
}

fn check_area(facts: &Facts) -> Finding {
    match &facts.area {
        Area::Free(sectors) if *sectors >= CORE_SECTORS => fits(
            "boot area",
            format!("{sectors} sectors of the bios_grub partition are free"),
        ),
        Area::Free(sectors) => obstacle(
            "boot area",
            format!(
                "the bios_grub partition has {sectors} sectors free beside GRUB, a second one \
                 takes {CORE_SECTORS}"
            ),
        ),
        Area::Missing(why) => obstacle(
            "boot area",
            format!("there is no bios_grub partition for a second GRUB ({why})"),
        ),
    }
}

fn check_group(name: &str, group: &Group) -> Finding {
    let message = match (&group.system_id, group.count) {
        (Some(id), _) => format!(
            "volume group {name} is for the machine {id:?} alone; run \
             `vgchange --systemid '' {name}`"
        ),
        (None, 1) => return fits("volume group", name.to_owned()),
        (None, count) => format!(
            "there are {count} volume groups called {name}; detach the disk that does not \
             belong to this machine"
        ),
    };
    fault("volume group", message)
}

fn check_names(group: &str, root: &LogicalVolume, found: &Group, config: &Config) -> Finding {
    let back = &config.volumes.back;
    let is_there = |name: &String| found.volumes.iter().any(|volume| volume.name == *name);
    if config.vg == group && is_there(back) && is_there(&config.volumes.root) {
        let message = "this system has two roots already; use `va-upgrade apply`";
        return fault("second root", message.to_owned());
    }
    if found.volumes.iter().any(|volume| volume.name == *back) {
        let hint = "set volumes.back in config.yaml to a name that is free";
        let message = match *back == root.name {
            true => format!("the root itself is called {back}, as the second one would be; {hint}"),
            false => format!("there is a volume {group}/{back} already; {hint}"),
        };
        return fault("second root", message);
    }
    fits("second root", format!("{group}/{back} will be made"))
}

fn fits(subject: &'static str, message: String) -> Finding {
    Finding {
        subject,
        fit: Fit::Fits,
        message,
    }
}

fn obstacle(subject: &'static str, message: String) -> Finding {
    Finding {
        subject,
        fit: Fit::Obstacle,
        message,
    }
}

fn fault(subject: &'static str, message: String) -> Finding {
    Finding {
        subject,
        fit: Fit::Fault,
        message,
    }
}
