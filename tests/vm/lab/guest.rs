//! A virtual machine, driven one command at a time.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Error, Result, anyhow, ensure};
use serde_json::json;
use tempfile::TempDir;
use va_upgrade::system::{Cmd, System};

use super::channel::{Channel, Output, to_base64};
use super::host;
use super::qemu::{Hardware, Qemu, monitor};

/// How long anything may take on a busy machine that emulates every
/// instruction; a test that fails by it waits long, one that passes never.
const PATIENCE: Duration = Duration::from_secs(20 * 60);

/// How long a guest that may be restarting has for one answer, at first and at most:
/// what it was asked before it restarted is never answered.
const FIRST_LIMIT: Duration = Duration::from_secs(5);
const LONGEST_LIMIT: Duration = Duration::from_secs(40);

const BOOT_ID: &str = "cat /proc/sys/kernel/random/boot_id";

/// A machine with a system disk it writes and a payload disk it only reads.
pub struct Guest {
    name: String,
    hardware: Hardware,
    disk: PathBuf,
    payload: PathBuf,
    console: PathBuf,
    firmware_log: PathBuf,
    sockets: TempDir,
    write_log: Option<PathBuf>,
    qemu: Option<Qemu>,
    channel: Option<Channel>,
    boot_id: String,
}

impl Guest {
    /// Describes a machine that is switched off. `disk` is its own qcow2.
    pub fn new(name: &str, disk: PathBuf, payload: &Path, hardware: Hardware) -> Result<Guest> {
        let log = |kind: &str| -> Result<PathBuf> {
            let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.{kind}"));
            fs::write(&path, "")?;
            Ok(path)
        };
        let (console, firmware_log) = (log("console")?, log("firmware")?);
        Ok(Guest {
            name: name.to_owned(),
            hardware,
            disk,
            payload: payload.to_owned(),
            console,
            firmware_log,
            // The name of a socket must be short.
            sockets: tempfile::Builder::new().prefix("va-lab").tempdir()?,
            write_log: None,
            qemu: None,
            channel: None,
            boot_id: String::new(),
        })
    }

    /// Switches the machine on and waits until its system has started.
    pub fn power_on(&mut self) -> Result<()> {
        self.start(&[])?;
        self.wait_for_boot()
    }

    /// Has every write, flush and discard of the system's disk written down in `log`,
    /// from the next start on. No snapshot can be made of such a machine.
    pub fn record_writes(&mut self, log: &Path) -> Result<()> {
        fs::write(log, "").with_context(|| format!("making {}", log.display()))?;
        self.write_log = Some(log.to_owned());
        Ok(())
    }

    /// Has the system shut down, and waits until the machine is off.
    pub fn power_off(&mut self) -> Result<()> {
        self.ask("systemctl poweroff --no-block", FIRST_LIMIT)?;
        let end = Instant::now() + PATIENCE;
        while self.running()?.alive()? {
            ensure!(Instant::now() < end, self.failure("it does not switch off"));
            thread::sleep(Duration::from_millis(100));
        }
        self.cut_power()
    }

    /// Goes on where [`Guest::save`] saved the running machine.
    #[expect(clippy::disallowed_methods, reason = "the guest gets the host's time")]
    pub fn resume(&mut self, snapshot: &str) -> Result<()> {
        self.start(&["-loadvm".into(), snapshot.into()])?;
        let id = self.ok(BOOT_ID)?;
        self.boot_id = id;
        // The snapshot's clock may be days behind.
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
        self.ok(&format!("date --set=@{}", now.as_secs())).map(drop)
    }

    /// Saves the running machine inside its disk.
    pub fn save(&mut self, snapshot: &str) -> Result<()> {
        self.ok("sync")?;
        monitor(
            &self.sockets.path().join("monitor"),
            &format!("savevm {snapshot}"),
        )
    }

    /// Ends the machine at once, whatever it is doing.
    pub fn cut_power(&mut self) -> Result<()> {
        self.channel = None;
        match self.qemu.take() {
            Some(mut qemu) => qemu.kill(),
            None => Ok(()),
        }
    }

