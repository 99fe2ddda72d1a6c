//! The disk made anew from what lies in RAM: a bundle and the settings of the old system.
//!
//! 1. before: bundle and settings are proved, the disk is divided on paper, the layout
//!    tried on a sparse file ([`twin`]), the edges of the disk copied to RAM ([`edges`]).
//!    A failure here has changed nothing;
//! 2. [`Step::Table`], the point of no return: the new table is written, and the kernel
//!    reads it. A failure that does not go away puts the edges back, and the disk is the
//!    old system's again, byte for byte;
//! 3. from [`Step::Wipe`] on there is no way back, and each step is taken again, up to
//!    [`ATTEMPTS`] times ([`system`] has those that make the new system). What cannot
//!    succeed stops there, with everything in RAM kept;
//! 4. everything is read back from the disk, and the last write is the sector that
//!    makes it start.
//!
//! How it ended is the class of the error: `Refused` and `BadBundle` changed nothing,
//! `Undone` restored the disk; after each of them the old system starts. After `Stuck`
//! nothing starts: whoever called keeps the machine running and gives a shell.

mod edges;
mod inherit;
pub mod plan;
mod reporter;
mod step;
mod system;
mod target;
pub mod twin;

use std::cell::Cell;
use std::fs::{self, File};
use std::io::{Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Error, Result, anyhow};

use self::edges::Edges;
use self::plan::{Disk, Needs, Plan};
use self::reporter::Reporter;
pub use self::step::Step;
use self::system::Build;
use self::target::Target;
use super::settings::{self, Facts};
use crate::appliance::{Appliance, cards};
use crate::boot::entry;
use crate::bundle::{
    Bundle, Devices, FilesReader, Keyring, Manifest, Rights, Sealed, Trust, UnpackOptions,
    unpack_only,
};
use crate::config::{Config, Layout};
use crate::disk::mkfs::{self, FsType};
use crate::disk::space;
use crate::failure::{Class, class_of, with_class};
use crate::install::settle::Carrying;
use crate::paths::{CONFIG_FILE, MIGRATION_DIR};
use crate::progress::Silent;
use crate::sha::Sha;
use crate::system::files;

/// How often a step is tried.
pub const ATTEMPTS: u32 = 3;

/// Between two attempts: a device that is still held, or storage that stalls.
const PAUSE: Duration = Duration::from_secs(5);

/// What is called of the system that it runs in, and `mkfs.xfs` for volumes of XFS.
pub const TOOLS: [&str; 11] = [
    "blkid",
    "blockdev",
    "chroot",
    "cp",
    "fsfreeze",
    "losetup",
    "lvm",
    "mkfs.ext4",
    "sh",
    "sync",
    "udevadm",
];

/// What lies in RAM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    /// The bundle.
    pub bundle: PathBuf,
    /// The archive of the old system's settings.
    pub settings: PathBuf,
    /// The disk, as a path of the machine, such as `/dev/sda`.
    pub disk: PathBuf,
    /// The directory of trusted keys; the list of revoked ones is beside it.
    pub trusted: PathBuf,
    /// A directory in RAM for what comes and goes.
    pub work: PathBuf,
}

/// Makes the disk anew. On success the machine is to be restarted.
///
/// # Errors
/// By their class, see the module. Class `Stuck` says what a person must do.
pub fn run(appliance: &Appliance, payload: &Payload) -> Result<()> {
    let reporter = Reporter::new(appliance.progress);
    let prepared = prepare(appliance, payload, &reporter)?;
    let job = Job {
        run: reporter::now(),
        reporter: &reporter,
        target: &prepared.target,
        build: Build::new(appliance, payload, &prepared),
        edges: &prepared.edges,
    };
    job.undoable()?;
    job.through()
}

/// Divides `disk` for the release in `bundle` and an archive of settings of so many
/// bytes, by the layout of the appliance's settings or else of the release's; `work` is
/// a directory for what comes and goes. Changes nothing else.
///
/// # Errors
/// Class `Refused`, with the numbers, when the disk is too small.
pub fn divide(
    appliance: &Appliance,
    bundle: Bundle,
    settings_bytes: u64,
    disk: Disk,
    work: &Path,
) -> Result<Plan> {
    let needs = needs(bundle.manifest(), settings_bytes);
    let config = appliance.config;
    let layout = match config.layout == Layout::default() {
        true => layout_of_release(bundle, work)?.unwrap_or_default(),
        false => config.layout.clone(),
    };
    plan::plan(disk, &layout, &config.volumes, needs)
}

/// Measures the disk at `path`, a path of the machine.
///
/// # Errors
/// When it cannot be opened.
pub fn measure(appliance: &Appliance, path: &Path) -> Result<Disk> {
    let opened = File::open(appliance.at(path));
    let size = opened.and_then(|mut file| file.seek(SeekFrom::End(0)));
    let name = path.file_name().context("a disk without a name")?;
    let queue = appliance.at("/sys/class/block").join(name).join("queue");
    let sector = fs::read_to_string(queue.join("logical_block_size")).unwrap_or_default();
    Ok(Disk {
        size_bytes: size.with_context(|| format!("measuring {}", path.display()))?,
        logical_sector_bytes: sector.trim().parse().unwrap_or(512),
    })
}

