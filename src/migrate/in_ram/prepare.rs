//! The checks, and the writing.

use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use anyhow::{Context, Result, anyhow, ensure};

use super::place::{self, Here, INITRAMFS, KERNEL, ORDER};
use super::{cancel, need, one_shot, unit, words};
use crate::appliance::Appliance;
use crate::boot::appended;
use crate::boot::newc::{self, Entry};
use crate::bundle::{
    self, Bundle, Devices, Keyring, Manifest, Rights, Sealed, Trust, UnpackOptions,
};
use crate::disk::space;
use crate::failure::{Class, Classify, with_class};
use crate::linux::initramfs;
use crate::migrate::disk::Disk;
use crate::migrate::located::Located;
use crate::migrate::order::{BundleFile, LogFile, Mode, Order, SettingsFile};
use crate::migrate::rebuild;
use crate::paths::{CONFIG_FILE, REVOKED_FILE, TRUSTED_DIR};
use crate::refuse;
use crate::sha::Sha;
use crate::signals;
use crate::system::files::{self, ScratchDir};

/// Left free in the file system of GRUB's directory, in bytes.
const SPARE_BYTES: u64 = 8 << 20;

/// The largest file of settings that the environment is given, in bytes.
const MAX_SETTING_BYTES: u64 = 1 << 20;

/// What the names of the files beside the bundle end with.
const SETTINGS_END: &str = ".settings";
const LAST_SETTINGS_END: &str = ".last-settings";
const LOG_END: &str = ".migration.json";

/// Writes the settings that come over to a file; some files are none.
pub type Collect<'a> = dyn Fn(&Appliance, &Path, &[&Path]) -> Result<()> + 'a;

/// What to prepare.
pub struct Options<'a> {
    /// The bundle, a file on the machine's disk, by its absolute path.
    pub bundle: &'a Path,
    /// What the environment is to do.
    pub mode: Mode,
    /// How many threads read the bundle.
    pub threads: usize,
    /// Collects the settings.
    pub collect: &'a Collect<'a>,
}

/// What the move will be.
pub struct Prospect {
    /// The version that the machine is moved to.
    pub version: String,
    /// The memory that the move takes at most.
    pub need_bytes: u64,
    /// The archive of what comes over.
    pub settings_bytes: u64,
    /// The disk, such as `/dev/sda`.
    pub disk: PathBuf,
}

/// What the checks found.
struct Facts {
    /// GRUB's directory, as the old system knows it.
    grub: PathBuf,
    /// Where that is.
    boot: Located,
    /// Where the bundle is.
    bundle: Located,
    disk: Disk,
    here: Here,
}

/// Checks all that [`prepare()`] would, but for the content of the bundle, and writes
/// nothing that stays.
///
/// # Errors
/// Class `Refused` or `BadBundle`.
pub fn check(appliance: &Appliance, options: &Options) -> Result<Prospect> {
    let bundle = open(appliance, options.bundle)?;
    let facts = look(appliance, options)?;
    foresee(appliance, options, &facts, bundle)
}

/// Prepares one start of the environment. Writes to GRUB's directory and beside the
/// bundle; what an earlier order has left there goes first.
///
/// # Errors
/// Class `Refused` or `BadBundle` before anything is written, `Undone` when a write
/// failed and everything is as before, `Stuck` when undoing failed.
pub fn prepare(appliance: &Appliance, options: &Options) -> Result<Prospect> {
    let _lock = appliance.lock()?;
    let facts = look(appliance, options)?;
    foresee(appliance, options, &facts, open(appliance, options.bundle)?)?;
    let mut bundle = open(appliance, options.bundle)?;
    let manifest = bundle.manifest().clone();
    let size_bytes = fs::metadata(appliance.at(options.bundle))?.len();
    bundle.verify(options.threads, appliance.progress)?;
    let sha256 = Sha::of_file(&appliance.at(options.bundle))?;
    cancel::remove(appliance)?;
    refuse_others(appliance, &facts.here)?;
    signals::check()?;
    let job = Job {
        appliance,
        options,
        facts,
        manifest,
        bundle: (size_bytes, sha256),
    };
    job.run(bundle)
}

