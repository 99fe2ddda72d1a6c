//! One QEMU process: its command line, its life, its monitor.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use va_upgrade::system::{Cmd, System};

use super::host;
use super::rootfs::Debian;
use super::tell::{say, step};

/// The hardware of a guest.
#[derive(Clone)]
pub struct Hardware {
    /// What QEMU's `-cpu` takes.
    pub cpu: &'static str,
    /// Memory in MiB.
    pub memory: u32,
    /// One network card model for each network.
    pub nics: Vec<&'static str>,
    /// Whether the cards are plugged in the other way round; each keeps its address
    /// and its network.
    pub is_reversed: bool,
}

impl Default for Hardware {
    fn default() -> Hardware {
        Hardware {
            cpu: "max",
            memory: 1024,
            nics: vec!["virtio-net-pci"],
            is_reversed: false,
        }
    }
}

impl Hardware {
    /// Returns the words that describe the machine to QEMU, without its disks
    /// and sockets. A snapshot of a running guest only fits the same words.
    pub fn words(&self) -> Vec<String> {
        let mut words: Vec<String> = ["-machine", "q35", "-accel", accelerator(), "-cpu", self.cpu]
            .map(String::from)
            .into();
        words.extend([
            "-smp".into(),
            "1".into(),
            "-m".into(),
            self.memory.to_string(),
        ]);
        for fixed in [
            "-display none -nodefaults -no-user-config -rtc base=utc",
            "-object rng-random,id=rng,filename=/dev/urandom -device virtio-rng-pci,rng=rng",
            "-device virtio-serial-pci",
        ] {
            words.extend(fixed.split(' ').map(String::from));
        }
        let mut nics: Vec<_> = self.nics.iter().enumerate().collect();
        if self.is_reversed {
            nics.reverse();
        }
        for (number, nic) in nics {
            let net = format!("user,id=net{number},net=10.0.{}.0/24", number + 2);
            let device = format!("{nic},netdev=net{number},mac=52:54:00:00:00:{number:02x}");
            words.extend(["-netdev".into(), net, "-device".into(), device]);
        }
        words
    }
}

/// A QEMU that runs; it is killed with this value, and with the test's thread.
pub struct Qemu {
    child: Child,
    log: PathBuf,
}

impl Qemu {
    /// Starts QEMU; what it prints itself goes to `log`.
    #[expect(
        clippy::disallowed_methods,
        reason = "a guest runs beside the test, not to its end"
    )]
    pub fn start(words: &[String], log: &Path) -> Result<Qemu> {
        let output = fs::File::create(log)?;
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "qemu-system-x86_64"])
            .args(words)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .context("starting QEMU")?;
        let log = log.to_owned();
        Ok(Qemu { child, log })
    }

    /// Tells whether QEMU still runs.
    pub fn alive(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Fails with what QEMU printed when it no longer runs.
    pub fn must_be_alive(&mut self) -> Result<()> {
        if !self.alive()? {
            bail!("QEMU ended: {}", fs::read_to_string(&self.log)?.trim());
        }
        Ok(())
    }

    /// Kills QEMU as a power cut would end the machine.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            eprintln!("warning: killing QEMU: {error}");
        }
    }
}

/// Runs one command of QEMU's human monitor through its socket.
pub fn monitor(socket: &Path, line: &str) -> Result<()> {
    let mut stream = UnixStream::connect(socket).context("connecting to QEMU's monitor")?;
    stream.set_read_timeout(Some(Duration::from_secs(600)))?;
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let mut next = |wanted: &str| -> Result<Value> {
        loop {
            let text = lines.next().context("QEMU closed its monitor")??;
            let answer: Value = serde_json::from_str(&text)?;
            if let Some(value) = answer.get(wanted) {
                return Ok(value.clone());
            }
            if let Some(error) = answer.get("error") {
                bail!("QEMU's monitor: {error}");
            }
        }
    };
    next("QMP")?;
    let line = json!({"command-line": line});
    for request in [
        json!({"execute": "qmp_capabilities"}),
        json!({"execute": "human-monitor-command", "arguments": line}),
    ] {
        writeln!(stream, "{request}")?;
        let answer = next("return")?;
        // A human command reports its failure as text.
        if answer.as_str().is_some_and(|text| !text.is_empty()) {
            bail!("QEMU's monitor: {line}: {answer}");
        }
    }
    Ok(())
}

/// Returns the accelerator a guest really starts with on this machine.
fn accelerator() -> &'static str {
    static FOUND: OnceLock<&str> = OnceLock::new();
    FOUND.get_or_init(|| {
        let found = match step("trying whether KVM starts a kernel", kvm_starts_a_kernel) {
            Ok(true) => "kvm",
            Ok(false) => "tcg,thread=multi",
            Err(error) => {
                say(&format!("KVM is not used: {error:#}"));
                "tcg,thread=multi"
            }
        };
        say(&format!("guests run with {found}"));
        found
    })
}

/// Starts a kernel that has no root file system: `/dev/kvm` may be there, and
/// even run a boot sector, where no guest gets as far as the kernel's panic.
fn kvm_starts_a_kernel() -> Result<bool> {
    if !Path::new("/dev/kvm").exists() {
        return Ok(false);
    }
    let work = tempfile::tempdir()?;
    let untar = Cmd::new("tar")
        .args(["--wildcards", "--strip-components=2", "-xf"])
        .arg(Debian::Bookworm.tar()?)
        .arg("-C")
        .arg(work.path())
        .arg("./boot/vmlinuz-*");
    host().run(&untar)?;
    let kernel = fs::read_dir(work.path())?
        .next()
        .context("no kernel")??
        .path();
    let console = work.path().join("console");
    let mut words: Vec<String> = "-accel kvm -cpu max -m 256 -display none -nodefaults -no-reboot"
        .split(' ')
        .map(String::from)
        .collect();
    words.extend(["-serial".into(), format!("file:{}", console.display())]);
    words.extend(["-kernel".into(), kernel.display().to_string()]);
    words.extend([
        "-append".into(),
        "console=ttyS0 no_timer_check panic=-1".into(),
    ]);
    let mut qemu = Qemu::start(&words, &work.path().join("log"))?;
    let end = Instant::now() + Duration::from_secs(20);
    while qemu.alive()? && Instant::now() < end {
        thread::sleep(Duration::from_millis(100));
    }
    let text = fs::read(&console).unwrap_or_default();
    Ok(String::from_utf8_lossy(&text).contains("Kernel panic"))
}
