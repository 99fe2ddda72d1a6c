//! A fake appliance below a temporary directory.
//!
//! Files, the partition table, boot sectors, bundles and the boot state are
//! real; programs and mounts are answered here. Any program it was not told of
//! is an error, and any one call can be made to fail.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::mpsc::Receiver;
use std::time::{Duration, SystemTime};

use crate::incident::Incident;
use crate::parts::{CPUINFO, make_disk};
pub use crate::parts::{Fault, boot_img, core_img, scratch};
use crate::{boots, incident, programs};
use anyhow::{Context, Result, bail};
use va_upgrade::appliance::Appliance;
use va_upgrade::boot::bios::area::BootArea;
use va_upgrade::config::Config;
use va_upgrade::system::{Cmd, Mount, Restart, System};
use va_upgrade::upgrade::trial::confirm;

pub const BOOT_UUID: &str = "0b1c2d3e-0000-4000-8000-000000000001";

pub struct Machine {
    root: PathBuf,
    /// Removes the directory, unless it is another's.
    _scratch: Option<tempfile::TempDir>,
    state: Mutex<Calls>,
}

/// Words of a call, and what happens within it.
type Event = (&'static str, fn(&Machine));

#[derive(Default)]
struct Calls {
    count: usize,
    /// A test has made it unbootable.
    is_damaged: bool,
    fail_at: Option<usize>,
    fault: Fault,
    fail_on: Option<&'static str>,
    failed: Option<String>,
    /// Whatever is waited for with a limit comes too late.
    is_out_of_time: bool,
    /// What comes within a call, by its number.
    incident_at: Option<(usize, Incident)>,
    has_met: bool,
    /// What the clock says, one look after the other; else what it is.
    clock: VecDeque<SystemTime>,
    /// What a test does within the next call that holds these words.
    meanwhile: Option<Event>,
    log: Vec<String>,
    mounts: Vec<(PathBuf, PathBuf)>,
    reboots: Vec<Restart>,
    answers: BTreeMap<&'static str, String>,
    /// `setfiles` has done its work.
    is_labelled: bool,
}

impl Machine {
    /// An appliance as an installer leaves it: runs from `root`, knows nothing of us.
    pub fn fresh() -> Machine {
        let scratch = scratch();
        let machine = Machine {
            root: scratch.path().to_owned(),
            _scratch: Some(scratch),
            state: Mutex::default(),
        };
        machine.write(
            "/proc/cmdline",
            "BOOT_IMAGE=/vmlinuz-5.10 root=/dev/mapper/VA-root ro console=ttyS0\n",
        );
        machine.write("/proc/cpuinfo", CPUINFO);
        machine.write("/proc/meminfo", "MemAvailable: 1000000 kB\n");
        machine.write("/dev/vda2", "");
        machine.write("/proc/sys/kernel/osrelease", "5.10.0-1\n");
        machine.write(
            "/proc/net/route",
            "Iface\tDestination\tGateway\neth0\t00000000\t0202000A\t3\t0\t0\t0\n",
        );
        machine.write("/proc/uptime", "5000.00 1.0\n");
        machine.write("/proc/self/exe", "the program");
        machine.write("/proc/sysrq-trigger", "");
        machine.write("/sys/dev/block/253:0/dm/name", "VA-root\n");
        machine.write("/sys/class/net/eth0/address", "52:54:00:00:00:01\n");
        machine.write("/sys/class/net/eth0/device/x", "");
        machine.write("/sys/devices/vda/vda3/partition", "3");
        fs::create_dir_all(machine.at("/sys/class/block")).unwrap();
        symlink(
            machine.at("/sys/devices/vda/vda3"),
            machine.at("/sys/class/block/vda3"),
        )
        .unwrap();
        machine.run_from("root", "253:0");
        machine.write("/boot/vmlinuz-5.10.0-1", "old kernel");
        machine.write("/boot/initrd.img-5.10.0-1", "old initramfs");
        machine.write("/lib/modules/5.10.0-1/modules.dep", "");
        machine.write("/boot/grub/grub.cfg", "menu of the installer");
        machine.write("/boot/grub/i386-pc/normal.mod", "old module");
        machine.write(
            "/etc/fstab",
            "/dev/mapper/VA-root / ext4 defaults 0 1\n/dev/VA/data /data ext4 defaults 0 2\n",
        );
        machine.write("/etc/os-release", "ID=debian\nVERSION_ID=\"11\"\n");
        machine.write("/etc/va-upgrade/config.yaml", "product: acme\n");
        for dir in [
            "/run",
            "/dev/pts",
            "/usr/sbin",
            "/data",
            "/devices/VA-back",
            "/devices/VA-root",
        ] {
            fs::create_dir_all(machine.at(dir)).unwrap();
        }
        make_disk(&machine.at("/dev/vda"));
        machine.write("/dev/VA/back", "");
        machine.write("/dev/VA/root", "");
        machine
    }

    /// The machine that another process has left in the directory `root`.
    pub fn found(root: &Path) -> Machine {
        Machine {
            root: root.to_owned(),
            _scratch: None,
            state: Mutex::default(),
        }
    }

    /// Lets `work` see the machine as an appliance with the settings it has now.
    pub fn with_appliance<T>(&self, work: impl FnOnce(&Appliance) -> T) -> T {
        let config = self.config();
        work(&Appliance {
            sys: self,
            config: &config,
            progress: incident::progress(),
        })
    }

    /// Confirms the trial that runs.
    pub fn confirm(&self) -> Result<bool> {
        self.with_appliance(|appliance| confirm(appliance, &appliance.lock()?))
    }

    fn config(&self) -> Config {
        let text = fs::read_to_string(self.at("/etc/va-upgrade/config.yaml")).unwrap();
        Config::parse(&text).unwrap()
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

    /// Makes the kernel say which volume is `/`.
    pub fn run_from(&self, volume: &str, number: &str) {
        self.write(
            &format!("/sys/dev/block/{number}/dm/name"),
            &format!("VA-{volume}\n"),
        );
        let lines = format!(
            "1 0 {number} / / rw - ext4 /dev/mapper/VA-{volume} rw\n\
             2 1 252:2 / /boot rw - ext4 /dev/vda2 rw\n\
             3 1 253:2 / /data rw - ext4 /dev/mapper/VA-data rw\n\
             4 1 0:99 / /devices rw - tmpfs none rw\n"
        );
        self.write("/proc/self/mountinfo", &lines);
    }

    /// Boots a slot with the words our menu gives to its kernel.
    pub fn boot(&self, slot: &str, why: &str) {
        self.run_from(slot, if slot == "root" { "253:0" } else { "253:1" });
        let line = format!("root=/dev/mapper/VA-{slot} ro va.slot={slot} va.why={why} va.left=2\n");
        self.write("/proc/cmdline", &line);
    }

    /// Returns what was set for the program or question `name`.
    pub fn answered(&self, name: &str) -> Option<String> {
        self.state.lock().unwrap().answers.get(name).cloned()
    }

    /// Sets what the program or question `name` answers.
    pub fn answer(&self, name: &'static str, text: &str) {
        self.state
            .lock()
            .unwrap()
            .answers
            .insert(name, text.to_owned());
    }

    /// Stops answering as it was told to for `name`.
    pub fn forget_answer(&self, name: &str) {
        self.state.lock().unwrap().answers.remove(name);
    }

    /// Tells whether every file has a label.
    pub fn is_labelled(&self) -> bool {
        self.state.lock().unwrap().is_labelled
    }

    /// Lets every file have a label.
    pub fn be_labelled(&self) {
        self.state.lock().unwrap().is_labelled = true;
    }

    /// Says that the test itself makes this machine unbootable.
    pub fn be_damaged(&self) {
        self.state.lock().unwrap().is_damaged = true;
    }

    /// Says that it is bootable again, and that every step is to keep it so.
    pub fn be_watched(&self) {
        self.state.lock().unwrap().is_damaged = false;
    }

    /// Makes the call number `step`, counted from now, go wrong.
    pub fn fail_at(&self, step: usize, fault: Fault) {
        let mut state = self.state.lock().unwrap();
        state.fail_at = Some(state.count + step);
        state.fault = fault;
    }

    /// Has `incident` come within the call number `step`, counted from now.
    pub fn meet_at(&self, step: usize, incident: Incident) {
        let mut state = self.state.lock().unwrap();
        state.incident_at = Some((state.count + step, incident));
    }

    /// Tells whether an incident that was to come has come.
    pub fn has_met(&self) -> bool {
        self.state.lock().unwrap().has_met
    }

    /// Has the clock say these times, one look after the other, over and over.
    pub fn set_clock(&self, times: impl IntoIterator<Item = SystemTime>) {
        self.state.lock().unwrap().clock = times.into_iter().collect();
    }

    /// Makes the next call that holds `words` fail.
    pub fn fail_on(&self, words: &'static str) {
        self.state.lock().unwrap().fail_on = Some(words);
    }

    /// Makes the next call that holds `words` do nothing and say that all is well.
    pub fn lie_on(&self, words: &'static str) {
        let mut state = self.state.lock().unwrap();
        state.fail_on = Some(words);
        state.fault = Fault::Lies;
    }

    /// Has `event` happen within the next call that holds `words`; every pause
    /// is called `wait`.
    pub fn meanwhile(&self, words: &'static str, event: fn(&Machine)) {
        self.state.lock().unwrap().meanwhile = Some((words, event));
    }

    /// Lets every limit pass at once.
    pub fn run_out_of_time(&self) {
        self.state.lock().unwrap().is_out_of_time = true;
    }

    fn happen(&self, what: &str) {
        let mut state = self.state.lock().unwrap();
        let due = state.meanwhile.take_if(|(words, _)| what.contains(*words));
        drop(state);
        if let Some((_, event)) = due {
            event(self);
        }
    }

    /// Returns the call that was made to fail, if it came to that.
    pub fn failed_call(&self) -> Option<String> {
        self.state.lock().unwrap().failed.clone()
    }

    pub fn mounts(&self) -> Vec<PathBuf> {
        self.state
            .lock()
            .unwrap()
            .mounts
            .iter()
            .map(|(_, target)| target.clone())
            .collect()
    }

    pub fn reboots(&self) -> Vec<Restart> {
        self.state.lock().unwrap().reboots.clone()
    }

    pub fn log(&self) -> String {
        self.state.lock().unwrap().log.join("\n")
    }

    /// Everything below a directory with its content.
    pub fn snapshot(&self, path: &str) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut found = BTreeMap::new();
        let mut todo = vec![self.at(path)];
        while let Some(dir) = todo.pop() {
            for entry in fs::read_dir(&dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    todo.push(path);
                } else {
                    found.insert(path.clone(), fs::read(&path).unwrap());
                }
            }
        }
        found
    }

    /// The disk's sectors of boot code and of the bios_grub partition.
    pub fn boot_area(&self) -> Vec<u8> {
        fs::read(self.at("/dev/vda")).unwrap()
    }

    /// Does what a package's `grub-install` does; the test looks after the rest.
    pub fn install_foreign_grub(&self) {
        self.be_damaged();
        let core = core_img("/boot");
        fs::write(self.at("/boot/grub/i386-pc/core.img"), &core).unwrap();
        let area = BootArea::change(&self.at("/dev/vda")).unwrap();
        let place = area.write_core(&core).unwrap();
        area.switch(&boot_img(), place.start_lba).unwrap();
    }

    /// Takes a step that either is done or fails.
    fn step(&self, what: String) -> Result<()> {
        match self.take(what.clone())? {
            Some(_) => bail!("{what}: made to fail"),
            None => Ok(()),
        }
    }

    /// Takes a step; returns what is to go wrong with it.
    fn take(&self, what: String) -> Result<Option<Fault>> {
        let is_watched = !self.state.lock().unwrap().is_damaged;
        if is_watched && let Some(fault) = boots::fault(self) {
            let log = self.log();
            panic!("before `{what}` this machine would not boot: {fault}\n{log}");
        }
        self.happen(&what);
        let mut state = self.state.lock().unwrap();
        let count = state.count;
        state.count += 1;
        state.log.push(what.clone());
        if let Some((_, incident)) = state.incident_at.take_if(|(step, _)| *step == count) {
            state.has_met = true;
            incident.come();
        }
        let hit = state.fail_on.is_some_and(|words| what.contains(words));
        if hit || state.fail_at == Some(count) {
            state.fail_on = None;
            state.failed = Some(what);
            return Ok(Some(state.fault));
        }
        Ok(None)
    }

    /// Has what was written to `back` run, and what ran lie in `root`.
    pub fn swap_slots(&self) {
        for name in ["bin", "etc", "home", "lib", "root", "sbin", "usr", "var"] {
            let running = self.at(&format!("/{name}"));
            for (from, to) in [
                (
                    running.clone(),
                    self.at(&format!("/devices/VA-root/{name}")),
                ),
                (self.at(&format!("/devices/VA-back/{name}")), running),
            ] {
                if from.symlink_metadata().is_ok() {
                    fs::rename(from, to).unwrap();
                }
            }
        }
    }

    pub fn device_dir(&self, device: &Path) -> PathBuf {
        let volume = device.file_name().unwrap().to_string_lossy().into_owned();
        self.at(&format!("/devices/VA-{volume}"))
    }
}

