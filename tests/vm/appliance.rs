//! The appliance under test: where its disks and bundles come from, and what
//! the tests ask of it.

use std::env;
use std::fs::{self, File};
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;
use va_upgrade::system::{Cmd, System};

use crate::lab::cache::cached;
use crate::lab::channel::Output;
use crate::lab::guest::{Guest, overlay};
use crate::lab::qemu::Hardware;
use crate::lab::rootfs::Debian;
use crate::lab::tell::say;
use crate::lab::{host, images};

const PAYLOAD_SIZE: u64 = 1 << 30;

/// The versions of the two bundles. They hold the same kernel version, but not
/// the same initramfs; the second one needs a processor of level 2.
pub const RELEASE: &str = "9.4.1";
/// The version after [`RELEASE`].
pub const NEXT_RELEASE: &str = "9.4.2";

/// What the customer's config.yaml says in every test; emulated machines get
/// more time than real ones.
const CONFIG: &str = "product: lab-appliance\nversion: 7.9.0\n\
                      deadline_seconds: 3600\nhealth_seconds: 600\n";

/// An appliance with a disk of its own, which goes when this value goes.
pub struct Appliance {
    guest: Guest,
    _disk: TempDir,
}

impl Deref for Appliance {
    type Target = Guest;
    fn deref(&self) -> &Guest {
        &self.guest
    }
}

impl DerefMut for Appliance {
    fn deref_mut(&mut self) -> &mut Guest {
        &mut self.guest
    }
}

impl Appliance {
    /// Returns a running old appliance that was just given the `va-upgrade`
    /// binary, its settings and the key it trusts.
    pub fn old(name: &str) -> Result<Appliance> {
        let (snapshot, payload) = (booted_old_appliance()?, payload()?);
        let mut appliance = Appliance::from_snapshot(name, &snapshot, "booted", payload)?;
        appliance.install_program()?;
        Ok(appliance)
    }

    /// Returns a running old appliance as its customer has it.
    pub fn without_program(name: &str) -> Result<Appliance> {
        let (snapshot, payload) = (booted_old_appliance()?, empty_payload()?);
        Appliance::from_snapshot(name, &snapshot, "booted", &payload)
    }

    /// The same on other hardware, for which the appliance has to start anew.
    pub fn old_on(name: &str, hardware: Hardware) -> Result<Appliance> {
        Appliance::old_anew(name, hardware, 0)
    }

    /// The same on a disk that was enlarged by so many GiB since it was installed.
    pub fn old_enlarged(name: &str, more_gib: u64) -> Result<Appliance> {
        Appliance::old_anew(name, Hardware::default(), more_gib)
    }

    fn old_anew(name: &str, hardware: Hardware, more_gib: u64) -> Result<Appliance> {
        let dir = disk_dir()?;
        let disk = dir.path().join("disk.qcow2");
        overlay(&images::old_appliance()?, "raw", &disk)?;
        let resize = Cmd::new("qemu-img").args(["resize", "-q"]).arg(&disk);
        host().run(&resize.arg(format!("+{more_gib}G")))?;
        let guest = Guest::new(name, disk, payload()?, hardware)?;
        let mut appliance = Appliance { guest, _disk: dir };
        appliance.power_on()?;
        appliance.install_program()?;
        Ok(appliance)
    }

    /// Returns a running appliance that enforces SELinux, with the bundle of a
    /// [`RELEASE`] whose policy has a type more.
    pub fn with_selinux(name: &str) -> Result<Appliance> {
        let files = disk_dir()?;
        let release = Release {
            source: images::release_with_new_type,
            ..RELEASES[0]
        };
        build_bundles(files.path(), &[release])?;
        let payload = make_payload(files.path(), "selinux-payload.raw")?;
        let mut appliance = Appliance::on(name, &images::appliance_with_policy()?, &payload)?;
        appliance.power_on()?;
        appliance.install_program()?;
        // Without a policy the kernel shows no file system as one that has labels,
        // and setfiles would pass over those below the root.
        appliance.ok(
            "set -e; umount /mnt; sed -i s/^SELINUX=.*/SELINUX=enforcing/ /etc/selinux/config
             sed -i 's/console=ttyS0/& security=selinux/' /boot/grub/grub.cfg
             for at in / /boot /data /image; do
                 setfiles -m -F -e /proc -e /sys -e /dev -e /run \
                     /etc/selinux/default/contexts/files/file_contexts $at
             done; sync",
        )?;
        appliance.reboot()?;
        Ok(appliance)
    }

    /// Returns an appliance that was started from the raw disk `base`, which is not
    /// written.
    pub fn of_disk(name: &str, base: &Path) -> Result<Appliance> {
        let mut appliance = Appliance::on(name, base, payload()?)?;
        appliance.power_on()?;
        Ok(appliance)
    }

