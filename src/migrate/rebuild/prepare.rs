//! What goes before the point of no return: everything is proved, planned and tried.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::edges::Edges;
use super::inherit;
use super::payload::{Payload, open, threads};
use super::plan::{self, Disk, Needs, Plan};
use super::reporter::Reporter;
use super::step::Step;
use super::target::Target;
use super::twin;
use crate::appliance::{Appliance, before, cards, network, services};
use crate::boot::entry;
use crate::bundle::{Bundle, Devices, FilesReader, Manifest, Rights, UnpackOptions, unpack_only};
use crate::config::{Config, Layout};
use crate::disk::mkfs::{self, FsType};
use crate::disk::space;
use crate::failure::{Class, class_of, with_class};
use crate::migrate::settings::{self, Facts};
use crate::paths::{CONFIG_FILE, MOVED_DIR};
use crate::progress::Silent;
use crate::sha::Sha;
use crate::system::files;

/// What is written down of the old system for the health of the new one.
pub const BASELINE: [&str; 4] = [network::FILE, cards::FILE, services::FILE, before::FILE];

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
pub struct Prepared<'a> {
    /// What the bundle says of itself.
    pub manifest: Manifest,
    /// What is told of the old system.
    pub facts: Facts,
    /// The old system's files, unpacked.
    pub old_root: PathBuf,
    /// The SHA-256 of the archive of settings.
    pub sha256: Sha,
    /// The file system of the volumes.
    pub fs_type: FsType,
    /// The disk.
    pub target: Target<'a>,
    /// Its edges as they were.
    pub edges: Edges,
}

/// Does all that goes before the point of no return. Writes nothing to the disk.
///
/// # Errors
/// Class `BadBundle` or `Refused`, with the step's code.
pub fn prepare<'a>(
    appliance: &Appliance<'a>,
    payload: &Payload,
    reporter: &Reporter,
) -> Result<Prepared<'a>> {
    let prepare = || -> Result<Prepared<'a>> {
        reporter.begin(Step::Prove);
        let mut bundle = open(payload)?;
        bundle.verify(threads(), &Silent)?;
        let manifest = bundle.manifest().clone();
        let sha256 = Sha::of_file(&payload.settings)?;
        let old_root = payload.work.join("settings");
        settings::open(&payload.settings, &sha256, &old_root)?;
        let facts = look_into(&old_root)?;
        reporter.say(
            Step::Prove,
            &format!("version {} is whole", manifest.version),
        );

        reporter.begin(Step::Plan);
        let disk = measure(appliance, &payload.disk)?;
        let settings_bytes = payload.settings.metadata()?.len();
        let plan = divide(appliance, bundle, settings_bytes, disk, &payload.work)?;
        let fs_type = file_system(appliance, &facts)?;
        for volume in &plan.volumes {
            let mib = plan.volume_bytes(&volume.name) >> 20;
            reporter.say(Step::Plan, &format!("{} {mib} MiB", volume.name));
        }

        reporter.begin(Step::Twin);
        let config = appliance.config;
        twin::try_out(appliance.sys, &plan, &config.vg, &payload.work)?;
        reporter.say(Step::Twin, "the layout can be made");

        reporter.begin(Step::Hold);
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
    let prepared = prepare();
    reporter.end();
    prepared.map_err(|error| {
        let step = reporter.step().unwrap_or(Step::Prove);
        reporter.say(step, &format!("failed, nothing was changed: {error:#}"));
        let class = match class_of(&error) {
            Class::BadBundle => Class::BadBundle,
            _ => Class::Refused,
        };
        with_class(class, error.context(step.to_string()))
    })
}

/// Reads what is told of the old system, and sees that a new one can be made of it:
/// what is found out later is found out too late.
fn look_into(old_root: &Path) -> Result<Facts> {
    let told = old_root.join(MOVED_DIR.trim_start_matches('/'));
    let facts = Facts::load(&told)?;
    for name in BASELINE {
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
