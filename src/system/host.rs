//! The real machine.

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use super::{Cmd, Mount, Restart, System, signals};

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
        // Without this, mounts still spread where `/` is shared.
        mount(
            None::<&str>,
            "/",
            None::<&str>,
            MsFlags::MS_REC | MsFlags::MS_PRIVATE,
            None::<&str>,
        )
        .context("making mounts private")
    }
}

impl System for Host {
    #[expect(clippy::disallowed_methods, reason = "this is where programs are run")]
    fn run(&self, cmd: &Cmd) -> Result<String> {
        if self.verbose {
            eprintln!("+ {cmd}");
        }
        let words = cmd.argv();
        let mut child = Command::new(words[0])
            .args(&words[1..])
            .env("LC_ALL", "C")
            .envs(cmd.environment().iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting `{cmd}`"))?;
        let (status, stdout, stderr) =
            collect(&mut child, cmd).with_context(|| format!("`{cmd}`"))?;
        if !status.success() {
            bail!("`{cmd}`: {status}{}", last_lines(&stderr));
        }
        Ok(String::from_utf8_lossy(&stdout).into_owned())
    }

    #[expect(clippy::disallowed_methods, reason = "this is where mounts are made")]
    fn mount(&self, wanted: &Mount) -> Result<()> {
        let context = || {
            format!(
                "mounting {} on {}",
                wanted.source.display(),
                wanted.target.display()
            )
        };
        match wanted.fs_type.as_deref() {
            // mount(8) knows loop devices, file system types and helpers.
            Some(fs_type) => {
                let mut cmd = Cmd::new("mount").args(["-t", fs_type]);
                if !wanted.options.is_empty() {
                    cmd = cmd.args(["-o", &wanted.options]);
                }
                self.run(&cmd.arg(&wanted.source).arg(&wanted.target))
                    .with_context(context)?;
            }
            None => mount(
                Some(&wanted.source),
                &wanted.target,
                None::<&str>,
                MsFlags::MS_BIND,
                None::<&str>,
            )
            .with_context(context)?,
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
}

/// Waits for `child` and gathers both its streams; kills it after its limit.
fn collect(child: &mut Child, cmd: &Cmd) -> Result<(ExitStatus, Vec<u8>, Vec<u8>)> {
    let mut stdout_pipe = child.stdout.take().context("no stdout pipe")?;
    let mut stderr_pipe = child.stderr.take().context("no stderr pipe")?;
    let started = Instant::now();
    let limit = cmd.time_limit();
    let reader = |pipe: &mut dyn Read| {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).map(|_| bytes)
    };
    let stdout = thread::spawn(move || reader(&mut stdout_pipe));
    let stderr = thread::spawn(move || reader(&mut stderr_pipe));
    let mut pause = Duration::from_millis(1);
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if started.elapsed() > limit {
            child
                .kill()
                .context("killing a program that exceeded its time limit")?;
            child.wait()?;
            bail!("killed after {} seconds without an end", limit.as_secs());
        }
        if cmd.is_interruptible()
            && let Err(interrupted) = signals::check()
        {
            child.kill().context("killing an interrupted program")?;
            child.wait()?;
            return Err(interrupted);
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    };
    let joined = |handle: thread::JoinHandle<std::io::Result<Vec<u8>>>| {
        handle
            .join()
            .map_err(|_| anyhow::anyhow!("reading a pipe panicked"))?
            .context("reading a pipe")
    };
    Ok((status, joined(stdout)?, joined(stderr)?))
}

/// Returns the last lines a program complained with, as one line after ": ".
fn last_lines(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty())
        .collect();
    let last = &lines[lines.len().saturating_sub(3)..];
    if last.is_empty() {
        String::new()
    } else {
        format!(": {}", last.join("; "))
    }
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
    fn output_larger_than_a_pipe_does_not_block() {
        let out = Host::new(false)
            .run(&Cmd::new("seq").arg("200000"))
            .unwrap();
        assert_eq!(out.lines().count(), 200_000);
    }
}
