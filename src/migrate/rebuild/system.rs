//! The steps that make the new system, in the slot `root` of the new disk.

use std::cell::{Cell, RefCell};
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::inherit;
use super::payload::{Payload, open, threads};
use super::prepare::{BASELINE, Prepared};
use super::target::Target;
use crate::appliance::Appliance;
use crate::appliance::cards::{self, Interfaces};
use crate::appliance::first_start::FirstStart;
use crate::appliance::pristine;
use crate::appliance::release::ReleaseRecord;
use crate::boot::bios::before::About;
use crate::boot::bios::switch::{Placed, Plan, Switch};
use crate::boot::bootable::{self, Bootable};
use crate::boot::state::State;
use crate::boot::{files as boot_files, journal};
use crate::disk::blkid::{self, Tag};
use crate::disk::mkfs::{self, FsType};
use crate::disk::table::{self, Purpose};
use crate::install::boot_files::BootPlan;
use crate::install::destination::{Access, Destination};
use crate::install::settle::{Carrying, Identity};
use crate::install::{self, fill, fit, label, settle};
use crate::migrate::settings;
use crate::paths::{BOOT, BOOT_DIR, MIGRATIONS_DIR, MOVED_DIR, TARGET_MOUNT};
use crate::progress::Silent;
use crate::sha::Sha;
use crate::slot::Slot;
use crate::system::draft::Draft;
use crate::system::{Mount, Mounted, files};
use crate::tree::digest::digest_tree;
use crate::tree::resolve;

/// Where the data volume is mounted meanwhile.
const DATA_MOUNT: &str = "/run/va-upgrade/data";

/// Where the data volume is mounted in the new system, unless its fstab says.
const DATA_POINT: &str = "/data";

/// Likewise, the volume of container images.
const IMAGE_POINT: &str = "/image";

/// The slot that is written.
const SLOT: Slot = Slot::Root;

/// The new system on its way.
pub struct Build<'a> {
    appliance: Appliance<'a>,
    payload: &'a Payload,
    prepared: &'a Prepared<'a>,
    /// GRUB's core, once it is on the disk.
    placed: RefCell<Option<Placed>>,
    /// The digest of the finished tree.
    finished: Cell<Option<Sha>>,
    /// Why the tree could not be settled the last time.
    unsettled: RefCell<Option<String>>,
}