fn open(appliance: &Appliance, path: &Path) -> Result<Bundle<'static>> {
    let keyring = Keyring::load(&appliance.at(TRUSTED_DIR), &appliance.at(REVOKED_FILE))?;
    let (bundle, _) = Sealed::open(&appliance.at(path))?.authenticate(Trust::Signed(&keyring))?;
    if bundle.is_stream() || !appliance.at(path).is_file() {
        refuse!(
            "{} is no file, and the migration environment has to find it; copy it to the disk",
            path.display()
        );
    }
    Ok(bundle)
}

/// Tells what the move would be, and refuses one that cannot end well.
fn foresee(
    appliance: &Appliance,
    options: &Options,
    facts: &Facts,
    bundle: Bundle,
) -> Result<Prospect> {
    let manifest = bundle.manifest().clone();
    check_initramfs(&bundle, &manifest, options.bundle)?;
    check_room(appliance, facts, &manifest)?;
    let scratch = ScratchDir::new()?;
    let archive = scratch.path().join("settings");
    let left_out = facts.here.left_out();
    (options.collect)(appliance, &archive, &left_out).context("collecting the settings")?;
    let settings_bytes = archive.metadata()?.len();
    let bundle_bytes = fs::metadata(appliance.at(options.bundle))?.len();
    let need_bytes = need::bytes(bundle_bytes, settings_bytes, facts.disk.size_bytes);
    need::check(appliance, need_bytes)?;
    let disk = rebuild::plan::Disk {
        size_bytes: facts.disk.size_bytes,
        logical_sector_bytes: facts.disk.logical_sector_bytes,
    };
    rebuild::divide(appliance, bundle, settings_bytes, disk, scratch.path())?;
    Ok(Prospect {
        version: manifest.version,
        need_bytes,
        settings_bytes,
        disk: Path::new("/dev").join(&facts.boot.disk),
    })
}

fn look(appliance: &Appliance, options: &Options) -> Result<Facts> {
    if appliance.at("/sys/firmware/efi").exists() {
        refuse!("this machine was started by UEFI; only BIOS is supported so far");
    }
    let grub = place::find(appliance)?;
    let boot = Located::find(appliance, &grub).class(Class::Refused)?;
    if boot.is_mapped(appliance) {
        refuse!(
            "{} is on a mapped device, where GRUB cannot note that it has started the migration; \
             it could do so again and again",
            grub.display()
        );
    }
    let bundle = Located::find(appliance, options.bundle).class(Class::Refused)?;
    let root = Located::find(appliance, Path::new("/")).class(Class::Refused)?;
    if bundle.disk != boot.disk || root.disk != boot.disk {
        refuse!(
            "the bundle is on disk {}, the system on {} and /boot on {}; all have to be on one",
            bundle.disk,
            root.disk,
            boot.disk
        );
    }
    for place in [&boot, &bundle] {
        if !place.is_writable {
            refuse!("{} is mounted read-only", place.mount_point.display());
        }
    }
    let inside = bundle.inside.strip_prefix("/")?;
    let beside = |end: &str| with_end(&bundle.mount_point.join(inside), end);
    Ok(Facts {
        here: Here {
            bundle: bundle.mount_point.join(inside),
            settings: beside(SETTINGS_END),
            last_settings: beside(LAST_SETTINGS_END),
            log: beside(LOG_END),
        },
        disk: Disk::look(appliance.sys, &boot.disk).class(Class::Refused)?,
        grub,
        boot,
        bundle,
    })
}

/// Refuses a bundle that surely has no environment, before it is read.
fn check_initramfs(bundle: &Bundle, manifest: &Manifest, path: &Path) -> Result<()> {
    let name = initramfs::migration(&manifest.boot.kernel_release);
    let mut chunks = bundle.chunks().iter();
    let may_hold = chunks.any(|chunk| {
        let known = chunk.landmarks.as_ref();
        known.is_none_or(|it| it.names.may_hold(name.as_os_str().as_bytes()))
    });
    if !may_hold {
        refuse!(
            "{} has no migration environment ({}); build it with --environment",
            path.display(),
            name.display()
        );
    }
    Ok(())
}