    /// Runs a script in bash.
    pub fn run(&mut self, script: &str) -> Result<Output> {
        let answer = match &mut self.channel {
            Some(channel) => channel.request(script, PATIENCE),
            None => Err(anyhow!("the machine is off")),
        };
        match answer {
            Ok(Some(output)) => Ok(output),
            Ok(None) => Err(self.failure(&format!("no answer to `{script}`"))),
            Err(error) => Err(self.failure(&format!("`{script}`: {error:#}"))),
        }
    }

    /// Runs a script that must succeed; returns its stdout, trimmed.
    pub fn ok(&mut self, script: &str) -> Result<String> {
        let output = self.run(script)?;
        ensure!(
            output.status == 0,
            self.failure(&format!("`{script}` in the guest: {output:?}"))
        );
        Ok(output.stdout.trim().to_owned())
    }

    /// Writes a small file.
    pub fn put(&mut self, path: &str, content: &str, mode: u32) -> Result<()> {
        let encoded = to_base64(content.as_bytes());
        let script = format!(
            "mkdir -p $(dirname {path}) && base64 -d <<<'{encoded}' >{path} && chmod {mode:o} {path}"
        );
        self.ok(&script).map(drop)
    }

    /// Restarts the system and waits until it has started again.
    pub fn reboot(&mut self) -> Result<()> {
        self.start_reboot()?;
        self.wait_for_boot()
    }

    /// Asks the system to restart, without waiting for anything.
    pub fn start_reboot(&mut self) -> Result<()> {
        // The agent is often stopped before it has answered.
        self.ask("systemctl reboot --no-block", FIRST_LIMIT)
            .map(drop)
    }

    /// Waits until a system other than the last one seen has started wholly.
    pub fn wait_for_boot(&mut self) -> Result<()> {
        self.wait_for_boot_of("/dev/")
    }

    /// The same for a system whose root is a device of this name, however many
    /// others start before it.
    pub fn wait_for_boot_of(&mut self, root: &str) -> Result<()> {
        let before = self.boot_id.clone();
        let script = format!("{BOOT_ID}; findmnt -no SOURCE /; systemctl is-system-running");
        let answer = self.wait_until(&script, |answer| {
            let words: Vec<&str> = answer.split_whitespace().collect();
            words.len() == 3
                && words[0] != before
                && words[1].starts_with(root)
                && matches!(words[2], "running" | "degraded")
        })?;
        self.boot_id = answer
            .split_whitespace()
            .next()
            .unwrap_or_default()
            .to_owned();
        Ok(())
    }

    /// Asks the guest again and again, through restarts too, until the answer is
    /// as wanted; returns that answer.
    pub fn wait_until(&mut self, script: &str, wanted: impl Fn(&str) -> bool) -> Result<String> {
        let end = Instant::now() + PATIENCE;
        let mut last = String::new();
        let mut limit = FIRST_LIMIT;
        loop {
            let answer = self.ask(script, limit)?;
            if wanted(&answer) {
                return Ok(answer);
            }
            if answer.is_empty() {
                // It may be too busy for an answer in that time.
                limit = (limit * 2).min(LONGEST_LIMIT);
            } else {
                last = answer;
            }
            let late = || self.failure(&format!("`{script}` still says {last:?}"));
            ensure!(Instant::now() < end, late());
            thread::sleep(Duration::from_millis(300));
        }
    }