    /// Returns a running appliance whose disk begins as `base` and whose every write is
    /// written down in `log`.
    pub fn recorded(name: &str, base: &Path, log: &Path) -> Result<Appliance> {
        let mut appliance = Appliance::on(name, base, payload()?)?;
        appliance.record_writes(log)?;
        appliance.power_on()?;
        Ok(appliance)
    }

    /// Describes an appliance that is switched off, whose disk begins as `base`.
    fn on(name: &str, base: &Path, payload: &Path) -> Result<Appliance> {
        let dir = disk_dir()?;
        let disk = dir.path().join("disk.qcow2");
        overlay(base, "raw", &disk)?;
        let guest = Guest::new(name, disk, payload, Hardware::default())?;
        Ok(Appliance { guest, _disk: dir })
    }

    /// Returns a running old appliance of the RHEL family's shape, which enforces
    /// SELinux, with bundles of the first so many of [`RHEL_RELEASES`].
    pub fn of_rhels_shape(name: &str) -> Result<Appliance> {
        static MADE: OnceLock<Result<PathBuf, String>> = OnceLock::new();
        let payload = once(&MADE, || {
            let files = disk_dir()?;
            let count = if runs_all() { 2 } else { 1 };
            build_bundles(files.path(), &RHEL_RELEASES[..count])?;
            make_payload(files.path(), "rhel-payload.raw")
        })?;
        let mut appliance = Appliance::on(name, &images::old_rhel_appliance()?, payload)?;
        appliance.power_on()?;
        appliance.install_program()?;
        Ok(appliance)
    }

    /// Moves the disk into another machine, which starts from it.
    pub fn moved_to(mut self, name: &str, hardware: Hardware) -> Result<Appliance> {
        self.ok("sync")?;
        self.cut_power()?;
        let disk = self._disk.path().join("disk.qcow2");
        self.guest = Guest::new(name, disk, payload()?, hardware)?;
        self.power_on()?;
        Ok(self)
    }

    /// Returns an old appliance with [`RELEASE`] just applied to `back` and a
    /// trial of three tries armed, not yet restarted.
    pub fn applied(name: &str) -> Result<Appliance> {
        static MADE: OnceLock<Result<PathBuf, String>> = OnceLock::new();
        let snapshot = once(&MADE, || {
            let mut appliance = Appliance::old("before-trial")?;
            appliance.apply(RELEASE)?;
            appliance.keep("applied")
        })?;
        Appliance::from_snapshot(name, snapshot, "applied", payload()?)
    }

    /// Returns an appliance that runs [`RELEASE`] from `back`, committed.
    pub fn upgraded(name: &str) -> Result<Appliance> {
        static MADE: OnceLock<Result<PathBuf, String>> = OnceLock::new();
        let snapshot = once(&MADE, || {
            let mut appliance = Appliance::applied("before-upgraded")?;
            appliance.reboot()?;
            appliance.wait_until_committed("back")?;
            appliance.keep("upgraded")
        })?;
        Appliance::from_snapshot(name, snapshot, "upgraded", payload()?)
    }

    /// Saves the running machine as a snapshot for other tests.
    fn keep(mut self, label: &str) -> Result<PathBuf> {
        self.save(label)?;
        let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{label}.qcow2"));
        self.keep_disk(&kept)?;
        Ok(kept)
    }

    /// Ends the machine as a power cut would, and moves its disk to `path`.
    pub fn keep_disk(mut self, path: &Path) -> Result<()> {
        self.cut_power()?;
        fs::rename(self._disk.path().join("disk.qcow2"), path)?;
        Ok(())
    }

    fn from_snapshot(
        name: &str,
        snapshot: &Path,
        label: &str,
        payload: &Path,
    ) -> Result<Appliance> {
        let dir = disk_dir()?;
        let disk = dir.path().join("disk.qcow2");
        // An overlay would not do: a running machine is saved in the top layer.
        let copy = Cmd::new("cp")
            .args(["--reflink=auto", "--sparse=always"])
            .arg(snapshot)
            .arg(&disk);
        host().run(&copy)?;
        let guest = Guest::new(name, disk, payload, Hardware::default())?;
        let mut appliance = Appliance { guest, _disk: dir };
        appliance.resume(label)?;
        Ok(appliance)
    }

    fn install_program(&mut self) -> Result<()> {
        self.mount_payload()?;
        self.ok("install -m 755 /mnt/va-upgrade /usr/sbin/va-upgrade \
             && mkdir -p /etc/va-upgrade/trusted.d && cp /mnt/lab.pem /etc/va-upgrade/trusted.d/")?;
        self.put("/etc/va-upgrade/config.yaml", CONFIG, 0o644)
    }

