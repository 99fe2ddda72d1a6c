//! The migration environment's initramfs, made in the image that is packed.
//!
//! 1. The tree becomes the lower layer of an overlay that nobody keeps; in it, the
//!    image's own tools make the initramfs, with our hook ([`HOOK`] or [`MODULE`]).
//! 2. The initramfs alone is laid over the tree's `/boot`, in a second overlay, for the
//!    packer to find.
//!
//! The image is not written to.

use std::env;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::linux::{initramfs, mountinfo};
use crate::progress::{Progress, Step};
use crate::refuse;
use crate::system::files::{self, ScratchDir};
use crate::system::{Chroot, Cmd, Mount, Mounted, System};
use crate::tree::resolve;

const HOOK: &str = include_str!("../../initramfs/migrate-hook.sh");
const MODULE: &str = include_str!("../../initramfs/migrate-module.sh");
const ROOT: &str = include_str!("../../initramfs/migrate-root.sh");
const START: &str = include_str!("../../initramfs/migrate-start.sh");

/// The drivers of virtual disks, what stands between them and the processor, and what
/// is on them.
const DRIVERS: &str = "virtio_pci virtio_mmio virtio_blk virtio_scsi vmw_pvscsi mptspi mptsas \
                       mptfc BusLogic sym53c8xx megaraid_sas ahci ata_piix ata_generic pata_acpi \
                       nvme hv_vmbus hv_storvsc xen-blkfront xen-scsifront sd_mod \
                       dm_mod dm_snapshot dm_mirror ext4 xfs vfat nls_ascii nls_cp437 \
                       crc32c_generic crc32c_intel crc32_pclmul loop overlay \
                       i8042 atkbd serio_raw hid_generic usbhid xhci_pci ehci_pci uhci_hcd";

/// The tools that the program runs there.
const TOOLS: &str = "lvm blkid blockdev mke2fs mkfs.ext4 mkfs.xfs e2fsck xfs_repair wipefs partx \
                     sgdisk sfdisk chroot cp losetup mount umount stat sync udevadm fsfreeze";

/// What initramfs-tools is told besides; the image's own settings are for its own disk.
const SETTINGS: &str = "MODULES=list\nBUSYBOX=auto\nCOMPRESS=gzip\nKEYMAP=n\nRESUME=none\n";

/// Where it is told so, in the overlay.
const SETTINGS_DIR: &str = "/etc/va-migrate-initramfs";

/// Where dracut finds its modules.
const MODULES_DIR: &str = "/usr/lib/dracut/modules.d";

/// Modules of dracut that are left out: other inits, other roots, what could take hold of
/// the disk, and drivers that our own list makes superfluous.
const OMITTED: &str = "systemd systemd-initrd dracut-systemd network network-legacy \
                       network-manager ifcfg nfs iscsi fcoe fcoe-uefi nbd nvmf cifs plymouth \
                       multipath mdraid dmraid crypt btrfs resume i18n drm kernel-modules \
                       kernel-modules-extra kernel-network-modules overlay-root virtiofs";

/// Where the initramfs is made, in the overlay.
const MADE: &str = "/va-migrate.img";

/// Where that puts its files meanwhile: in the overlay, whatever the image mounts.
const WORK_DIR: &str = "/va-migrate-work";

/// How long making it may take; under emulation it takes a long time.
const LIMIT: Duration = Duration::from_secs(60 * 60);

/// A tree that has an environment for as long as this lives.
pub struct Environment<'a> {
    boot: Option<Mounted<'a>>,
    _layers: Option<ScratchDir>,
}

impl Environment<'_> {
    /// Takes it out of the tree again.
    ///
    /// # Errors
    /// When it is in use.
    pub fn close(mut self) -> Result<()> {
        self.boot.take().map_or(Ok(()), Mounted::unmount)
    }
}

impl Drop for Environment<'_> {
    fn drop(&mut self) {
        // Before the layers that it shows.
        drop(self.boot.take());
    }
}