    /// Returns everything the machine ever wrote to its console.
    pub fn console(&self) -> String {
        let text = fs::read(&self.console).unwrap_or_default();
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Returns the kernel command lines of all boots so far, oldest first, of
    /// those that never got as far as a shell too.
    pub fn command_lines(&self) -> Vec<String> {
        self.console()
            .lines()
            .filter_map(|line| line.split_once("] Command line: "))
            .map(|(_, words)| words.trim().to_owned())
            .collect()
    }

    /// Counts how often the firmware started the disk's boot sector.
    pub fn firmware_boots(&self) -> usize {
        let log = fs::read(&self.firmware_log).unwrap_or_default();
        String::from_utf8_lossy(&log)
            .matches("Booting from Hard Disk")
            .count()
    }

    /// Asks a question that a restarting guest may leave unanswered.
    fn ask(&mut self, script: &str, limit: Duration) -> Result<String> {
        self.running()?.must_be_alive()?;
        let channel = self.channel.as_mut().context("the machine is off")?;
        let answer = channel.request(script, limit);
        match answer {
            Ok(Some(output)) => Ok(output.stdout.trim().to_owned()),
            Ok(None) => Ok(String::new()),
            Err(error) => Err(self.failure(&format!("{error:#}"))),
        }
    }

    fn start(&mut self, more: &[String]) -> Result<()> {
        ensure!(self.qemu.is_none(), "{} is already on", self.name);
        let dir = self.sockets.path();
        let mut words = self.hardware.words();
        let (agent, monitor) = (dir.join("agent"), dir.join("monitor"));
        let pairs = [
            (
                "-chardev",
                format!("file,id=console,path={},append=on", self.console.display()),
            ),
            ("-serial", "chardev:console".into()),
            (
                "-chardev",
                format!(
                    "file,id=firmware,path={},append=on",
                    self.firmware_log.display()
                ),
            ),
            // SeaBIOS tells its story on this port.
            (
                "-device",
                "isa-debugcon,iobase=0x402,chardev=firmware".into(),
            ),
            (
                "-chardev",
                format!(
                    "socket,id=agent,path={},server=on,wait=off",
                    agent.display()
                ),
            ),
            ("-device", "virtserialport,chardev=agent,name=va.lab".into()),
            (
                "-qmp",
                format!("unix:{},server=on,wait=off", monitor.display()),
            ),
            self.system_disk(),
            ("-device", "virtio-blk-pci,drive=system,bootindex=0".into()),
            (
                "-drive",
                format!(
                    "if=none,id=payload,format=raw,readonly=on,file={}",
                    self.payload.display()
                ),
            ),
            (
                "-device",
                "virtio-blk-pci,drive=payload,serial=payload".into(),
            ),
        ];
        for (option, value) in pairs {
            words.extend([option.to_owned(), value]);
        }
        words.extend_from_slice(more);
        let mut qemu = Qemu::start(&words, &dir.join("log"))?;
        let end = Instant::now() + PATIENCE;
        let channel = loop {
            match Channel::connect(&agent) {
                Ok(channel) => break channel,
                Err(error) => {
                    qemu.must_be_alive()?;
                    ensure!(
                        Instant::now() < end,
                        "connecting to the agent's socket: {error:#}"
                    );
                    thread::sleep(Duration::from_millis(20));
                }
            }
        };
        self.qemu = Some(qemu);
        self.channel = Some(channel);
        Ok(())
    }

    /// Describes the system's disk to QEMU.
    fn system_disk(&self) -> (&'static str, String) {
        let Some(log) = &self.write_log else {
            let disk = self.disk.display();
            let plain = format!("if=none,id=system,format=qcow2,discard=unmap,file={disk}");
            return ("-drive", plain);
        };
        let file = |path: &Path| json!({"driver": "file", "filename": path, "discard": "unmap"});
        let node = json!({
            "driver": "blklogwrites", "node-name": "system", "discard": "unmap",
            "log-sector-size": 512, "log": file(log),
            "file": {"driver": "qcow2", "discard": "unmap", "file": file(&self.disk)},
        });
        ("-blockdev", node.to_string())
    }

    fn running(&mut self) -> Result<&mut Qemu> {
        self.qemu.as_mut().context("the machine is off")
    }

    /// Makes an error that shows where the guest stood.
    fn failure(&self, text: &str) -> Error {
        anyhow!(
            "{}: {text}\n--- its console ended with\n{}",
            self.name,
            self.console_tail()
        )
    }

    fn console_tail(&self) -> String {
        let console = self.console();
        let lines: Vec<&str> = console.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!(
                "--- the console of {} ended with\n{}",
                self.name,
                self.console_tail()
            );
        }
    }
}

/// Makes a qcow2 at `path` on top of `base`, which is never written.
pub fn overlay(base: &Path, format: &str, path: &Path) -> Result<()> {
    let cmd = Cmd::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2", "-F", format, "-b"])
        .arg(base)
        .arg(path);
    host().run(&cmd).map(drop)
}