impl System for Machine {
    fn root(&self) -> &Path {
        &self.root
    }

    fn run(&self, cmd: &Cmd) -> Result<String> {
        match self.take(cmd.to_string())? {
            Some(Fault::Lies) => Ok(String::new()),
            Some(Fault::FailsAfterItsWork) => {
                programs::run(self, cmd)?;
                bail!("{cmd}: made to fail after its work")
            }
            Some(Fault::Fails) => bail!("{cmd}: made to fail"),
            None => programs::run(self, cmd),
        }
    }

    fn mount(&self, mount: &Mount) -> Result<()> {
        self.step(format!(
            "mount {} on {}",
            mount.source.display(),
            mount.point.display()
        ))?;
        if mount.fs_type.is_some() {
            fs::remove_dir(&mount.point)?;
            fs::rename(self.device_dir(&mount.source), &mount.point)?;
        }
        self.state
            .lock()
            .unwrap()
            .mounts
            .push((mount.source.clone(), mount.point.clone()));
        Ok(())
    }

    fn unmount(&self, at: &Path) -> Result<()> {
        // What is undone is undone; a real unmount that fails is reported, and
        // the kernel ends it with the process.
        let mut state = self.state.lock().unwrap();
        let place = state
            .mounts
            .iter()
            .rposition(|(_, target)| target == at)
            .context("not mounted")?;
        let (source, target) = state.mounts.remove(place);
        drop(state);
        let groups = ["/dev/VA", "/dev/vg0", "/dev/mapper", "/dev/vda2"];
        if groups.iter().any(|group| source.starts_with(group)) {
            fs::rename(&target, self.device_dir(&source))?;
            fs::create_dir(&target)?;
        }
        self.step(format!("unmount {}", at.display()))
    }