/// Adds the environment for the kernel `release` to the tree at `root`, unless the tree
/// has one. The caller is in a private mount namespace.
///
/// # Errors
/// Class `Refused` when the tree has nothing that makes an initramfs.
pub fn add<'a>(
    sys: &'a dyn System,
    root: &Path,
    release: &str,
    progress: &dyn Progress,
) -> Result<Environment<'a>> {
    let name = initramfs::migration(release);
    if resolve::resolve(root, &name)?.is_some() {
        progress.note("the image has a migration environment");
        return Ok(Environment {
            boot: None,
            _layers: None,
        });
    }
    progress.start(Step::MakeEnvironment, None);
    let boot = resolve::place(root, Path::new("boot"))?;
    ensure!(
        boot.is_dir() && !boot.is_symlink(),
        "{} is no directory",
        boot.display()
    );
    let layers = ScratchDir::new()?;
    let upper = layers.path().join("boot");
    fs::create_dir(&upper)?;
    let file = upper.join(name.file_name().context("no name")?);
    make(sys, root, release, &file).context("making the migration environment")?;
    let time = fs::metadata(&boot)?.modified()?;
    File::open(&file)?.set_modified(time)?;
    copy_attributes(&boot, &upper)?;
    let shown = mount_overlay(sys, &boot, &upper, &layers.path().join("boot-work"), &boot)?;
    Ok(Environment {
        boot: Some(shown),
        _layers: Some(layers),
    })
}

/// Makes the initramfs in an overlay of the tree, and moves it to `to`.
fn make(sys: &dyn System, root: &Path, release: &str, to: &Path) -> Result<()> {
    let scratch = ScratchDir::new()?;
    let at = |name: &str| scratch.path().join(name);
    let upper = at("upper");
    // Not in there: what is removed with all that is in it must hold no mount.
    let tree = scratch.path().with_extension("tree");
    fs::create_dir(&upper)?;
    copy_attributes(root, &upper)?;
    let overlay = mount_overlay(sys, root, &upper, &at("work"), &tree)?;
    let binds = Binds::below(sys, root, &tree)?;
    let family = Family::of(&tree)?;
    family.install(&tree, release)?;
    let chroot = Chroot::enter(sys, &tree, &Chroot::KERNEL_DIRS)?;
    let made = chroot.run(family.command(release)).map(drop);
    chroot.leave()?;
    drop(binds);
    made?;
    let image = upper.join(MADE.trim_start_matches('/'));
    let size = image.metadata().context("no initramfs was made")?.len();
    ensure!(size > 0, "the initramfs is empty");
    fs::copy(&image, to).with_context(|| format!("copying {}", image.display()))?;
    chown(to, Some(0), Some(0))?;
    fs::set_permissions(to, Permissions::from_mode(0o600))?;
    overlay.unmount()
}

/// Shows the directory `lower` at `point`, with what is in `upper` over it.
fn mount_overlay<'a>(
    sys: &'a dyn System,
    lower: &Path,
    upper: &Path,
    work: &Path,
    point: &Path,
) -> Result<Mounted<'a>> {
    fs::create_dir(work)?;
    let mut options = String::new();
    for (name, dir) in [("lowerdir", lower), ("upperdir", upper), ("workdir", work)] {
        let dir = dir.display().to_string();
        ensure!(
            !dir.contains([',', ':', '\\']),
            "{dir} cannot be a layer of an overlay; set TMPDIR to a directory with a plain name"
        );
        options.push_str(&format!("{name}={dir},"));
    }
    let options = options.trim_end_matches(',');
    Mounted::new(
        sys,
        &Mount::device(Path::new("overlay"), point, "overlay", options),
    )
}

/// What is mounted below a tree, bound into an overlay of it, which does not show it.
struct Binds<'a>(Vec<Mounted<'a>>);

impl<'a> Binds<'a> {
    fn below(sys: &'a dyn System, root: &Path, tree: &Path) -> Result<Binds<'a>> {
        let root = fs::canonicalize(root)?;
        let table = fs::read_to_string("/proc/self/mountinfo").context("reading the mounts")?;
        let mut binds = Binds(Vec::new());
        for mount in mountinfo::parse(&table) {
            let inside = mount.mount_point.strip_prefix(&root);
            if let Ok(inside) = inside
                && !inside.as_os_str().is_empty()
            {
                let bind = Mount::bind(&mount.mount_point, &tree.join(inside));
                binds.0.push(Mounted::new(sys, &bind)?);
            }
        }
        Ok(binds)
    }
}

impl Drop for Binds<'_> {
    fn drop(&mut self) {
        // One may lie in another.
        while let Some(bind) = self.0.pop() {
            drop(bind);
        }
    }
}

/// Gives the directory `to` the owner, mode, attributes and time of `from`.
fn copy_attributes(from: &Path, to: &Path) -> Result<()> {
    let copy = || -> Result<()> {
        let meta = fs::metadata(from)?;
        chown(to, Some(meta.uid()), Some(meta.gid()))?;
        fs::set_permissions(to, meta.permissions())?;
        for name in xattr::list(from)? {
            if let Some(value) = xattr::get(from, &name)? {
                xattr::set(to, &name, &value)?;
            }
        }
        Ok(File::open(to)?.set_modified(meta.modified()?)?)
    };
    copy().with_context(|| format!("making {} like {}", to.display(), from.display()))
}