/// Refuses when kernel and initramfs have no room beside GRUB.
fn check_room(appliance: &Appliance, facts: &Facts, manifest: &Manifest) -> Result<()> {
    let free = space::free(appliance.sys, &appliance.at(&facts.grub))?;
    // How large the environment's initramfs is, the bundle tells once it is read; it is
    // never much larger than the system's own.
    let need = manifest.boot.kernel_bytes + manifest.boot.initramfs_bytes + SPARE_BYTES;
    if free.bytes < need {
        refuse!(
            "{} has {} MiB free, the migration environment takes about {} MiB; remove old kernels",
            facts.grub.display(),
            free.bytes >> 20,
            need.div_ceil(1 << 20)
        );
    }
    Ok(())
}

/// Refuses to replace what is not ours.
fn refuse_others(appliance: &Appliance, here: &Here) -> Result<()> {
    for path in [&here.settings, &here.last_settings, &here.log] {
        if appliance.at(path).symlink_metadata().is_ok() {
            refuse!("{} is there already; move it away", path.display());
        }
    }
    Ok(())
}

/// One run of the steps that write.
struct Job<'a> {
    appliance: &'a Appliance<'a>,
    options: &'a Options<'a>,
    facts: Facts,
    manifest: Manifest,
    bundle: (u64, Sha),
}

