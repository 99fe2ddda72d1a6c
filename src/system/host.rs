//! The real machine.

use std::env::set_current_dir;
use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::unix::fs::chroot;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::mman::{MlockAllFlags, mlockall};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::calls::{Exited, Restart, System};
use super::cmd::Cmd;
use super::mount::Mount;
use crate::{signals, stderr};

/// The machine this process runs on.
pub struct Host {
    verbose: bool,
}

impl Host {
    /// Makes the handle; with `verbose`, every command is shown on stderr.
    pub fn new(verbose: bool) -> Host {
        Host { verbose }
    }

    /// Moves the process into a mount namespace of its own, so that the kernel
    /// drops our mounts even if we are killed.
    ///
    /// Call it before any thread starts: a namespace belongs to a thread.
    ///
    /// # Errors
    /// Without root rights.
    #[expect(clippy::disallowed_methods, reason = "this is where mounts are made")]
    pub fn enter_private_mounts(&self) -> Result<()> {
        unshare(CloneFlags::CLONE_NEWNS).context("entering a private mount namespace")?;
        // Without this, mounts still spread where `/` is shared. What others
        // unmount goes from here, too, or its device would stay busy.
        mount(
            None::<&str>,
            "/",
            None::<&str>,
            MsFlags::MS_REC | MsFlags::MS_SLAVE,
            None::<&str>,
        )
        .context("making mounts private")
    }

    /// Makes the directory `root` the `/` of this process and of what it runs.
    ///
    /// # Errors
    /// Without root rights, and when there is no such directory.
    pub fn enter_root(&self, root: &Path) -> Result<()> {
        chroot(root)
            .and_then(|()| set_current_dir("/"))
            .with_context(|| format!("entering {}", root.display()))
    }
}

impl System for Host {
    fn root(&self) -> &Path {
        Path::new("/")
    }

    #[expect(clippy::disallowed_methods, reason = "this is where programs are run")]
    fn run(&self, cmd: &Cmd) -> Result<String> {
        if self.verbose {
            stderr::say(&format!("+ {cmd}"));
        }
        let mut words = cmd.argv();
        if cmd.is_to_die_with_us() && can_tie_programs() {
            words.splice(0..0, TIE.map(OsStr::new));
        }
        let mut command = Command::new(words[0]);
        if cmd.has_own_environment() {
            command.env_clear();
        }
        command
            .args(&words[1..])
            .env("LC_ALL", "C")
            .envs(cmd.environment().iter().map(|(name, value)| (name, value)));
        let mut child = start(&mut command).with_context(|| format!("starting `{cmd}`"))?;
        let (status, stdout, stderr) =
            collect(&mut child, cmd).with_context(|| format!("`{cmd}`"))?;
        if !status.success() {
            let words = last_lines(&stderr);
            return Err(Exited { status, words }).with_context(|| format!("`{cmd}`"));
        }
        Ok(String::from_utf8_lossy(&stdout).into_owned())
    }

    #[expect(clippy::disallowed_methods, reason = "this is where mounts are made")]
    fn mount(&self, wanted: &Mount) -> Result<()> {
        let context = || {
            format!(
                "mounting {} on {}",
                wanted.source.display(),
                wanted.point.display()
            )
        };
        // SELinux policies let the domain of mount(8) mount in few places and ours in
        // more, so that comes in only where it is needed: it knows loop devices.
        match wanted.flags() {
            Some(flags) => mount(
                Some(&wanted.source),
                &wanted.point,
                wanted.fs_type.as_deref(),
                flags,
                Some(&*wanted.data()),
            )
            .with_context(context)?,
            None => drop(self.run(&wanted.command()).with_context(context)?),
        }
        Ok(())
    }

    #[expect(clippy::disallowed_methods, reason = "this is where mounts are undone")]
    fn unmount(&self, at: &Path) -> Result<()> {
        // udev and LVM's scanner may hold a fresh volume for a moment.
        for _ in 0..50 {
            match umount2(at, MntFlags::empty()) {
                Err(nix::errno::Errno::EBUSY) => thread::sleep(Duration::from_millis(100)),
                other => return other.with_context(|| format!("unmounting {}", at.display())),
            }
        }
        bail!("unmounting {}: still in use after 5 seconds", at.display())
    }

    fn reboot(&self, how: Restart) -> Result<()> {
        let force: &[&str] = if how == Restart::Forced {
            &["--force"]
        } else {
            &[]
        };
        self.run(&Cmd::new("systemctl").arg("reboot").args(force))
            .map(drop)
    }

    #[expect(clippy::disallowed_methods, reason = "this is where the clock is read")]
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }

    fn wait(&self, time: Duration) {
        thread::sleep(time);
    }

    fn wait_for(&self, word: &Receiver<()>, limit: Duration) -> bool {
        word.recv_timeout(limit).is_ok()
    }

    fn lock_memory(&self) -> Result<()> {
        let all = MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE;
        mlockall(all).context("locking this process into memory")
    }
}

/// Starts `command` in a process group of its own, to be [collected](collect).
fn start(command: &mut Command) -> io::Result<Child> {
    command
        // Ctrl-C stops us at the next safe place, not a tool half-way.
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
}

/// What has the kernel kill a program with the thread that started it.
const TIE: [&str; 4] = ["setpriv", "--pdeathsig", "KILL", "--"];

/// How long the question may take whether this machine has that.
const TIE_LIMIT: Duration = Duration::from_secs(30);

/// Tells whether this machine's setpriv(1) can do that.
fn can_tie_programs() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    let ask = Cmd::new(TIE[0]).args(&TIE[1..]).arg("true");
    *ANSWER.get_or_init(|| ends_well(&ask.limit(TIE_LIMIT)))
}

