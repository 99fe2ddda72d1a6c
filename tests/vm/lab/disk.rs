//! Appliance disks, made on this machine without a guest and without
//! device-mapper: LVM writes its metadata only, and each volume is reached as a
//! loop device at the place its metadata says.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use va_upgrade::system::{Cmd, Mount, Mounted, System};

use super::{host, rhel};

const MIB: u64 = 1 << 20;
const DISK_SIZE: u64 = 6 << 30;
const EXTENT_SIZE: u64 = 4 * MIB;
const PV_START: u64 = 515 * MIB;
const PV_SIZE: u64 = DISK_SIZE - PV_START - MIB;

/// The volumes of the group `VA`, with their sizes in MiB.
const VOLUMES: [(&str, u64); 4] = [
    ("root", 1536),
    ("back", 1536),
    ("data", 256),
    ("image", 512),
];

/// What every kernel and GRUB from CentOS 7 on reads; the defaults of a newer
/// mkfs may be more than that.
const EXT4_FEATURES: &str = "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,\
                             flex_bg,sparse_super,large_file,huge_file,dir_nlink,extra_isize";

/// Without this, LVM asks the kernel's device-mapper, or looks at other disks.
const LVM_CONFIG: &str = r#"global{activation=0 use_lvmpolld=0 event_activation=0}
    devices{use_devicesfile=0 obtain_device_list_from_udev=0 filter=["a|^@PV@$|","r|.*|"]}
    activation{udev_sync=0 udev_rules=0 monitoring=0} backup{backup=0 archive=0}"#;

/// Which family's way a disk is laid out in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// ext4, and Debian's own names.
    Debian,
    /// XFS but for `data`, labels of SELinux, and the names of `grub2`.
    Rhel,
}

impl Family {
    /// Returns the kind of file system of the volume, or the partition, `name`.
    fn fs_type(self, name: &str) -> &'static str {
        match self {
            Family::Debian => "ext4",
            // Too small for XFS.
            Family::Rhel if name == "data" => "ext4",
            Family::Rhel => "xfs",
        }
    }
}

/// What makes one appliance's disk differ from another's.
pub struct Contents<'a> {
    /// The layout.
    pub family: Family,
    /// The root file system.
    pub tar: &'a Path,
    /// The UUID of `/boot`.
    pub boot_uuid: &'a str,
    /// The name of the machine.
    pub hostname: &'a str,
    /// Its `/etc/machine-id`, empty for one that was never started.
    pub machine_id: &'a str,
}

/// A part of a file as a block device.
pub(super) struct Loop<'a> {
    sys: &'a dyn System,
    pub(super) device: PathBuf,
}

impl<'a> Loop<'a> {
    pub(super) fn new(sys: &'a dyn System, file: &Path, start: u64, size: u64) -> Result<Loop<'a>> {
        let cmd = Cmd::new("losetup")
            .args(["--find", "--show"])
            .arg(format!("--offset={start}"))
            .arg(format!("--sizelimit={size}"))
            .arg(file);
        let device = PathBuf::from(sys.run(&cmd)?.trim());
        Ok(Loop { sys, device })
    }
}

impl Drop for Loop<'_> {
    fn drop(&mut self) {
        let detach = Cmd::new("losetup").arg("--detach").arg(&self.device);
        if let Err(error) = self.sys.run(&detach) {
            eprintln!("warning: {error:#}");
        }
    }
}

/// The device nodes of a disk's partitions, for kernels that do not read GPT.
pub(super) struct Partitions<'a> {
    disk: &'a Loop<'a>,
}

impl<'a> Partitions<'a> {
    pub(super) fn new(disk: &'a Loop<'a>) -> Result<Partitions<'a>> {
        disk.sys
            .run(&Cmd::new("partx").arg("--add").arg(&disk.device))?;
        Ok(Partitions { disk })
    }

    pub(super) fn node(&self, number: u32) -> PathBuf {
        PathBuf::from(format!("{}p{number}", self.disk.device.display()))
    }
}

impl Drop for Partitions<'_> {
    fn drop(&mut self) {
        let delete = Cmd::new("partx").arg("--delete").arg(&self.disk.device);
        if let Err(error) = self.disk.sys.run(&delete) {
            eprintln!("warning: {error:#}");
        }
    }
}

