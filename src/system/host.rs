//! The real machine.

use std::env::set_current_dir;
use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::unix::fs::chroot;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
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

use super::calls::{Exited, Reader, Restart, System};
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

impl Host {
    #[expect(clippy::disallowed_methods, reason = "this is where programs are run")]
    fn start(&self, cmd: &Cmd) -> Result<Child> {
        if self.verbose {
            stderr::say(&format!("+ {cmd}"));
        }
        let mut words = setpriv_words(cmd);
        words.extend(cmd.argv());
        let mut command = Command::new(words[0]);
        if cmd.has_own_environment() {
            command.env_clear();
        }
        if let Some(user) = cmd.user().filter(|user| user.uid != 0) {
            command.uid(user.uid).gid(user.gid);
        }
        command
            .args(&words[1..])
            .env("LC_ALL", "C")
            .envs(cmd.environment().iter().map(|(name, value)| (name, value)));
        spawn(&mut command).with_context(|| format!("starting `{cmd}`"))
    }
}

impl System for Host {
    fn root(&self) -> &Path {
        Path::new("/")
    }

    fn run(&self, cmd: &Cmd) -> Result<String> {
        let mut child = self.start(cmd)?;
        let stdout = Gathered::from(child.stdout.take().context("no stdout pipe")?);
        finish(&mut child, cmd).with_context(|| format!("`{cmd}`"))?;
        Ok(String::from_utf8_lossy(&stdout.finish()).into_owned())
    }

    fn run_reading(&self, cmd: &Cmd, read: &mut Reader<'_>) -> Result<()> {
        let mut child = self.start(cmd)?;
        let mut stdout = child.stdout.take().context("no stdout pipe")?;
        thread::scope(|scope| {
            // Once it has failed, the program has nobody to write to and ends.
            let reading = scope.spawn(move || read(&mut stdout));
            let ended = finish(&mut child, cmd);
            let read = match reading.join() {
                Ok(read) => read,
                Err(panic) => std::panic::resume_unwind(panic),
            };
            match (ended, read) {
                // The reading end was closed: what the reader says is the reason.
                (Err(error), Err(reason)) if was_cut_short(&error) => Err(reason),
                (ended, read) => ended.and(read),
            }
        })
        .with_context(|| format!("`{cmd}`"))
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

/// Starts `command` in a process group of its own, with pipes for what it prints.
fn spawn(command: &mut Command) -> io::Result<Child> {
    command
        // Ctrl-C stops us at the next safe place, not a tool half-way.
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
}

/// The tool that changes what a program may do, and then becomes that program.
const SETPRIV: &str = "setpriv";
/// Has the kernel kill a program with the thread that started it.
const TIE: [&str; 2] = ["--pdeathsig", "KILL"];
/// Has the kernel give a program no rights that it does not have.
const CONFINE: [&str; 1] = ["--no-new-privs"];
/// Takes away all of root but the ownership of files.
const STRIP: [&str; 2] = ["--inh-caps=-all", "--bounding-set=-all"];

/// Returns the words before those of `cmd`, as far as this machine's setpriv(1) knows
/// them: that of util-linux 2.23 does not know all.
fn setpriv_words(cmd: &Cmd) -> Vec<&'static OsStr> {
    static ANSWERS: [OnceLock<bool>; 3] = [const { OnceLock::new() }; 3];
    let wanted: [(bool, &'static [&'static str]); 3] = [
        (cmd.is_to_die_with_us(), &TIE),
        (cmd.user().is_some(), &CONFINE),
        (cmd.user().is_some_and(|user| user.uid == 0), &STRIP),
    ];
    let mut words: Vec<&OsStr> = Vec::new();
    for ((is_wanted, options), answer) in wanted.into_iter().zip(&ANSWERS) {
        if is_wanted && *answer.get_or_init(|| setpriv_knows(options)) {
            words.extend(options.iter().map(OsStr::new));
        }
    }
    if !words.is_empty() {
        words.insert(0, OsStr::new(SETPRIV));
        words.push(OsStr::new("--"));
    }
    words
}

/// How long a question about this machine's tools may take.
const QUESTION_LIMIT: Duration = Duration::from_secs(30);

fn setpriv_knows(options: &[&str]) -> bool {
    let ask = Cmd::new(SETPRIV).args(options).arg("true");
    ends_well(&ask.limit(QUESTION_LIMIT))
}

/// Tells whether a program ends well within its limit.
#[expect(clippy::disallowed_methods, reason = "this is where programs are run")]
fn ends_well(cmd: &Cmd) -> bool {
    let mut command = Command::new(cmd.program());
    let started = spawn(command.args(cmd.arguments()));
    started.is_ok_and(|mut child| finish(&mut child, cmd).is_ok())
}

/// Waits for `child` to end well; kills it, and what it started, after its limit.
fn finish(child: &mut Child, cmd: &Cmd) -> Result<()> {
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
    if !status.success() {
        let words = last_lines(&stderr.finish());
        return Err(Exited { status, words }.into());
    }
    Ok(())
}

/// Tells whether a program ended because nobody read what it wrote.
fn was_cut_short(error: &anyhow::Error) -> bool {
    let exited = error.downcast_ref::<Exited>();
    exited.is_some_and(|exited| {
        let by_signal = exited.status.signal() == Some(Signal::SIGPIPE as i32);
        by_signal || exited.words.contains("Broken pipe")
    })
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
    use crate::system::User;

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
    fn output_of_any_length_is_read_while_the_program_runs() {
        let host = Host::new(false);
        let mut bytes = 0;
        let endless = Cmd::new("sh").args(["-c", "head -c 100000000 /dev/zero; exit 3"]);
        let error = host
            .run_reading(&endless, &mut |output| {
                bytes = std::io::copy(output, &mut std::io::sink())?;
                Ok(())
            })
            .unwrap_err();
        assert_eq!(bytes, 100_000_000);
        assert!(format!("{error:#}").contains("exit status: 3"), "{error:#}");
        let error = host
            .run_reading(&Cmd::new("yes"), &mut |_| bail!("enough"))
            .unwrap_err();
        assert!(format!("{error:#}").ends_with("enough"), "{error:#}");
    }

    #[test]
    fn a_confined_program_has_no_rights() {
        let host = Host::new(false);
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let cmd = Cmd::new("cat").arg("/proc/self/status");
        for (user, uid) in [(User::NOBODY, "65534"), (User { uid: 0, gid: 0 }, "0")] {
            let status = host.run(&cmd.clone().confined(user)).unwrap();
            let field = |name: &str| {
                let line = status.lines().find_map(|line| line.strip_prefix(name));
                line.unwrap().split_whitespace().next().unwrap_or_default()
            };
            assert_eq!(field("Uid:"), uid);
            assert_eq!(field("CapEff:"), "0000000000000000");
            assert_eq!(field("NoNewPrivs:"), "1");
        }
    }

    #[test]
    fn output_larger_than_a_pipe_does_not_block() {
        let out = Host::new(false)
            .run(&Cmd::new("seq").arg("200000"))
            .unwrap();
        assert_eq!(out.lines().count(), 200_000);
    }
}
