//! The way to the moment at which everything is in memory and nobody holds the disk.

use std::cell::{Cell, RefCell};
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::libc;

use super::meter::Meter;
use super::old_disk::{self, Access, with_file_system};
use super::step::Step;
use crate::appliance::Appliance;
use crate::bundle::{Keyring, Sealed, Trust};
use crate::migrate::in_ram::one_shot;
use crate::migrate::in_ram::place::ORDER;
use crate::migrate::in_ram::words::WORD;
use crate::migrate::order::{Mode, Order};
use crate::migrate::outcome::{Memory, StepTime};
use crate::migrate::rebuild::{self, Payload};
use crate::paths::{MEMORY_MOUNT, REVOKED_FILE, TRUSTED_DIR};
use crate::sha::Sha;
use crate::system::{Cmd, Mount, Mounted, files};

/// What has to stay free beside the copies, for the program and the tools.
const WORK_BYTES: u64 = 96 << 20;

/// Room for what is made beside the copies: the edges of the disk, its sparse twin, and
/// what small files take more than their content.
const SPARE_BYTES: u64 = 48 << 20;

/// How much is copied between two looks at the memory.
const STEP_BYTES: u64 = 16 << 20;

/// How often the disk is tried; udev may look at it.
const TRIES: usize = 20;
const PAUSE: Duration = Duration::from_millis(500);

/// Drivers that nothing loads by itself.
const DRIVERS: [&str; 2] = ["loop", "dm_mod"];

/// Tools that only some systems have.
const OPTIONAL_TOOLS: [(&str, &str); 1] = [("mkfs.xfs", "-V")];

/// All that is needed, and the disk.
pub struct Ready<'a> {
    /// What lies in memory, and the disk that nobody holds.
    pub payload: Payload,
    _memory: Mounted<'a>,
}

/// The order, and what was done for it so far.
pub struct Journey<'a> {
    appliance: &'a Appliance<'a>,
    meter: Meter<'a>,
    order: RefCell<Option<Order>>,
    step: Cell<Step>,
    times: RefCell<Vec<StepTime>>,
    lines: RefCell<Vec<String>>,
}