impl<'a> Build<'a> {
    /// Begins with what is prepared.
    pub fn new(
        appliance: &Appliance<'a>,
        payload: &'a Payload,
        prepared: &'a Prepared<'a>,
    ) -> Build<'a> {
        Build {
            appliance: *appliance,
            payload,
            prepared,
            placed: RefCell::default(),
            finished: Cell::default(),
            unsettled: RefCell::default(),
        }
    }

    fn target(&self) -> &Target<'a> {
        &self.prepared.target
    }

    fn slot(&self) -> Destination {
        let config = self.appliance.config;
        Destination {
            slot: SLOT,
            device: config.device(SLOT),
            size_bytes: self.target().plan.volume_bytes(config.volume(SLOT)),
            fs_type: self.prepared.fs_type,
            mount_point: PathBuf::from(TARGET_MOUNT),
        }
    }

    fn mount_boot(&self, access: Access) -> Result<Mounted<'a>> {
        let options = match access {
            Access::ReadOnly => "ro",
            Access::ReadWrite => "rw",
        };
        let device = self.target().partition(Purpose::FileSystem);
        let point = self.appliance.at(BOOT);
        let mount = Mount::device(&device, &point, FsType::Ext4.name(), options);
        Mounted::new(self.appliance.sys, &mount)
    }

    /// Makes the file systems of `/boot`, `data` and `image`.
    ///
    /// # Errors
    /// When a tool fails.
    pub fn format(&self) -> Result<()> {
        const FILES: u64 = 1000;
        let sys = self.appliance.sys;
        let volumes = &self.appliance.config.volumes;
        let target = self.target();
        let boot = target.plan.partition(Purpose::FileSystem).size_bytes;
        let device = target.partition(Purpose::FileSystem);
        sys.run(&mkfs::command(sys, FsType::Ext4, &device, boot, FILES)?)?;
        for name in [&volumes.data, &volumes.image] {
            let size = target.plan.volume_bytes(name);
            if size == 0 {
                continue;
            }
            let device = target.volume(name);
            let fs_type = self.prepared.fs_type;
            sys.run(&mkfs::command(sys, fs_type, &device, size, FILES)?)?;
        }
        Ok(())
    }

    /// Formats the slot and unpacks the bundle into it.
    ///
    /// # Errors
    /// When that fails, or the bundle in RAM is not what it was.
    pub fn unpack(&self) -> Result<()> {
        let slot = self.slot();
        let inodes = self.prepared.manifest.tree.inodes;
        let format = fill::prepare(&self.appliance, &slot, inodes)?;
        self.appliance.sys.run(&format)?;
        fill::unpack(&self.appliance, &slot, open(self.payload)?, threads())
    }

    /// Reads the slot back from the disk.
    ///
    /// # Errors
    /// When it is not what the manifest says.
    pub fn read_back(&self) -> Result<()> {
        let tree = &self.prepared.manifest.tree;
        fill::read_back(&self.appliance, &self.slot(), tree, threads())
    }

    /// Makes it this appliance's system: what is the customer's comes over, and the
    /// archive of it goes to the data volume.
    ///
    /// # Errors
    /// When something cannot be carried over.
    pub fn settle(&self, run: u64, carrying: Carrying) -> Result<()> {
        let settled = self.settle_by(run, carrying);
        if let Err(error) = &settled {
            self.unsettled.replace(Some(format!("{error:#}")));
        }
        settled
    }

    fn settle_by(&self, run: u64, carrying: Carrying) -> Result<()> {
        let sys = self.appliance.sys;
        let Prepared {
            manifest,
            facts,
            old_root,
            ..
        } = self.prepared;
        settings::open(&self.payload.settings, &self.prepared.sha256, old_root)?;
        let list = open(self.payload)?.files()?;
        let boot_uuid = self.boot_uuid()?;
        let data_device = self.target().volume(&self.appliance.config.volumes.data);
        let fs_type = self.prepared.fs_type.name();
        let point = self.appliance.at(DATA_MOUNT);
        let data = Mounted::new(sys, &Mount::device(&data_device, &point, fs_type, "rw"))?;
        self.keep_archive(data.path(), run)?;
        let mounted = self.slot().mount(sys, Access::ReadWrite)?;
        let root = mounted.path();
        pristine::keep(sys, root, list.as_deref())?;
        self.write_old_fstab(root)?;
        let found = bootable::inspect(root)?;
        let disk = &self.payload.disk;
        if let Err(error) = fit::check(&self.appliance, root, &found, manifest.cpu_level, disk) {
            // There is no system to go back to: a doubt is no reason to stop here.
            let text = format!("the new system may not start on this machine: {error:#}");
            self.appliance.progress.warn(&text);
        }
        let release = ReleaseRecord {
            product: Some(manifest.product.clone()),
            version: manifest.version.clone(),
        };
        let record: cards::Record = files::read_yaml(&self.told().join(cards::FILE))?;
        let identity = Identity {
            slot: SLOT,
            fs_type,
            boot_uuid: &boot_uuid,
            boot_fs_type: FsType::Ext4.name(),
            release: &release,
            from: &facts.release.version,
            cards: &Interfaces::recorded(record),
            carrying,
        };
        settle::settle(&self.appliance, old_root, root, &identity)?;
        let mut first = FirstStart::new(&facts.release.version, &manifest.version, run);
        if carrying == Carrying::Nothing {
            first.lacks = self.unsettled.borrow().clone();
        }
        first.leave(root)?;
        label::label(&self.appliance, root)?;
        mounted.unmount()?;
        data.unmount()
    }

    /// Writes kernel, initramfs and entry of the slot to `/boot`, and what its health
    /// is compared with.
    ///
    /// # Errors
    /// When a file cannot be written or does not read back.
    pub fn write_boot_files(&self) -> Result<()> {
        let appliance = &self.appliance;
        let lock = appliance.lock()?;
        let boot = self.mount_boot(Access::ReadWrite)?;
        // Of an earlier attempt.
        files::remove_tree(&appliance.at(BOOT_DIR))?;
        let mounted = self.slot().mount(appliance.sys, Access::ReadOnly)?;
        let found = bootable::inspect(mounted.path())?;
        let plan = BootPlan {
            slot: SLOT,
            version: &self.prepared.manifest.version,
            bootable: &found,
            cmdline: &inherit::cmdline(&self.prepared.facts.cmdline),
        };
        install::boot_files::write_alone(appliance, mounted.path(), &plan, &lock)?;
        let dir = boot_files::dir(appliance.sys, SLOT);
        for name in BASELINE {
            let from = self.told().join(name);
            let content = fs::read(&from).with_context(|| format!("reading {}", from.display()))?;
            files::write_atomic(&dir.join(name), &content, 0o644)?;
        }
        mounted.unmount()?;
        journal::flush(appliance.sys, boot.path())?;
        boot.unmount()
    }

    /// Installs GRUB from the new system; the boot sector stays as it is.
    ///
    /// # Errors
    /// When a tool, a write or a comparison fails.
    pub fn install_grub(&self) -> Result<()> {
        let sys = self.appliance.sys;
        let boot = self.mount_boot(Access::ReadWrite)?;
        let mounted = self.slot().mount(sys, Access::ReadWrite)?;
        let found = bootable::inspect(mounted.path())?;
        let placed = self.place_grub(mounted.path(), &found)?;
        self.placed.replace(Some(placed));
        let digest = digest_tree(mounted.path(), threads(), &Silent)?;
        self.finished.set(Some(digest));
        mounted.unmount()?;
        boot.unmount()
    }

    fn place_grub(&self, root: &Path, found: &Bootable) -> Result<Placed> {
        let plan = Plan {
            about: About {
                slot: SLOT,
                is_first: true,
            },
            slot_root: root,
            bootable: found,
            disk: &self.payload.disk,
            boot_uuid: &self.boot_uuid()?,
            baked: SLOT,
            cmdline: &self.prepared.facts.cmdline,
        };
        let mut switch = Switch::prepare(self.appliance.sys, &plan)?;
        let placed = switch.place(&plan);
        switch.finish(&plan)?;
        placed
    }

    /// Writes the boot state: the slot is the default, and there is no other system.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn commit(&self) -> Result<()> {
        let lock = self.appliance.lock()?;
        let boot = self.mount_boot(Access::ReadWrite)?;
        let is_whole = self.appliance.save(&State::adopt(SLOT), &lock)?;
        ensure!(is_whole, "not all of the boot state was written");
        self.appliance.flush_boot()?;
        boot.unmount()
    }

    /// Reads everything back from the disk: the table, the volumes, the slot, `/boot`
    /// and GRUB's core.
    ///
    /// # Errors
    /// When something is not what was written.
    pub fn verify(&self) -> Result<()> {
        let appliance = &self.appliance;
        let target = self.target();
        let slot = self.slot();
        let boot_device = target.partition(Purpose::FileSystem);
        for device in [&slot.device, &boot_device, &self.payload.disk] {
            target.drop_cache(device)?;
        }
        table::verify(&target.disk_file(), &target.plan.partitions)?;
        target.group().check(&target.plan.volumes)?;
        let mounted = slot.mount(appliance.sys, Access::ReadOnly)?;
        let found = digest_tree(mounted.path(), threads(), &Silent)?;
        mounted.unmount()?;
        ensure!(
            Some(found) == self.finished.get(),
            "{} does not hold what was written to it",
            slot.device.display()
        );
        self.verify_boot()?;
        let placed = self.placed.borrow();
        let placed = placed.as_ref().context("GRUB is not installed")?;
        placed.verify(appliance.sys, &self.payload.disk)
    }

    fn verify_boot(&self) -> Result<()> {
        let appliance = &self.appliance;
        let boot = self.mount_boot(Access::ReadOnly)?;
        let record = boot_files::record(appliance.sys, SLOT)?.context("/boot has no record")?;
        let faults = record.faults(&boot_files::dir(appliance.sys, SLOT), true);
        ensure!(faults.is_empty(), "{}", faults.join("; "));
        let state = State::load(&appliance.at(BOOT_DIR))?;
        ensure!(
            state == Some(State::adopt(SLOT)),
            "the boot state is not what was written"
        );
        boot.unmount()
    }

    /// Has the disk start the new system: the last write.
    ///
    /// # Errors
    /// When the sector cannot be written or does not read back.
    pub fn start(&self) -> Result<()> {
        let placed = self.placed.borrow();
        let placed = placed.as_ref().context("GRUB is not installed")?;
        placed.start(self.appliance.sys, &self.payload.disk)
    }

    fn boot_uuid(&self) -> Result<String> {
        let device = self.target().partition(Purpose::FileSystem);
        blkid::ask(self.appliance.sys, &device, Tag::Uuid)?
            .with_context(|| format!("the file system on {} has no UUID", device.display()))
    }

    /// Returns the directory of what is told of the old system.
    fn told(&self) -> PathBuf {
        let dir = MOVED_DIR.trim_start_matches('/');
        self.prepared.old_root.join(dir)
    }

    /// Copies the archive of settings to the data volume mounted at `data`: of some of
    /// what is in it, no other copy will be left.
    fn keep_archive(&self, data: &Path, run: u64) -> Result<()> {
        let dir = data.join(MIGRATIONS_DIR);
        fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
        let to = dir.join(format!("{run}.settings.tar"));
        let from = File::open(&self.payload.settings).context("opening the settings")?;
        let size = from.metadata()?.len();
        let mut draft = Draft::create(&to)?;
        files::copy_bytes(&from, 0, draft.file(), size)?;
        draft
            .file()
            .set_permissions(Permissions::from_mode(0o600))?;
        draft.commit()?;
        ensure!(
            Sha::of_file(&to)? == self.prepared.sha256,
            "{} is not what was copied",
            to.display()
        );
        Ok(())
    }

    /// Gives the old system the fstab that it would have on the new disk, from which
    /// the new system's is made.
    fn write_old_fstab(&self, root: &Path) -> Result<()> {
        let read = |root: &Path| -> Result<(PathBuf, String)> {
            let path = resolve::place(root, Path::new("/etc/fstab"))?;
            let text = fs::read_to_string(&path).unwrap_or_default();
            Ok((path, text))
        };
        let (path, of_old) = read(&self.prepared.old_root)?;
        let (_, of_image) = read(root)?;
        let config = self.appliance.config;
        let volume = |name, default_point| inherit::Volume {
            group: &config.vg,
            name,
            fs_type: self.prepared.fs_type.name(),
            default_point,
        };
        let mut volumes = vec![volume(&config.volumes.data, DATA_POINT)];
        if self.target().plan.volume_bytes(&config.volumes.image) > 0 {
            volumes.push(volume(&config.volumes.image, IMAGE_POINT));
        }
        let text = inherit::fstab(&of_old, &self.prepared.facts.lost, &of_image, &volumes);
        files::write_atomic(&path, text.as_bytes(), 0o644)
    }
}