    fn reboot(&self, how: Restart) -> Result<()> {
        self.step("reboot".into())?;
        self.state.lock().unwrap().reboots.push(how);
        Ok(())
    }

    fn now(&self) -> SystemTime {
        let mut state = self.state.lock().unwrap();
        let len = state.clock.len();
        state.clock.rotate_left(1.min(len));
        state.clock.back().copied().unwrap_or_else(SystemTime::now)
    }

    /// Nothing happens here by itself, so time passes at once.
    fn wait(&self, time: Duration) {
        self.happen("wait");
        let uptime = self.read("/proc/uptime");
        let now: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
        let later = now + time.as_secs_f64();
        self.write("/proc/uptime", &format!("{later:.2} 1.0\n"));
    }

    fn wait_for(&self, word: &Receiver<()>, _limit: Duration) -> bool {
        if self.state.lock().unwrap().is_out_of_time {
            return false;
        }
        word.recv().is_ok()
    }

    fn lock_memory(&self) -> Result<()> {
        self.step("lock memory".into())
    }

    fn selinux_label(&self, _path: &Path) -> io::Result<Option<Vec<u8>>> {
        let is_labelled = self.state.lock().unwrap().is_labelled;
        Ok(is_labelled.then(|| b"system_u:object_r:lib_t:s0\0".to_vec()))
    }
}