impl<'a> Journey<'a> {
    /// Begins.
    pub fn new(appliance: &'a Appliance<'a>) -> Journey<'a> {
        Journey {
            appliance,
            meter: Meter::new(appliance),
            order: RefCell::default(),
            step: Cell::new(Step::Order),
            times: RefCell::default(),
            lines: RefCell::default(),
        }
    }

    /// Goes all the way.
    ///
    /// # Errors
    /// What the [step](Journey::step) failed with.
    pub fn go(&self) -> Result<Ready<'a>> {
        let sys = self.appliance.sys;
        let order = self.take(Step::Order, || self.start())?;
        let disk = self.take(Step::Disk, || order.disk.find(sys))?;
        let memory = self.take(Step::Memory, || self.make_room(&order))?;
        let bundle = memory.path().join("bundle.vab");
        let settings = memory.path().join("settings");
        let work = memory.path().join("work");
        self.take(Step::Copy, || self.copy(&order, &bundle, &settings))?;
        self.take(Step::Digest, || compare(&order, &bundle, &settings))?;
        self.take(Step::Signature, || self.check_bundle(&bundle))?;
        self.take(Step::Tools, || self.try_tools())?;
        self.take(Step::Release, || self.release(&disk))?;
        fs::create_dir(&work).with_context(|| format!("making {}", work.display()))?;
        Ok(Ready {
            payload: Payload {
                bundle,
                settings,
                disk,
                trusted: self.appliance.at(TRUSTED_DIR),
                work,
            },
            _memory: memory,
        })
    }

    /// Returns the step that is being done, or was last.
    pub fn step(&self) -> Step {
        self.step.get()
    }

    /// Returns what is to be done, once that is known.
    pub fn mode(&self) -> Option<Mode> {
        self.order.borrow().as_ref().map(|order| order.mode)
    }

    /// Returns the order, once it was read.
    pub fn order(&self) -> Option<Order> {
        self.order.borrow().clone()
    }

    /// Returns how long each step took.
    pub fn times(&self) -> Vec<StepTime> {
        self.times.borrow().clone()
    }

    /// Looks how much memory is in use.
    pub fn look(&self) {
        self.meter.look();
    }

    /// Returns what it took of the memory.
    pub fn memory(&self) -> Memory {
        self.meter.memory()
    }

    /// Returns all that was said.
    pub fn lines(&self) -> Vec<String> {
        self.lines.borrow().clone()
    }

    /// Says a line, with the code of the step.
    pub fn say(&self, text: &str) {
        let line = format!("{} {text}", self.step.get().code());
        self.appliance.progress.note(&format!("va-upgrade {line}"));
        self.lines.borrow_mut().push(line);
    }

    fn take<T>(&self, step: Step, work: impl FnOnce() -> Result<T>) -> Result<T> {
        self.step.set(step);
        self.say(step.name());
        let started = Instant::now();
        let outcome = work();
        self.meter.look();
        let time = StepTime::new(step.code(), step.name(), started.elapsed());
        self.times.borrow_mut().push(time);
        outcome
    }

    /// Finds the order and sees to it that it is never started again, by nobody: it is
    /// noted beside it, and GRUB no longer knows of it.
    fn start(&self) -> Result<Order> {
        let path = self.appliance.at("/proc/cmdline");
        let cmdline =
            fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let (uuid, dir) = place_of_order(&cmdline)?;
        with_file_system(self.appliance, &uuid, Access::Write, |root| {
            let dir = old_disk::inside(root, &dir);
            let noted = one_shot::note_start(&dir);
            let grub = dir.parent().context("the order is in no directory")?;
            one_shot::disarm(grub)?;
            let order = Order::load(&dir.join(ORDER))?;
            // Whoever started it twice still finds out why nothing came of it.
            *self.order.borrow_mut() = Some(order.clone());
            noted.map(|()| order)
        })
    }

    /// Mounts a file system in memory that holds the copies, if they leave enough.
    fn make_room(&self, order: &Order) -> Result<Mounted<'a>> {
        // The settings are opened beside their archive.
        let settings = order.settings.size_bytes.checked_mul(2);
        let copies = settings.and_then(|it| it.checked_add(order.bundle.size_bytes));
        let size = copies.and_then(|it| it.checked_add(SPARE_BYTES));
        let size = size.context("the order has impossible sizes")?;
        let free = self
            .meter
            .look()
            .context("the kernel does not tell what is free")?;
        ensure!(
            free >= size.saturating_add(WORK_BYTES),
            "{} MiB of memory are free, {} MiB are needed",
            free >> 20,
            size.saturating_add(WORK_BYTES) >> 20
        );
        let point = self.appliance.at(MEMORY_MOUNT);
        let options = format!("mode=0700,size={}k", size.div_ceil(1 << 10));
        let mount = Mount::device(Path::new("tmpfs"), &point, "tmpfs", &options);
        Mounted::new(self.appliance.sys, &mount)
    }

    fn copy(&self, order: &Order, bundle: &Path, settings: &Path) -> Result<()> {
        let uuid = &order.bundle.file_system;
        with_file_system(self.appliance, uuid, Access::Read, |root| {
            let (from, size) = (&order.bundle.path, order.bundle.size_bytes);
            self.copy_file(&old_disk::inside(root, from), bundle, size)?;
            let (from, size) = (&order.settings.path, order.settings.size_bytes);
            self.copy_file(&old_disk::inside(root, from), settings, size)
        })
    }

    fn copy_file(&self, from: &Path, to: &Path, size: u64) -> Result<()> {
        let copy = || -> Result<()> {
            let (source, mut copy) = (File::open(from)?, File::create_new(to)?);
            ensure!(
                source.metadata()?.len() == size,
                "it has {} bytes, not {size}",
                source.metadata()?.len()
            );
            let mut done = 0;
            while done < size {
                let step = STEP_BYTES.min(size - done);
                files::copy_bytes(&source, done, &mut copy, step)?;
                self.meter.look();
                done += step;
            }
            Ok(())
        };
        copy().with_context(|| format!("copying {} into memory", from.display()))?;
        let name = from.file_name().unwrap_or_default().to_string_lossy();
        self.say(&format!("{name}: {} MiB in memory", size.div_ceil(1 << 20)));
        Ok(())
    }

    fn check_bundle(&self, path: &Path) -> Result<()> {
        let appliance = self.appliance;
        let keyring = Keyring::load(&appliance.at(TRUSTED_DIR), &appliance.at(REVOKED_FILE))?;
        let (bundle, key) = Sealed::open(path)?.authenticate(Trust::Signed(&keyring))?;
        let manifest = bundle.manifest();
        let key = key
            .map(|key| format!(", signed by {key}"))
            .unwrap_or_default();
        self.say(&format!("{} {}{key}", manifest.product, manifest.version));
        Ok(())
    }

    fn try_tools(&self) -> Result<()> {
        let load = Cmd::new("modprobe").arg("-a").args(DRIVERS);
        self.appliance.sys.run(&load)?;
        for (tool, arg) in rebuild::TOOLS {
            self.appliance.sys.run(&Cmd::new(tool).arg(arg))?;
        }
        for (tool, arg) in OPTIONAL_TOOLS {
            let is_there = ["/sbin", "/usr/sbin"]
                .iter()
                .any(|dir| self.appliance.at(dir).join(tool).exists());
            if is_there {
                self.appliance.sys.run(&Cmd::new(tool).arg(arg))?;
            }
        }
        Ok(())
    }

    /// Gives up whatever is on `disk` and proves that it is given up: the kernel lets
    /// nobody open a disk exclusively of which a part is in use (open(2), `O_EXCL`).
    fn release(&self, disk: &Path) -> Result<()> {
        let swaps = self.appliance.at("/proc/swaps");
        let text = fs::read_to_string(&swaps).unwrap_or_default();
        if let Some(line) = text.lines().nth(1) {
            bail!("swap is in use: {line}");
        }
        old_disk::deactivate(self.appliance.sys)?;
        let path = self.appliance.at(disk);
        let mut tries = 0..TRIES;
        loop {
            let opened = OpenOptions::new()
                .read(true)
                .custom_flags(libc::O_EXCL)
                .open(&path);
            match opened {
                Ok(_) => return Ok(()),
                Err(_) if tries.next().is_some() => self.appliance.sys.wait(PAUSE),
                Err(error) => {
                    return Err(error).with_context(|| format!("{} is in use", disk.display()));
                }
            }
        }
    }
}

