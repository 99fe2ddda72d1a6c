//! The verdict on a disk: which system it starts, or why none. Nothing is started.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use anyhow::{Context, Result, anyhow, ensure};
use ext4_view::Ext4;
use va_upgrade::sha::Sha;

use super::disk_state::DiskState;
use super::grub_view::{Boot, Start, boot_code, core_in_use};
use super::volumes::{As, file_system, volume};

/// What the kernel needs first, and what shows that a system is whole. The second half
/// is the customer's.
const SYSTEM_FILES: [&str; 6] = [
    "/etc/os-release",
    "/lib/systemd/systemd",
    "/lib/x86_64-linux-gnu/libc.so.6",
    "/bin/bash",
    "/sbin/lvm",
    "/bin/mount",
];
const SETTINGS: [&str; 3] = ["/etc/hostname", "/etc/shadow", "/etc/cron.d/lab"];

/// The system that a disk starts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Verdict {
    /// Its version.
    pub version: String,
    /// Whether this is a counted start, with a system to go back to behind it.
    pub is_trial: bool,
}

/// What disks of which the machine did start hold: the measure for all others.
#[derive(Default)]
pub struct Known {
    boot_codes: HashSet<Sha>,
    cores: Vec<Sha>,
    menus: BTreeSet<String>,
    modules: BTreeSet<String>,
    /// The version of entry, kernel and initramfs.
    starts: HashMap<[Sha; 3], String>,
    /// Files of the system, and the settings it was seen with, by version.
    systems: BTreeMap<String, System>,
}

#[derive(Default)]
struct System {
    files: HashSet<[Sha; 6]>,
    settings: HashSet<[Sha; 3]>,
}

/// Judges disks by what is known.
#[derive(Default)]
pub struct Judge {
    pub known: Known,
    /// Verdicts by what was read for them.
    seen: RefCell<HashMap<Sha, Result<Verdict, String>>>,
}

impl Judge {
    /// Learns from a disk that starts `version` as it is; `versions` are those of the
    /// slots by name. `is_first` says that the GRUB of before starts it.
    pub fn learn(
        &mut self,
        disk: &DiskState,
        versions: &[(&str, &str)],
        is_first: bool,
    ) -> Result<()> {
        let boot = Boot::open(disk)?;
        self.known.boot_codes.insert(boot_code(disk)?);
        if is_first {
            self.known.cores.push(Sha::of(&core_in_use(disk)?));
        }
        let grub = boot.grub(&self.known.cores)?;
        let menu = boot.menu(&grub)?;
        self.known.modules.insert(grub.modules.to_string());
        if is_first {
            let start = boot.old_start(&menu)?;
            let version = versions[0].1.to_owned();
            self.known.starts.insert(start.files, version);
        }
        self.known.menus.insert(menu);
        for (slot, version) in versions {
            if let Some(start) = boot.start(slot, false)? {
                self.known.starts.insert(start.files, (*version).to_owned());
            }
            let fs = self.slot(disk, slot)?;
            let files = digests_of(&fs, SYSTEM_FILES)?;
            let settings = digests_of(&fs, SETTINGS)?;
            let system = self.known.systems.entry((*version).to_owned()).or_default();
            system.files.insert(files);
            system.settings.insert(settings);
        }
        Ok(())
    }

    /// Judges a disk; the other value is a digest of all that was read for it.
    pub fn judge(&self, disk: &DiskState) -> (Result<Verdict, String>, Sha) {
        disk.take_trace();
        let verdict = self.look(disk).map_err(|error| format!("{error:#}"));
        let trace = disk.take_trace();
        let mut seen = self.seen.borrow_mut();
        seen.entry(trace).or_insert_with(|| verdict.clone());
        (verdict, trace)
    }

    /// Returns how many disks differed in what was read for the verdict.
    pub fn distinct(&self) -> usize {
        self.seen.borrow().len()
    }

    fn look(&self, disk: &DiskState) -> Result<Verdict> {
        let boot = Boot::open(disk)?;
        ensure!(
            self.known.boot_codes.contains(&boot_code(disk)?),
            "the boot code is not whole"
        );
        let grub = boot.grub(&self.known.cores)?;
        ensure!(
            self.known.modules.contains(&grub.modules.to_string()),
            "the modules in {} are not whole, or of two builds",
            grub.dir
        );
        let menu = boot.menu(&grub)?;
        ensure!(
            self.known.menus.contains(&menu),
            "the menu in {} is not whole",
            grub.dir
        );
        if grub.dir == "/grub" {
            let start = boot.old_start(&menu)?;
            return self.system(disk, &start);
        }
        let starts = boot.starts()?;
        let verdicts: Result<Vec<Verdict>> = starts
            .iter()
            .map(|start| self.system(disk, start))
            .collect();
        verdicts?.into_iter().next().context("nothing is started")
    }

    /// Judges what lies behind a boot entry.
    fn system(&self, disk: &DiskState, start: &Start) -> Result<Verdict> {
        let slot = start.slot.as_deref().unwrap_or("root");
        let version = self.known.starts.get(&start.files).with_context(|| {
            format!("entry, kernel and initramfs of slot {slot} are of no one system")
        })?;
        let fs = self.slot(disk, slot)?;
        let system = &self.known.systems[version];
        let place = || format!("slot {slot}, whose kernel is that of {version}");
        let files = digests_of(&fs, SYSTEM_FILES).with_context(place)?;
        ensure!(
            system.files.contains(&files),
            "{} has another system",
            place()
        );
        let release = start.kernel.rsplit_once("vmlinuz-").map_or("", |(_, r)| r);
        let modules = format!("/lib/modules/{release}/modules.dep");
        ensure!(
            fs.exists(modules.as_str()).unwrap_or(false),
            "{} has no modules for it",
            place()
        );
        let settings = digests_of(&fs, SETTINGS).with_context(place)?;
        if start.is_trial {
            // Until the trial's first service runs, each file is the old one or the new.
            for (number, sha) in settings.iter().enumerate() {
                let is_known = self.known.systems.values();
                let mut is_known = is_known.flat_map(|system| &system.settings);
                ensure!(
                    is_known.any(|known| known[number] == *sha),
                    "{} has {} of neither side",
                    place(),
                    SETTINGS[number]
                );
            }
        } else {
            ensure!(
                system.settings.contains(&settings),
                "{} has a mix of settings",
                place()
            );
        }
        Ok(Verdict {
            version: version.clone(),
            is_trial: start.is_trial,
        })
    }

    fn slot(&self, disk: &DiskState, slot: &str) -> Result<Ext4> {
        let at = volume(disk, slot)?;
        file_system(disk, at, As::Kernel).with_context(|| format!("the file system of slot {slot}"))
    }
}

fn digests_of<const N: usize>(fs: &Ext4, paths: [&str; N]) -> Result<[Sha; N]> {
    let mut digests = [Sha::of(b""); N];
    for (digest, path) in digests.iter_mut().zip(paths) {
        *digest = match fs.read(path) {
            Ok(content) => Sha::of(&content),
            Err(ext4_view::Ext4Error::NotFound) => Sha::of(b"(none)"),
            Err(error) => return Err(anyhow!("{path}: {error}")),
        };
    }
    Ok(digests)
}