impl Job<'_> {
    fn run(&self, bundle: Bundle) -> Result<Prospect> {
        let error = match self.write(bundle) {
            Ok(prepared) => return Ok(prepared),
            Err(error) => error.context("preparing the migration"),
        };
        match cancel::remove(self.appliance) {
            Ok(_) => Err(with_class(Class::Undone, error)),
            Err(left) => Err(with_class(
                Class::Stuck,
                anyhow!(
                    "{error:#}; and undoing it failed: {left:#}; run `va-upgrade migrate --cancel`"
                ),
            )),
        }
    }

    fn write(&self, bundle: Bundle) -> Result<Prospect> {
        let (appliance, facts) = (self.appliance, &self.facts);
        let dir = appliance.at(&facts.grub).join(place::DIR);
        fs::create_dir(&dir).with_context(|| format!("making {}", dir.display()))?;
        facts.here.save(&dir)?;
        let collect = self.options.collect;
        let inside = with_end(&facts.bundle.inside, SETTINGS_END);
        let settings = collect_to(
            appliance,
            &facts.here,
            &facts.here.settings,
            inside,
            collect,
        )?;
        let settings_bytes = settings.size_bytes;
        let (bundle_bytes, disk_bytes) = (self.bundle.0, facts.disk.size_bytes);
        let need_bytes = need::bytes(bundle_bytes, settings_bytes, disk_bytes);
        need::check(appliance, need_bytes)?;
        self.copy_environment(bundle, &dir)?;
        self.order(settings)?.save(&dir.join(ORDER))?;
        let cmdline = fs::read_to_string(appliance.at("/proc/cmdline"))
            .context("reading the kernel command line")?;
        let inside = facts.boot.inside.join(place::DIR);
        let args = words::arguments(&cmdline, &facts.boot.uuid, &inside);
        unit::start(appliance)?;
        place::flush(appliance)?;
        one_shot::arm(&appliance.at(&facts.grub), &args)?;
        place::flush(appliance)?;
        Ok(Prospect {
            version: self.manifest.version.clone(),
            need_bytes,
            settings_bytes,
            disk: Path::new("/dev").join(&facts.boot.disk),
        })
    }

    /// Copies kernel and initramfs out of the bundle; the initramfs gets the keys that
    /// this machine trusts and its settings behind it.
    fn copy_environment(&self, bundle: Bundle, dir: &Path) -> Result<()> {
        let release = &self.manifest.boot.kernel_release;
        let scratch = ScratchDir::new()?;
        let wanted = [
            PathBuf::from(&self.manifest.boot.kernel),
            initramfs::migration(release),
        ];
        let paths = wanted.each_ref().map(|path| path.as_os_str().as_bytes());
        let options = UnpackOptions {
            rights: Rights::OfCaller,
            devices: Devices::Make,
            ..UnpackOptions::new(self.options.threads)
        };
        bundle::unpack_only(
            bundle,
            &paths,
            scratch.path(),
            &options,
            self.appliance.progress,
        )?;
        let [kernel, image] = wanted.map(|path| scratch.path().join(path));
        let addition = appended::behind(&File::open(&image)?, &self.identity()?)?;
        let initramfs = [fs::read(&image)?, addition].concat();
        for (name, content) in [(KERNEL, fs::read(&kernel)?), (INITRAMFS, initramfs)] {
            let path = dir.join(name);
            files::write_atomic(&path, &content, 0o600)?;
            ensure!(
                Sha::of_file(&path)? == Sha::of(&content),
                "{} does not read back as written",
                path.display()
            );
        }
        Ok(())
    }

    /// Renders the archive of what the environment has to know of this machine.
    fn identity(&self) -> Result<Vec<u8>> {
        let mut found = Vec::new();
        for path in [CONFIG_FILE, REVOKED_FILE] {
            found.extend(self.setting(Path::new(path))?);
        }
        let keys = self.appliance.at(TRUSTED_DIR);
        let listed = fs::read_dir(&keys).with_context(|| format!("listing {}", keys.display()))?;
        for entry in listed {
            let name = entry?.file_name();
            if Path::new(&name).extension().is_some_and(|end| end == "pem") {
                found.extend(self.setting(&Path::new(TRUSTED_DIR).join(name))?);
            }
        }
        let dirs = ["etc", "etc/va-upgrade", "etc/va-upgrade/trusted.d"];
        let mut entries: Vec<Entry> = dirs
            .iter()
            .map(|path| Entry {
                path,
                mode: 0o040_755,
                content: &[],
            })
            .collect();
        entries.extend(found.iter().map(|(path, content)| Entry {
            path,
            mode: 0o100_644,
            content,
        }));
        Ok(newc::archive(&entries))
    }

    /// Reads a file of this machine's settings, if it is there.
    fn setting(&self, path: &Path) -> Result<Option<(String, Vec<u8>)>> {
        let real = self.appliance.at(path);
        if !real.exists() {
            return Ok(None);
        }
        let size = real.metadata()?.len();
        ensure!(
            size <= MAX_SETTING_BYTES,
            "{} has {size} bytes, more than {MAX_SETTING_BYTES}",
            path.display()
        );
        let content = fs::read(&real).with_context(|| format!("reading {}", path.display()))?;
        let name = path.to_str().context("a name that is not UTF-8")?;
        Ok(Some((name.trim_start_matches('/').to_owned(), content)))
    }

    fn order(&self, settings: SettingsFile) -> Result<Order> {
        let created = self.appliance.sys.now().duration_since(UNIX_EPOCH);
        Ok(Order {
            format: Order::FORMAT,
            mode: self.options.mode,
            bundle: BundleFile {
                file_system: self.facts.bundle.uuid.clone(),
                path: self.facts.bundle.inside.clone(),
                size_bytes: self.bundle.0,
                sha256: self.bundle.1,
            },
            settings,
            disk: self.facts.disk.clone(),
            log: LogFile {
                path: with_end(&self.facts.bundle.inside, LOG_END),
            },
            created: created.unwrap_or_default().as_secs(),
        })
    }
}

/// Collects the settings to `path`, which is `inside` of its file system.
///
/// # Errors
/// When that fails.
pub(super) fn collect_to(
    appliance: &Appliance,
    here: &Here,
    path: &Path,
    inside: PathBuf,
    collect: &Collect,
) -> Result<SettingsFile> {
    let path = appliance.at(path);
    collect(appliance, &path, &here.left_out()).context("collecting the settings")?;
    let file = File::open(&path).with_context(|| format!("opening {}", path.display()))?;
    file.sync_all()?;
    Ok(SettingsFile {
        path: inside,
        size_bytes: file.metadata()?.len(),
        sha256: Sha::of_file(&path)?,
    })
}

/// Adds `end` to the last name of `path`.
fn with_end(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}