/// What is to have room: in `/boot` two systems, and of one of them a second kernel; on
/// the data volume the archive, and once more what of it no rule knows.
fn needs(manifest: &Manifest, settings_bytes: u64) -> Needs {
    const GRUB_BYTES: u64 = 64 << 20;
    const FILES: u64 = 10_000;
    let kernel = manifest.boot.kernel_bytes + manifest.boot.initramfs_bytes;
    Needs {
        slot_bytes: space::needed_bytes(manifest.tree.data_bytes, manifest.tree.inodes),
        boot_bytes: 3 * kernel + GRUB_BYTES,
        data_bytes: space::needed_bytes(2 * settings_bytes, FILES),
    }
}

fn layout_of_release(bundle: Bundle, work: &Path) -> Result<Option<Layout>> {
    let path = CONFIG_FILE.trim_start_matches('/');
    let list = bundle.files()?.unwrap_or_default();
    let mut is_there = false;
    if !list.is_empty() {
        let mut reader = FilesReader::new(&list[..])?;
        while let Some(line) = reader.next_line()? {
            is_there |= line.path == path && line.kind == "file";
        }
    }
    if !is_there {
        return Ok(None);
    }
    let dir = work.join("release");
    files::remove_tree(&dir)?;
    fs::create_dir(&dir).with_context(|| format!("making {}", dir.display()))?;
    let options = UnpackOptions {
        threads: 1,
        devices: Devices::Refuse,
        rights: Rights::OfCaller,
    };
    unpack_only(bundle, &[path.as_bytes()], &dir, &options, &Silent)?;
    let text = fs::read_to_string(dir.join(path)).context("reading the release's settings")?;
    let config = Config::parse(&text).context("reading the release's settings")?;
    files::remove_tree(&dir)?;
    Ok(Some(config.layout))
}

/// What stands before anything is changed.
struct Prepared<'a> {
    manifest: Manifest,
    facts: Facts,
    /// The old system's files, unpacked.
    old_root: PathBuf,
    sha256: Sha,
    fs_type: FsType,
    target: Target<'a>,
    edges: Edges,
}

/// Opens the bundle in RAM and proves who signed it.
fn open(payload: &Payload) -> Result<Bundle<'static>> {
    let revoked = payload.trusted.with_file_name("revoked");
    let keyring = Keyring::load(&payload.trusted, &revoked)?;
    let (bundle, _) = Sealed::open(&payload.bundle)?.authenticate(Trust::Signed(&keyring))?;
    Ok(bundle)
}

fn prepare<'a>(
    appliance: &Appliance<'a>,
    payload: &Payload,
    reporter: &Reporter,
) -> Result<Prepared<'a>> {
    let at = Cell::new(Step::Prove);
    let begin = |step| at.set(step);
    let prepare = || -> Result<Prepared<'a>> {
        let mut bundle = open(payload)?;
        bundle.verify(system::threads(), &Silent)?;
        let manifest = bundle.manifest().clone();
        let sha256 = Sha::of_file(&payload.settings)?;
        let old_root = payload.work.join("settings");
        settings::open(&payload.settings, &sha256, &old_root)?;
        let facts = look_into(&old_root)?;
        reporter.say(
            Step::Prove,
            &format!("version {} is whole", manifest.version),
        );

        begin(Step::Plan);
        let disk = measure(appliance, &payload.disk)?;
        let settings_bytes = payload.settings.metadata()?.len();
        let plan = divide(appliance, bundle, settings_bytes, disk, &payload.work)?;
        let fs_type = file_system(appliance, &facts)?;
        for volume in &plan.volumes {
            let mib = plan.volume_bytes(&volume.name) >> 20;
            reporter.say(Step::Plan, &format!("{} {mib} MiB", volume.name));
        }

        begin(Step::Twin);
        let config = appliance.config;
        twin::try_out(appliance.sys, &plan, &config.vg, &payload.work)?;
        reporter.say(Step::Twin, "the layout can be made");

        begin(Step::Hold);
        let edges = Edges::save(&appliance.at(&payload.disk), disk.size_bytes)?;
        let target = Target::new(appliance, &payload.disk, plan);
        // The kernel does so only while nobody uses a partition.
        target.reread()?;
        reporter.say(Step::Hold, "nothing holds the disk");
        Ok(Prepared {
            manifest,
            facts,
            old_root,
            sha256,
            fs_type,
            target,
            edges,
        })
    };
    prepare().map_err(|error| {
        reporter.say(at.get(), &format!("failed, nothing was changed: {error:#}"));
        let class = match class_of(&error) {
            Class::BadBundle => Class::BadBundle,
            _ => Class::Refused,
        };
        with_class(class, error.context(at.get().to_string()))
    })
}