/// Compares what is in memory with what the old system had read.
fn compare(order: &Order, bundle: &Path, settings: &Path) -> Result<()> {
    for (what, path, wanted) in [
        ("the bundle", bundle, order.bundle.sha256),
        ("the settings", settings, order.settings.sha256),
    ] {
        let found = Sha::of_file(path)?;
        ensure!(
            found == wanted,
            "{what} came into memory damaged, with digest {found}, not {wanted}"
        );
    }
    Ok(())
}

/// Returns where the order is: the UUID of a file system and a directory in it.
fn place_of_order(cmdline: &str) -> Result<(String, PathBuf)> {
    let words = cmdline.split_whitespace();
    let mut values = words.filter_map(|word| word.strip_prefix(WORD));
    let place = values.next_back().and_then(|value| value.split_once(':'));
    let (uuid, dir) = place.context("the kernel was not told where the order is")?;
    Ok((uuid.to_owned(), PathBuf::from(dir)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_told_where_the_order_is() {
        let line = "root=x va.migrate=1:/no ro va.migrate=2-3:/boot/grub/va-migrate quiet\n";
        let wanted = ("2-3".to_owned(), "/boot/grub/va-migrate".into());
        assert_eq!(place_of_order(line).unwrap(), wanted);
        assert!(place_of_order("root=x").is_err());
    }
}
