//! A fake machine with one root on a plain partition, and the environment that its
//! GRUB starts: the same directory, where the root is "mounted" by a link.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::mpsc::Receiver;
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, SystemTime};

use anyhow::{Result, bail};
use va_upgrade::appliance::Appliance;
use va_upgrade::bundle::{PackOptions, load_signing_key};
use va_upgrade::config::Config;
use va_upgrade::migrate::in_ram::{self, Options, Prospect};
use va_upgrade::migrate::order::Mode;
use va_upgrade::progress::Silent;
use va_upgrade::system::{Cmd, Mount, Restart, System};

use crate::machine::scratch;
use crate::release::{make_tree, pack};
use crate::settings::{collect, old_system};

pub const UUID: &str = "5c6b7d0e-1a2b-4c3d-8e4f-0123456789ab";
pub const BUNDLE: &str = "/root/new.vab";
pub const DISK_BYTES: u64 = 8 << 30;

/// Of a disk, what is compared at either end.
const EDGE_BYTES: usize = 2 << 20;

/// Returns an archive of what a customer has set.
pub fn settings() -> &'static [u8] {
    static ARCHIVE: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let dir = scratch();
        let path = dir.path().join("settings");
        collect(&old_system(), &path).unwrap();
        fs::read(path).unwrap()
    });
    &ARCHIVE
}

/// What a test does to a machine.
pub type Spoil = fn(&SingleRoot);

pub struct SingleRoot {
    root: PathBuf,
    _scratch: tempfile::TempDir,
    calls: Mutex<Calls>,
}

#[derive(Default)]
struct Calls {
    log: Vec<String>,
    fail_at: Option<usize>,
    /// Every call with these words fails, but for so many of them.
    fail_on: Option<(&'static str, usize)>,
    mounts: Vec<PathBuf>,
    /// The lines of lvs(8).
    volumes: Vec<String>,
    is_hung: bool,
}

impl SingleRoot {
    /// A machine of Debian 11's shape, with a signed bundle on its disk.
    pub fn new() -> SingleRoot {
        let scratch = scratch();
        let machine = SingleRoot {
            root: scratch.path().to_owned(),
            _scratch: scratch,
            calls: Mutex::default(),
        };
        for (path, text) in [
            (
                "/boot/grub/grub.cfg",
                include_str!("../data/grub-debian-11.cfg"),
            ),
            ("/boot/grub/i386-pc/normal.mod", "module"),
            ("/boot/grub/grubenv", "# GRUB Environment Block\n"),
            ("/etc/va-upgrade/config.yaml", "product: acme\n"),
            (
                "/etc/va-upgrade/trusted.d/key.pem",
                include_str!("../data/migration-trusted.pem"),
            ),
            (
                "/proc/cmdline",
                "BOOT_IMAGE=/boot/vmlinuz root=UUID=1 ro quiet console=ttyS0\n",
            ),
            (
                "/proc/meminfo",
                "MemTotal: 1000000 kB\nMemFree: 1 kB\nMemAvailable: 900000 kB\n",
            ),
            (
                "/proc/self/mountinfo",
                "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n",
            ),
            ("/proc/swaps", "Filename Type Size Used Priority\n"),
            ("/proc/sysrq-trigger", ""),
            ("/sys/devices/sda/size", "16777216\n"),
            ("/sys/devices/sda/queue/logical_block_size", "512\n"),
            ("/sys/devices/sda/sda1/partition", "1\n"),
            ("/dev/sda1", ""),
        ] {
            machine.write(path, text);
        }
        for dir in ["/sys/class/block", "/sys/dev/block", "/run", "/root"] {
            fs::create_dir_all(machine.at(dir)).unwrap();
        }
        for (link, to) in [
            ("/sys/class/block/sda", "/sys/devices/sda"),
            ("/sys/class/block/sda1", "/sys/devices/sda/sda1"),
            ("/sys/dev/block/8:0", "/sys/devices/sda"),
            ("/sys/dev/block/8:1", "/sys/devices/sda/sda1"),
        ] {
            symlink(machine.at(to), machine.at(link)).unwrap();
        }
        let disk = fs::File::create(machine.at("/dev/sda")).unwrap();
        disk.write_all_at(&[0xef, 0xbe, 0xad, 0xde], 440).unwrap();
        disk.write_all_at(&[0x55, 0xaa], 510).unwrap();
        disk.set_len(DISK_BYTES).unwrap();
        machine.make_bundle(true);
        machine
    }