    /// Mounts the disk with the program and the bundles on `/mnt`.
    pub fn mount_payload(&mut self) -> Result<()> {
        // A machine from a snapshot still caches blocks of the disk it had then.
        self.ok("disk=/dev/disk/by-id/virtio-payload; mountpoint -q /mnt \
             || { blockdev --flushbufs $disk && mount -o ro $disk /mnt; }")
            .map(drop)
    }

    /// Applies the bundle of `version`, which must succeed.
    pub fn apply(&mut self, version: &str) -> Result<()> {
        self.mount_payload()?;
        self.ok(&format!(
            "va-upgrade apply /mnt/{version}.vab && umount /mnt"
        ))
        .map(drop)
    }

    /// Runs `va-upgrade` with `arguments`, whatever comes of it.
    pub fn va_upgrade(&mut self, arguments: &str) -> Result<Output> {
        self.run(&format!("va-upgrade {arguments}"))
    }

    /// Returns what `va-upgrade status --json` says.
    pub fn status(&mut self) -> Result<Value> {
        let text = self.ok("va-upgrade status --json")?;
        serde_json::from_str(&text).with_context(|| format!("parsing {text}"))
    }

    /// Waits until the boot service has made `slot` the committed one.
    pub fn wait_until_committed(&mut self, slot: &str) -> Result<()> {
        let wanted = json!(slot);
        self.wait_until("va-upgrade status --json", |answer| {
            serde_json::from_str(answer).is_ok_and(|status: Value| {
                status["booted"] == wanted && status["committed"] == wanted
            })
        })
        .map(drop)
    }

    /// Restarts into a trial that fails; returns the status once the old
    /// system, in slot `root`, is back.
    pub fn fail_trial(&mut self) -> Result<Value> {
        self.start_reboot()?;
        self.wait_for_boot_of("/dev/mapper/VA-root")?;
        self.status()
    }

    /// Leaves the armed trial this many of its three tries.
    pub fn leave_tries(&mut self, tries: u8) -> Result<()> {
        self.ok(&format!(
            "sed -i s/va_left=3/va_left={tries}/ /boot/va/env1 /boot/va/env2 && sync"
        ))?;
        assert_eq!(self.status()?["trial"]["tries_left"], json!(tries));
        Ok(())
    }

    /// Runs `script` with the file system of slot `back` on `/tmp/back`.
    pub fn in_back(&mut self, script: &str) -> Result<()> {
        self.ok(&format!(
            "mkdir -p /tmp/back && mount /dev/VA/back /tmp/back && cd /tmp/back \
             && {{ {script}\n}} && cd / && umount /tmp/back"
        ))
        .map(drop)
    }

    /// Describes everything that decides how the machine boots: the disk's first
    /// three MiB with the boot sector, the partition table and the bios_grub
    /// partition, and each file on `/boot` with its content.
    pub fn boot_fingerprint(&mut self) -> Result<String> {
        self.ok("sync; blockdev --flushbufs /dev/vda; dd if=/dev/vda bs=1M count=3 status=none | sha256sum
             cd /boot; find . -type f -printf '%p %m %U:%G %s %T@\\n' | sort
             find . ! -type f -printf '%p %y %m %U:%G %l\\n' | sort; find . -type f -exec sha256sum {} + | sort")
    }
}

/// Returns a directory for disks, which goes with the value.
pub fn disk_dir() -> Result<TempDir> {
    Ok(tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?)
}

/// Does `make` once for all tests of a run, also when it fails.
fn once(
    cell: &'static OnceLock<Result<PathBuf, String>>,
    make: impl FnOnce() -> Result<PathBuf>,
) -> Result<&'static Path> {
    cell.get_or_init(|| make().map_err(|error| format!("{error:#}")))
        .as_deref()
        .map_err(|text| anyhow!("{text}"))
}

/// Makes all that the demo needs and later runs find again; returns the OVA of
/// [`RELEASE`].
pub fn prepare() -> Result<PathBuf> {
    for debian in [Debian::Bullseye, Debian::Bookworm] {
        debian.tar()?;
    }
    booted_old_appliance()?;
    images::release_ova()
}

/// Returns the disk of an old appliance that was saved while running.
fn booted_old_appliance() -> Result<PathBuf> {
    let base = images::old_appliance()?;
    let version = host().run(&Cmd::new("qemu-system-x86_64").arg("--version"))?;
    let hardware = Hardware::default();
    let size = PAYLOAD_SIZE.to_string();
    let inputs = [
        &*base.to_string_lossy(),
        &version,
        &hardware.words().join(" "),
        &*size,
        include_str!("lab/guest.rs"),
    ];
    let what = "a snapshot of the old appliance, which starts for it";
    cached("booted-old-appliance.qcow2", what, &inputs, |path| {
        overlay(&base, "raw", path)?;
        let payload = empty_payload()?;
        let mut guest = Guest::new("old-appliance", path.to_owned(), &payload, hardware)?;
        guest.power_on()?;
        guest.save("booted")?;
        guest.cut_power()
    })
}