/// What makes an initramfs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    /// initramfs-tools(7).
    InitramfsTools,
    /// dracut(8).
    Dracut,
}

impl Family {
    fn of(tree: &Path) -> Result<Family> {
        let has = |paths: &[&str]| -> Result<bool> {
            for path in paths {
                if resolve::resolve(tree, Path::new(path))?.is_some() {
                    return Ok(true);
                }
            }
            Ok(false)
        };
        if has(&["usr/sbin/mkinitramfs"])? {
            Ok(Family::InitramfsTools)
        } else if has(&["usr/bin/dracut", "usr/sbin/dracut"])? {
            Ok(Family::Dracut)
        } else {
            refuse!("the image has neither initramfs-tools nor dracut to make it with")
        }
    }

    /// Puts our program and our hook into the tree.
    fn install(self, tree: &Path, release: &str) -> Result<()> {
        let work = resolve::place(tree, Path::new(WORK_DIR))?;
        fs::create_dir(&work).with_context(|| format!("making {}", work.display()))?;
        let own = Path::new("/proc/self/exe");
        let program = fs::read(own).with_context(|| format!("reading {}", own.display()))?;
        write(tree, "/usr/sbin/va-upgrade", &program, 0o755)?;
        let files: &[(String, &str, u32)] = match self {
            Family::InitramfsTools => &[
                (format!("{SETTINGS_DIR}/initramfs.conf"), SETTINGS, 0o644),
                (format!("{SETTINGS_DIR}/modules"), "", 0o644),
                (format!("{SETTINGS_DIR}/hooks/va-migrate"), HOOK, 0o755),
                (
                    format!("{SETTINGS_DIR}/scripts/init-premount/va-migrate"),
                    START,
                    0o755,
                ),
            ],
            Family::Dracut => &[
                (format!("{}/module-setup.sh", module_dir()), MODULE, 0o755),
                (format!("{}/root.sh", module_dir()), ROOT, 0o755),
                (format!("{}/start.sh", module_dir()), START, 0o755),
            ],
        };
        for (path, text, mode) in files {
            write(tree, path, text.as_bytes(), *mode)?;
        }
        let modules = format!("lib/modules/{release}/modules.dep");
        ensure!(
            resolve::resolve(tree, Path::new(&modules))?.is_some(),
            "{modules} is missing"
        );
        if self == Family::InitramfsTools {
            let dir = resolve::place(tree, Path::new(SETTINGS_DIR))?;
            fs::create_dir_all(dir.join("conf.d"))?;
        }
        Ok(())
    }

    /// Returns the command that makes the initramfs for the kernel `release`.
    fn command(self, release: &str) -> Cmd {
        let cmd = match self {
            Family::InitramfsTools => Cmd::new("mkinitramfs")
                .args(["-d", SETTINGS_DIR, "-o", MADE])
                .arg(release),
            Family::Dracut => Cmd::new("dracut")
                .args(["--force", "--no-hostonly", "--gzip", "--reproducible"])
                .args([
                    "--no-early-microcode",
                    "--tmpdir",
                    WORK_DIR,
                    "--add",
                    "va-migrate",
                    "--omit",
                ])
                // Its own init is a script that runs our hook whatever else is missing.
                .arg(OMITTED)
                .args(["--kver", release])
                .arg(MADE),
        };
        let epoch = env::var("SOURCE_DATE_EPOCH");
        let cmd = match epoch {
            Ok(seconds) => cmd.env("SOURCE_DATE_EPOCH", seconds),
            Err(_) => cmd,
        };
        cmd.env("VA_DRIVERS", DRIVERS)
            .env("VA_TOOLS", TOOLS)
            .env("TMPDIR", WORK_DIR)
            .limit(LIMIT)
            .interruptible()
    }
}

fn module_dir() -> String {
    format!("{MODULES_DIR}/90va-migrate")
}

/// Writes a file into the tree, with the directories above it.
fn write(tree: &Path, path: &str, content: &[u8], mode: u32) -> Result<()> {
    let place: PathBuf = resolve::place(tree, Path::new(path))?;
    let parent = place.parent().context("a path without a directory")?;
    fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
    files::write_atomic(&place, content, mode)
}