/// Makes a bootable appliance disk with the root file system in `VA/root`, an
/// empty `VA/back`, and GRUB as an installer leaves it.
pub fn make(path: &Path, contents: &Contents) -> Result<()> {
    let host = host();
    let sys: &dyn System = &host;
    let file = File::create(path).with_context(|| format!("creating {}", path.display()))?;
    file.set_len(DISK_SIZE)?;
    let sgdisk = Cmd::new("sgdisk")
        .args(["-n1:1M:+2M", "-t1:ef02", "-n2:3M:+512M", "-t2:8300"])
        .args(["-n3:515M:0", "-t3:8e00"])
        .arg(path);
    sys.run(&sgdisk)?;
    let volumes = make_volumes(sys, path)?;

    let disk = Loop::new(sys, path, 0, DISK_SIZE)?;
    let partitions = Partitions::new(&disk)?;
    let boot = partitions.node(2);
    let family = contents.family;
    make_file_system(sys, &boot, "boot", family, Some(contents.boot_uuid))?;
    let [root, _back, data, image] = &volumes;
    make_file_system(sys, &root.device, "root", family, None)?;
    make_file_system(sys, &data.device, "data", family, None)?;
    make_file_system(sys, &image.device, "image", family, None)?;

    let mount_point = tempfile::tempdir()?;
    let at = |name: &str| mount_point.path().join(name);
    let mounted = |device: &Path, name: &str, point: &str| {
        let mount = Mount::device(device, &at(point), family.fs_type(name), "");
        Mounted::new(sys, &mount)
    };
    let tree = mounted(&root.device, "root", "root")?;
    // A mount point that the guard made would go with it.
    fs::create_dir(at("root/boot"))?;
    let tree_boot = mounted(&boot, "boot", "root/boot")?;
    let untar = Cmd::new("tar")
        .args([
            "--xattrs",
            "--xattrs-include=*",
            "--acls",
            "--numeric-owner",
            "-xpf",
        ])
        .arg(contents.tar)
        .arg("-C")
        .arg(tree.path());
    sys.run(&untar)?;
    personalise(tree.path(), contents)?;
    let tree_data = mounted(&data.device, "data", "root/data")?;
    fs::write(at("root/data/customer"), "belongs to the customer\n")?;
    install_grub(sys, tree.path(), &disk.device, contents)?;
    if family == Family::Rhel {
        let tree_image = mounted(&image.device, "image", "root/image")?;
        rhel::label(sys, tree.path(), &["/boot", "/data", "/image"])?;
        tree_image.unmount()?;
    }
    tree_data.unmount()?;
    tree_boot.unmount()?;
    if family == Family::Rhel {
        // The mount points too, now that nothing is on them.
        rhel::label(sys, tree.path(), &["/"])?;
    }
    tree.unmount()
}

/// Makes the volume group and returns its volumes as devices, in order.
fn make_volumes<'a>(sys: &'a dyn System, path: &Path) -> Result<[Loop<'a>; 4]> {
    let pv = Loop::new(sys, path, PV_START, PV_SIZE)?;
    let device = pv.device.display().to_string();
    let lvm = |command: &str, args: &[&str]| -> Result<String> {
        let cmd = Cmd::new("lvm")
            .arg(command)
            .arg("--config")
            .arg(LVM_CONFIG.replace("@PV@", &device))
            .args(args)
            .env("LVM_SUPPRESS_FD_WARNINGS", "1");
        sys.run(&cmd)
    };
    lvm("pvcreate", &["--yes", &device])?;
    let extent = format!("{EXTENT_SIZE}b");
    lvm("vgcreate", &["-s", &extent, "VA", &device])?;
    for (name, size) in VOLUMES {
        let size = format!("{size}M");
        lvm(
            "lvcreate",
            &["-an", "-Zn", "-Wn", "-L", &size, "-n", name, "VA"],
        )?;
    }
    let report = ["--noheadings", "--nosuffix", "--units=b", "-o"];
    let data_start = lvm("pvs", &[&report[..], &["pe_start", &device]].concat())?;
    let data_start: u64 = data_start.trim().parse().context("parsing pe_start")?;
    let table = lvm(
        "lvs",
        &[&report[..], &["lv_name,seg_pe_ranges", "VA"]].concat(),
    )?;
    let find = |(name, size): (&str, u64)| -> Result<Loop<'a>> {
        let extent = first_extent(&table, name)
            .with_context(|| format!("finding volume {name} in {table}"))?;
        let start = PV_START + data_start + extent * EXTENT_SIZE;
        Loop::new(sys, path, start, size * MIB)
    };
    let [root, back, data, image] = VOLUMES;
    Ok([find(root)?, find(back)?, find(data)?, find(image)?])
}