/// Tells whether a program ends well within its limit.
#[expect(clippy::disallowed_methods, reason = "this is where programs are run")]
fn ends_well(cmd: &Cmd) -> bool {
    let mut command = Command::new(cmd.program());
    let started = start(command.args(cmd.arguments()));
    started
        .is_ok_and(|mut child| collect(&mut child, cmd).is_ok_and(|(status, ..)| status.success()))
}

/// Waits for `child` and gathers both its streams; kills it, and what it
/// started, after its limit.
fn collect(child: &mut Child, cmd: &Cmd) -> Result<(ExitStatus, Vec<u8>, Vec<u8>)> {
    let stdout = Gathered::from(child.stdout.take().context("no stdout pipe")?);
    let stderr = Gathered::from(child.stderr.take().context("no stderr pipe")?);
    let started = Instant::now();
    let limit = cmd.time_limit();
    let mut pause = Duration::from_millis(1);
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if started.elapsed() > limit {
            kill_group(child)?;
            bail!("killed after {} seconds without an end", limit.as_secs());
        }
        if cmd.is_interruptible()
            && let Err(interrupted) = signals::check()
        {
            kill_group(child)?;
            return Err(interrupted);
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    };
    Ok((status, stdout.finish(), stderr.finish()))
}

/// Kills a program and everything in its process group.
fn kill_group(child: &mut Child) -> Result<()> {
    let group = Pid::from_raw(i32::try_from(child.id())?);
    killpg(group, Signal::SIGKILL).context("killing a program")?;
    child.wait()?;
    Ok(())
}

/// What a program writes to one of its streams.
struct Gathered {
    bytes: Arc<Mutex<Vec<u8>>>,
    end: Receiver<()>,
}

impl Gathered {
    /// The most that is kept of a stream.
    const MAX_BYTES: usize = 64 << 20;

    /// How long a stream may stay open once its program has ended: something
    /// the program left behind may hold it for ever.
    const PATIENCE: Duration = Duration::from_secs(2);

    fn from(mut pipe: impl Read + Send + 'static) -> Gathered {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let (sender, end) = mpsc::channel();
        let kept = Arc::clone(&bytes);
        thread::spawn(move || {
            let mut buffer = vec![0; 1 << 16];
            while let Ok(n @ 1..) = pipe.read(&mut buffer) {
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                let room = Gathered::MAX_BYTES.saturating_sub(kept.len());
                kept.extend_from_slice(&buffer[..n.min(room)]);
            }
            // Nobody listens any more once the patience is over.
            let _ = sender.send(());
        });
        Gathered { bytes, end }
    }

    fn finish(self) -> Vec<u8> {
        // A time-out leaves what was gathered so far.
        let _ = self.end.recv_timeout(Gathered::PATIENCE);
        std::mem::take(&mut *self.bytes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Returns the last lines a program complained with, as one line.
fn last_lines(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty())
        .collect();
    lines[lines.len().saturating_sub(3)..].join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_program_is_named_with_its_status_and_last_words() {
        let cmd = Cmd::new("sh").args(["-c", "echo one >&2; echo two >&2; exit 3"]);
        let error = Host::new(false).run(&cmd).unwrap_err();
        let text = format!("{error:#}");
        assert!(text.ends_with("exit status: 3: one; two"), "{text}");
    }

    #[test]
    fn a_program_that_hangs_is_killed() {
        let cmd = Cmd::new("sleep")
            .arg("600")
            .limit(Duration::from_millis(50));
        let error = Host::new(false).run(&cmd).unwrap_err();
        assert!(format!("{error:#}").contains("killed after"), "{error:#}");
    }

    #[test]
    fn a_question_that_hangs_is_answered_with_no() {
        let ask = |words: [&str; 2]| {
            let cmd = Cmd::new(words[0]).arg(words[1]);
            ends_well(&cmd.limit(Duration::from_secs(1)))
        };
        let started = Instant::now();
        assert!(!ask(["sleep", "600"]));
        assert!(started.elapsed() < Duration::from_secs(300));
        assert!(!ask(["false", ""]) && !ask(["no-such-program", ""]));
        assert!(ends_well(&Cmd::new("true")));
    }

    #[test]
    fn the_children_of_a_program_that_hangs_are_killed_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let note = dir.path().join("pid");
        let script = r#"sleep 600 & echo $! >"$1"; wait"#;
        let cmd = Cmd::new("sh")
            .args(["-c", script, "sh"])
            .arg(&note)
            .limit(Duration::from_secs(1));
        let error = Host::new(false).run(&cmd).unwrap_err();
        let text = format!("{error:#}");
        assert!(
            text.contains("sleep 600") && text.contains("killed after"),
            "{text}"
        );
        let pid = std::fs::read_to_string(&note).unwrap();
        // One that is dead but not yet waited for by init has no program any more.
        let is_alive = || std::fs::read_link(format!("/proc/{}/exe", pid.trim())).is_ok();
        let started = Instant::now();
        while is_alive() {
            assert!(
                started.elapsed() < Duration::from_secs(300),
                "{pid} still runs"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn what_a_program_leaves_behind_holds_nobody_up() {
        let cmd = Cmd::new("sh").args(["-c", "sleep 600 & echo $!"]);
        let started = Instant::now();
        let left = Host::new(false).run(&cmd).unwrap();
        assert!(started.elapsed() < Duration::from_secs(300));
        let pid = Pid::from_raw(left.trim().parse().unwrap());
        nix::sys::signal::kill(pid, Signal::SIGKILL).unwrap();
    }

    #[test]
    fn output_larger_than_a_pipe_does_not_block() {
        let out = Host::new(false)
            .run(&Cmd::new("seq").arg("200000"))
            .unwrap();
        assert_eq!(out.lines().count(), 200_000);
    }
}