    /// Makes the bundle anew, with or without an environment.
    pub fn make_bundle(&self, has_environment: bool) {
        let dir = scratch();
        let tree = dir.path().join("tree");
        make_tree(&tree, "6.1.0-2");
        if has_environment {
            fs::write(tree.join("boot/va-migrate-6.1.0-2.img"), "environment").unwrap();
        }
        let key = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/migration-key.pem");
        let options = PackOptions {
            key: Some(load_signing_key(&key).unwrap()),
            ..PackOptions::new(1, 1_700_000_000)
        };
        pack(&tree, "9.4.1", &options, &self.at(BUNDLE));
    }

    pub fn with_appliance<T>(&self, work: impl FnOnce(&Appliance) -> T) -> T {
        let config = Config::default();
        work(&Appliance {
            sys: self,
            config: &config,
            progress: &Silent,
        })
    }

    /// Has the next start rehearse the move, or do it.
    pub fn prepare(&self, mode: Mode) -> Result<Prospect> {
        self.with_options(mode, in_ram::prepare)
    }

    /// Only runs the checks.
    pub fn check(&self) -> Result<Prospect> {
        self.with_options(Mode::Migrate, in_ram::check)
    }

    fn with_options(
        &self,
        mode: Mode,
        work: fn(&Appliance, &Options) -> Result<Prospect>,
    ) -> Result<Prospect> {
        let collect = |_: &Appliance, to: &Path, _: &[&Path]| Ok(fs::write(to, settings())?);
        let options = Options {
            bundle: Path::new(BUNDLE),
            mode,
            threads: 1,
            collect: &collect,
        };
        self.with_appliance(|appliance| work(appliance, &options))
    }

    /// Lets GRUB start the environment: it knows no mounts, and its kernel has the words
    /// of the entry.
    pub fn start_environment(&self) {
        let custom = self.read("/boot/grub/custom.cfg");
        let mut lines = custom.lines();
        let words = lines.find_map(|line| line.split_once("if linux $prefix/va-migrate/vmlinuz "));
        let words = words.unwrap().1;
        self.write("/proc/cmdline", words.trim_end_matches("; then"));
        self.write(
            "/proc/self/mountinfo",
            "1 0 0:1 / / rw - rootfs rootfs rw\n",
        );
    }

    pub fn at(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    pub fn write(&self, path: &str, text: &str) {
        fs::create_dir_all(self.at(path).parent().unwrap()).unwrap();
        fs::write(self.at(path), text).unwrap();
    }

    pub fn read(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap()
    }

    /// Every file that outlives a restart, with its content.
    pub fn snapshot(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut found = BTreeMap::new();
        let mut todo: Vec<PathBuf> = ["/boot", "/etc", "/root", "/dev"]
            .map(|it| self.at(it))
            .into();
        while let Some(dir) = todo.pop() {
            for entry in fs::read_dir(&dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    todo.push(path);
                } else {
                    let content = content(&path);
                    found.insert(path, content);
                }
            }
        }
        found
    }

    pub fn fail_at(&self, call: usize) {
        self.calls.lock().unwrap().fail_at = Some(call);
    }

    pub fn fail_on(&self, words: &'static str) {
        self.fail_on_later(words, 0);
    }

    /// Lets so many calls with these words pass first.
    pub fn fail_on_later(&self, words: &'static str, passed: usize) {
        self.calls.lock().unwrap().fail_on = Some((words, passed));
    }

    /// Lets every limit pass at once.
    pub fn hang(&self) {
        self.calls.lock().unwrap().is_hung = true;
    }

    pub fn log(&self) -> String {
        self.calls.lock().unwrap().log.join("\n")
    }

    pub fn mounts(&self) -> Vec<PathBuf> {
        self.calls.lock().unwrap().mounts.clone()
    }