/// Finds the extent of the PV at which the only segment of a volume starts, in
/// lines like "root /dev/loop3:0-383".
fn first_extent(table: &str, name: &str) -> Result<u64> {
    let rows: Vec<Vec<&str>> = table
        .lines()
        .map(|line| line.split_whitespace().collect())
        .filter(|row: &Vec<&str>| row.first() == Some(&name))
        .collect();
    ensure!(
        rows.len() == 1 && rows[0].len() == 2,
        "not one linear segment"
    );
    let (_, range) = rows[0][1].rsplit_once(':').context("no extents")?;
    let (first, _) = range.split_once('-').context("no range")?;
    first.parse().context("parsing the first extent")
}

pub(super) fn make_file_system(
    sys: &dyn System,
    device: &Path,
    name: &str,
    family: Family,
    uuid: Option<&str>,
) -> Result<()> {
    let cmd = if family.fs_type(name) == "xfs" {
        rhel::mkfs(name, uuid)
    } else {
        let uuid = uuid.unwrap_or("random");
        Cmd::new("mkfs.ext4").args(["-q", "-F", "-O", EXT4_FEATURES, "-L", name, "-U", uuid])
    };
    sys.run(&cmd.arg(device)).map(drop)
}

const FSTAB: &str = "\
/dev/mapper/VA-root / ext4 errors=remount-ro 0 1
UUID=@BOOT@ /boot ext4 defaults 0 2
/dev/VA/data /data ext4 defaults 0 0
/dev/VA/image /image ext4 defaults 0 0
";

/// Writes what an installer asks its user for.
fn personalise(root: &Path, contents: &Contents) -> Result<()> {
    let fstab = match contents.family {
        Family::Debian => FSTAB,
        Family::Rhel => rhel::FSTAB,
    };
    let fstab = fstab.replace("@BOOT@", contents.boot_uuid);
    let name = contents.hostname;
    let id = match contents.machine_id {
        "" => String::new(),
        id => format!("{id}\n"),
    };
    for (file, text) in [
        ("etc/fstab", fstab),
        ("etc/hostname", format!("{name}\n")),
        ("etc/hosts", format!("127.0.0.1 localhost {name}\n")),
        ("etc/machine-id", id),
    ] {
        fs::write(root.join(file), text).with_context(|| format!("writing {file}"))?;
    }
    Ok(())
}

/// Lets the root's own GRUB install itself, then writes its menu.
fn install_grub(sys: &dyn System, root: &Path, disk: &Path, contents: &Contents) -> Result<()> {
    let (install, menu, menu_path) = match contents.family {
        Family::Debian => (
            "grub-install",
            include_str!("../guest/grub.cfg"),
            "boot/grub/grub.cfg",
        ),
        Family::Rhel => ("grub2-install", rhel::MENU, "boot/grub2/grub.cfg"),
    };
    let bind = |name: &str| {
        let mount = Mount::bind(&Path::new("/").join(name), &root.join(name));
        Mounted::new(sys, &mount)
    };
    let binds = [bind("dev")?, bind("proc")?, bind("sys")?];
    let install = Cmd::new(install)
        .args(["--target=i386-pc", "--boot-directory=/boot", "--no-floppy"])
        .arg(disk)
        .chroot(root);
    sys.run(&install)?;
    for mounted in binds {
        mounted.unmount()?;
    }
    let modules = fs::read_dir(root.join("lib/modules"))?
        .next()
        .context("no kernel")??;
    let menu = menu
        .replace("@BOOT@", contents.boot_uuid)
        .replace("@KERNEL@", &modules.file_name().to_string_lossy());
    fs::write(root.join(menu_path), menu).context("writing grub.cfg")
}