/// Returns a payload disk without anything on it, of the usual size: a machine
/// remembers the size of its disks in a snapshot.
fn empty_payload() -> Result<PathBuf> {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("empty-payload.raw");
    File::create(&path)?.set_len(PAYLOAD_SIZE)?;
    Ok(path)
}

/// A release to build a bundle of.
struct Release {
    version: &'static str,
    cpu_level: &'static str,
    source: fn() -> Result<PathBuf>,
    /// How `build` is to pack it.
    packing: &'static [&'static str],
}

const RELEASES: [Release; 2] = [
    Release {
        version: RELEASE,
        cpu_level: "x86-64-v1",
        source: images::release_ova,
        packing: &[],
    },
    Release {
        version: NEXT_RELEASE,
        cpu_level: "x86-64-v2",
        source: images::next_release_tree,
        packing: &[],
    },
];

/// The same for appliances of the RHEL family's shape; they differ in their numbers
/// and in how they are packed.
const RHEL_RELEASES: [Release; 2] = [
    Release {
        version: RELEASE,
        cpu_level: "x86-64-v2",
        source: images::rhel_release,
        packing: &["--codec=zstd", "--fast"],
    },
    Release {
        version: NEXT_RELEASE,
        cpu_level: "x86-64-v2",
        source: images::rhel_release,
        packing: &["--fast"],
    },
];

/// Tells whether the tests that take long run as well.
pub fn runs_all() -> bool {
    env::var_os("VA_UPGRADE_ALL").is_some()
}

static PAYLOAD: OnceLock<Result<PathBuf, String>> = OnceLock::new();

/// Returns the disk with the program under test and the bundles it built.
fn payload() -> Result<&'static Path> {
    once(&PAYLOAD, || {
        let dir = disk_dir()?;
        build_bundles(dir.path(), &RELEASES)?;
        make_payload(dir.path(), "payload.raw")
    })
}

/// Makes that disk of the program under test, a public key and the bundle of
/// [`RELEASE`], which come from elsewhere.
pub fn use_payload(public_key: &Path, bundle: &Path) -> Result<()> {
    let pack = || {
        let dir = disk_dir()?;
        let at = |name: &str| dir.path().join(name);
        fs::copy(program()?, at("va-upgrade"))?;
        fs::copy(public_key, at("lab.pem"))?;
        fs::copy(bundle, at(&format!("{RELEASE}.vab")))?;
        make_payload(dir.path(), "payload.raw")
    };
    once(&PAYLOAD, pack).map(drop)
}

/// Makes a disk with a file system that holds what is in `dir`.
pub fn make_payload(dir: &Path, name: &str) -> Result<PathBuf> {
    let payload = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    File::create(&payload)?.set_len(PAYLOAD_SIZE)?;
    let mkfs = Cmd::new("mkfs.ext4").args(["-q", "-F", "-O", "^has_journal", "-d"]);
    host().run(&mkfs.arg(dir).arg(&payload))?;
    Ok(payload)
}

/// Packs releases with the program under test, as a release pipeline would.
fn build_bundles(dir: &Path, releases: &[Release]) -> Result<()> {
    let program = program()?;
    let at = |name: &str| dir.join(name);
    fs::copy(&program, at("va-upgrade"))?;
    let key = Cmd::new("openssl").args(["genpkey", "-algorithm", "ed25519", "-out"]);
    host().run(&key.arg(at("key.pem")))?;
    let public = Cmd::new("openssl").args(["pkey", "-pubout", "-in"]);
    host().run(&public.arg(at("key.pem")).arg("-out").arg(at("lab.pem")))?;
    for release in releases {
        let version = release.version;
        let source = (release.source)()?;
        say(&format!(
            "building the bundle of {version} from {}",
            source.display()
        ));
        let description = at("release.yaml");
        let level = release.cpu_level;
        fs::write(
            &description,
            format!("product: lab-appliance\nversion: {version}\ncpu_level: {level}\n"),
        )?;
        let build = Cmd::new(&program)
            .arg("build")
            .arg(source)
            .arg("-o")
            .arg(at(&format!("{version}.vab")))
            .arg("--release")
            .arg(&description)
            .arg("--key")
            .arg(at("key.pem"))
            .args(release.packing)
            .limit(Duration::from_secs(40 * 60));
        host().run(&build)?;
    }
    Ok(())
}

/// Finds the static binary that `scripts/build` makes.
pub fn program() -> Result<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("dist/va-upgrade");
    ensure!(
        path.exists(),
        "{} is not there; run scripts/build",
        path.display()
    );
    Ok(path)
}