    /// Knows of volumes what was made of them last.
    fn lvm(&self, text: &str) -> String {
        let mut calls = self.calls.lock().unwrap();
        let value = |name: &str| {
            let mut words = text.split_whitespace();
            words.find_map(|word| word.strip_prefix(name)).unwrap()
        };
        match text.split_whitespace().nth(1).unwrap() {
            "vgcreate" => calls.volumes.clear(),
            "lvcreate" => {
                let bytes = value("--extents=").parse::<u64>().unwrap() << 22;
                let line = format!("  {}|{bytes}|linear\n", value("--name="));
                calls.volumes.push(line);
            }
            "lvs" => return calls.volumes.concat(),
            _ => {}
        }
        String::new()
    }

    fn step(&self, what: String) -> Result<()> {
        let mut calls = self.calls.lock().unwrap();
        let mut hit = calls.fail_at == Some(calls.log.len());
        if let Some((words, passed)) = &mut calls.fail_on
            && what.contains(*words)
        {
            hit |= *passed == 0;
            *passed = passed.saturating_sub(1);
        }
        calls.log.push(what.clone());
        if hit {
            bail!("{what}: made to fail");
        }
        Ok(())
    }
}

/// Returns what is in a file; of a disk, what is at its ends.
fn content(path: &Path) -> Vec<u8> {
    let size = path.metadata().unwrap().len();
    if size != DISK_BYTES {
        return fs::read(path).unwrap();
    }
    let disk = fs::File::open(path).unwrap();
    let mut found = vec![0; 2 * EDGE_BYTES];
    let (first, last) = found.split_at_mut(EDGE_BYTES);
    disk.read_exact_at(first, 0).unwrap();
    disk.read_exact_at(last, size - EDGE_BYTES as u64).unwrap();
    found
}

impl System for SingleRoot {
    fn root(&self) -> &Path {
        &self.root
    }

    fn run(&self, cmd: &Cmd) -> Result<String> {
        let text = cmd.to_string();
        self.step(text.clone())?;
        Ok(match cmd.program().to_str().unwrap() {
            "blkid" if text.ends_with("-V") => String::new(),
            "blkid" if !text.ends_with("/dev/sda1") => bail!("exit status: 2"),
            "blkid" if text.contains("TYPE") => "ext4\n".into(),
            "blkid" => format!("{UUID}\n"),
            "stat" => "4096 100000 100000 90000\n".into(),
            "sh" => "mke2fs 1.47.0\n".into(),
            "losetup" if text.contains("--show") => "/dev/loop0\n".into(),
            "lvm" => self.lvm(&text),
            "sync" | "modprobe" | "mkfs.ext4" | "blockdev" | "chroot" | "cp" | "fsfreeze"
            | "losetup" | "udevadm" | "systemctl" => String::new(),
            _ => bail!("the fake machine does not know {text}"),
        })
    }

    fn mount(&self, mount: &Mount) -> Result<()> {
        self.step(format!(
            "mount {} {} on {}",
            mount.options,
            mount.source.display(),
            mount.point.display()
        ))?;
        if mount.source == Path::new("/dev/sda1") {
            fs::remove_dir(&mount.point)?;
            symlink(&self.root, &mount.point)?;
        }
        self.calls.lock().unwrap().mounts.push(mount.point.clone());
        Ok(())
    }

    fn unmount(&self, at: &Path) -> Result<()> {
        self.calls
            .lock()
            .unwrap()
            .mounts
            .retain(|point| point != at);
        if at.is_symlink() {
            fs::remove_file(at)?;
            fs::create_dir(at)?;
        } else {
            // What was in memory is gone.
            fs::remove_dir_all(at)?;
            fs::create_dir(at)?;
        }
        self.step(format!("unmount {}", at.display()))
    }

    fn reboot(&self, _how: Restart) -> Result<()> {
        bail!("the environment has no service manager")
    }

    fn now(&self) -> SystemTime {
        SystemTime::now()
    }

    fn wait(&self, _time: Duration) {}

    fn wait_for(&self, word: &Receiver<()>, _limit: Duration) -> bool {
        !self.calls.lock().unwrap().is_hung && word.recv().is_ok()
    }

    fn lock_memory(&self) -> Result<()> {
        Ok(())
    }
}
