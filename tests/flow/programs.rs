//! The programs of the fake machine.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus};

use anyhow::{Context, Result, bail};
use va_upgrade::system::{Cmd, Exited};

use crate::machine::{BOOT_UUID, Machine, core_img};
use crate::{network, volumes};

/// Does what `cmd` does, as far as a flow can tell; one that it was not told of is
/// an error.
pub fn run(machine: &Machine, cmd: &Cmd) -> Result<String> {
    let program = Path::new(cmd.program())
        .file_name()
        .unwrap()
        .to_string_lossy()
        .into_owned();
    let answer = |name: &str| machine.answered(name);
    let text = cmd.to_string();
    if let Some(output) = volumes::run(machine, cmd)? {
        return Ok(output);
    }
    Ok(match program.as_str() {
        "blkid" if text.contains("TYPE") => "ext4\n".into(),
        "blkid" => format!("{BOOT_UUID}\n"),
        "vgs" => answer("vgs").unwrap_or_else(|| "  VA|uuid-1|\n".into()),
        "lvs" => answer("lvs").unwrap_or_else(|| {
            "  root|2147483648|linear\n  back|2147483648|linear\n  data|268435456|linear\n".into()
        }),
        "pvs" => "  VA|/dev/vda3\n".into(),
        "stat" => answer("stat").unwrap_or_else(|| "4096 100000 100000 90000\n".into()),
        "ip" => network::ip(machine, cmd)?,
        "udevadm" | "ping" => String::new(),
        "busctl" => answer("clock").unwrap_or_else(|| "b true\n".into()),
        "ethtool" => answer("ethtool").unwrap_or_default(),
        "sh" if text.contains("command -v") => answer("missing").unwrap_or_default(),
        "sh" if text.contains("mkfs") => "mke2fs 1.46.2 (28-Feb-2021)\n".into(),
        "sh" if text.contains(r#"exec "$1""#) => transform(cmd)?,
        "sh" if text.contains("fsfreeze") => String::new(),
        "sh" if text.contains("is-system-running") => {
            answer("running").unwrap_or_else(|| "running\n".into())
        }
        "systemctl" if text.contains("list-units") => answer("units").unwrap_or_default(),
        "systemctl" if text.contains("try-restart") => String::new(),
        "systemctl" if text.contains("show") => answer("type").unwrap_or_default(),
        "mkfs.ext4" => {
            let dir = machine.device_dir(Path::new(cmd.arguments().last().unwrap()));
            fs::remove_dir_all(&dir)?;
            fs::create_dir_all(dir.join("lost+found"))?;
            String::new()
        }
        "ld-linux-x86-64.so.2" => {
            let text = answer("loader").unwrap_or_default();
            anyhow::ensure!(!text.starts_with("Fatal"), "exit status: 127: {text}");
            text
        }
        "visudo" | "restorecon" => String::new(),
        "sshd" => checked_sshd(machine, cmd)?,
        "lsinitramfs" => answer("initramfs").unwrap_or_default(),
        "lvchange" | "blockdev" | "sync" | "grub-script-check" => String::new(),
        "lvm" if text.contains("lvs") => answer("lvs").unwrap_or_default(),
        "lvm" => String::new(),
        "losetup" => "/dev/loop0\n".into(),
        "cp" => {
            let ran = Command::new("cp").args(cmd.arguments()).output()?;
            let words = String::from_utf8_lossy(&ran.stderr);
            anyhow::ensure!(ran.status.success(), "cp failed: {words}");
            String::new()
        }
        "grub-install" => install_grub(machine, cmd)?,
        "setfiles" => set_labels(machine)?,
        "mount" => String::new(),
        "journalctl" => answer("journal").unwrap_or_else(|| "Nov 24 kernel: hello\n".into()),
        "va-upgrade" if text.contains("drill") => {
            answer("drill").context("exit status: 2: unrecognized subcommand 'drill'")?
        }
        "va-upgrade" => bail!("not there"),
        // A health check of the test's own.
        _ if cmd.program().to_string_lossy().contains("health.d") => {
            anyhow::ensure!(answer("health").is_none(), "exit status: 1: unwell");
            String::new()
        }
        other => bail!("the fake machine does not know {other}: {text}"),
    })
}

/// Sets all labels, or as many as the answer "refused" leaves.
fn set_labels(machine: &Machine) -> Result<String> {
    if let Some(words) = machine.answered("refused") {
        let status = ExitStatus::from_raw(255 << 8);
        return Err(Exited { status, words }.into());
    }
    machine.be_labelled();
    Ok(String::new())
}

fn install_grub(machine: &Machine, cmd: &Cmd) -> Result<String> {
    let args: Vec<String> = cmd
        .arguments()
        .iter()
        .map(|a| a.to_string_lossy().into_owned())
        .collect();
    let dir = args
        .iter()
        .find_map(|a| a.strip_prefix("--boot-directory="))
        .context("no directory")?;
    let platform = machine.at(dir).join("grub/i386-pc");
    fs::create_dir_all(&platform)?;
    let source = cmd
        .root()
        .context("not in a chroot")?
        .join("usr/lib/grub/i386-pc");
    for entry in fs::read_dir(source)? {
        let path = entry?.path();
        fs::copy(&path, platform.join(path.file_name().unwrap()))?;
    }
    fs::write(platform.join("core.img"), core_img(dir))?;
    Ok(String::new())
}

/// Finds fault with a configuration that has the word a test gave.
fn checked_sshd(machine: &Machine, cmd: &Cmd) -> Result<String> {
    let root = cmd.root().context("not in a chroot")?;
    let config = fs::read_to_string(root.join("etc/ssh/sshd_config"))?;
    let is_bad = |word: &String| config.contains(&word[..]);
    if let Some(word) = machine.answered("sshd").filter(is_bad) {
        bail!("Bad configuration option: {word}");
    }
    Ok(String::new())
}

/// A program of the new system that writes what it reads in capitals; one called
/// `refuses` does not.
fn transform(cmd: &Cmd) -> Result<String> {
    let root = cmd.root().context("not in a chroot")?;
    let words: Vec<&Path> = cmd.arguments().iter().map(Path::new).collect();
    let [.., program, old, new] = words[..] else {
        bail!("no transformation: {cmd}");
    };
    anyhow::ensure!(!program.ends_with("refuses"), "exit status: 1: too old");
    let inside = |path: &Path| root.join(path.strip_prefix("/").unwrap());
    let text = fs::read_to_string(inside(old))?;
    fs::write(inside(new), text.to_uppercase())?;
    Ok(String::new())
}