/// Reads what is told of the old system, and sees that a new one can be made of it:
/// what is found out later is found out too late.
fn look_into(old_root: &Path) -> Result<Facts> {
    let told = old_root.join(MIGRATION_DIR.trim_start_matches('/'));
    let facts = Facts::load(&told)?;
    for name in system::BASELINE {
        let path = told.join(name);
        let there = path.metadata().map(drop);
        there.with_context(|| format!("looking for {}", path.display()))?;
    }
    files::read_yaml::<cards::Record>(&told.join(cards::FILE))?;
    let words: Vec<String> = inherit::cmdline(&facts.cmdline)
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    entry::check(&words)?;
    Ok(facts)
}

/// Chooses the file system of the volumes: that of the old root where it can be made.
fn file_system(appliance: &Appliance, facts: &Facts) -> Result<FsType> {
    let can_make = |fs_type| mkfs::command(appliance.sys, fs_type, "x".as_ref(), 1 << 30, 1);
    let of_old = FsType::from_name(&facts.root_fs_type).unwrap_or(FsType::Ext4);
    match can_make(of_old) {
        Ok(_) => Ok(of_old),
        // `/boot` is ext4 anyway.
        Err(_) => can_make(FsType::Ext4).map(|_| FsType::Ext4),
    }
}

/// The steps that change the disk.
struct Job<'a> {
    /// Tells this run from others in the log area.
    run: u64,
    reporter: &'a Reporter<'a>,
    target: &'a Target<'a>,
    build: Build<'a>,
    edges: &'a Edges,
}

impl Job<'_> {
    /// Takes the steps that can be undone, and undoes them when one fails for good.
    fn undoable(&self) -> Result<()> {
        let Err((step, error)) = self.take(&Step::UNDOABLE) else {
            return Ok(());
        };
        self.reporter.close_log();
        match self.edges.restore() {
            Ok(()) => {
                // The machine restarts anyway; until then, what the kernel knows of
                // the disk is as old as it may be.
                let _ = self.target.reread();
                let text = format!("failed; the disk is as it was before: {error:#}");
                self.reporter.say(step, &text);
                Err(with_class(Class::Undone, error.context(step.to_string())))
            }
            Err(undo_error) => {
                let error = error.context(format!(
                    "putting the old partition table back failed too: {undo_error:#}"
                ));
                Err(self.stop(step, &error))
            }
        }
    }

    /// Takes the rest.
    fn through(&self) -> Result<()> {
        match self.take(&Step::FINAL) {
            Ok(()) => Ok(()),
            Err((step, error)) => Err(self.stop(step, &error)),
        }
    }

    /// Takes `steps`, each up to [`ATTEMPTS`] times.
    fn take(&self, steps: &[Step]) -> Result<(), (Step, Error)> {
        let mut failures = vec![0; steps.len()];
        let mut at = 0;
        while let Some(step) = steps.get(at).copied() {
            let Err(error) = self.step(step, failures[at]) else {
                self.reporter.say(step, "done");
                at += 1;
                continue;
            };
            failures[at] += 1;
            let text = format!("attempt {} of {ATTEMPTS} failed: {error:#}", failures[at]);
            self.reporter.say(step, &text);
            if failures[at] == ATTEMPTS {
                return Err((step, error));
            }
            self.target.appliance.sys.wait(PAUSE);
            let again = step.again_from();
            at = steps.iter().position(|step| *step == again).unwrap_or(at);
        }
        Ok(())
    }

    /// Takes one step, which has failed `failures` times before.
    fn step(&self, step: Step, failures: u32) -> Result<()> {
        let target = self.target;
        let build = &self.build;
        match step {
            Step::Table => {
                self.reporter
                    .say(step, "the point of no return: the disk gets a new table");
                self.edges.clear()?;
                target.write_table()?;
                self.reporter.open_log(&target.disk_file(), self.run);
                Ok(())
            }
            Step::Nodes => target.await_partitions(),
            Step::Wipe => target.wipe_partitions(),
            Step::Group => target.make_group(),
            Step::Format => build.format(),
            Step::Unpack => build.unpack(),
            Step::ReadBack => build.read_back(),
            // A system without what is the customer's can be mended; none cannot.
            Step::Settle if failures + 1 == ATTEMPTS => {
                self.reporter.say(
                    step,
                    "going on without what is the customer's; it is kept apart",
                );
                build.settle(self.run, Carrying::Nothing)
            }
            Step::Settle => build.settle(self.run, Carrying::ByRules),
            Step::BootFiles => build.write_boot_files(),
            Step::Grub => build.install_grub(),
            Step::Commit => build.commit(),
            Step::Verify => build.verify(),
            Step::Start => build.start(),
            Step::Prove | Step::Plan | Step::Twin | Step::Hold => Ok(()),
        }
    }

    /// Says what a person reads on the console, and returns it as the error.
    fn stop(&self, step: Step, error: &Error) -> Error {
        let text = format!(
            "STOPPED. This disk starts no system. Do not restart this machine: the new system is \
             in its memory only. Ask support for help and give the code {}",
            step.code()
        );
        self.reporter.say(step, &text);
        with_class(Class::Stuck, anyhow!("{step}: {error:#}. {text}"))
    }
}
