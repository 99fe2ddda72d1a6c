//! The main job, shown to a person: `scripts/demo` runs it. What the person
//! sees goes to stderr; stdout, where libtest writes, is the log.

mod screen;

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use va_upgrade::system::files::remove_tree;

use crate::appliance::{self, Appliance, RELEASE};
use crate::lab::tell::{say, short, show_steps, step, timed};
use screen::Screen;

#[test]
#[ignore = "starts virtual machines"]
fn demo() -> Result<()> {
    show_steps();
    let shown = show_all();
    if let Err(error) = &shown {
        println!("{error:?}");
    }
    shown
}

fn show_all() -> Result<()> {
    let ova = appliance::prepare()?;
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("demo");
    show_pipeline(&dir, &ova)?;
    let mut machine = show_old_system()?;
    show_upgrade(&mut machine)?;
    show_rollback(&mut machine)?;
    machine.ok("sync")?;
    machine.keep_disk(&dir.join("appliance.qcow2"))
}

/// Packs a bundle in `dir`, where everything is left for the person.
fn show_pipeline(dir: &Path, ova: &Path) -> Result<()> {
    title("The release pipeline packs the new release's OVA into a bundle");
    if dir.exists() {
        remove_tree(dir)?;
    }
    fs::create_dir_all(dir.join("keys"))?;
    symlink(ova, dir.join("release.ova"))?;
    fs::write(
        dir.join("release.yaml"),
        format!("product: lab-appliance\nversion: {RELEASE}\n"),
    )?;
    for script in [
        "cat release.yaml",
        "openssl genpkey -algorithm ed25519 -out release.pem",
        "openssl pkey -in release.pem -pubout -out keys/lab.pem",
    ] {
        show_here(dir, script)?;
    }
    let bundle = format!("{RELEASE}.vab");
    timed("packing the bundle", || {
        show_here(
            dir,
            &format!(
                "va-upgrade build release.ova -o {bundle} --release release.yaml --key release.pem"
            ),
        )
    })?;
    appliance::use_payload(&dir.join("keys/lab.pem"), &dir.join(bundle))
}

fn show_old_system() -> Result<Appliance> {
    title("An appliance that was installed years ago gets the program and a disk with the bundle");
    let mut machine = step("starting the old appliance", || Appliance::old("demo"))?;
    show(
        &mut machine,
        ". /etc/os-release; echo $PRETTY_NAME; uname -r; lsblk -o NAME,SIZE,MOUNTPOINT",
    )?;
    show(&mut machine, "va-upgrade status")?;
    Ok(machine)
}

fn show_upgrade(machine: &mut Appliance) -> Result<()> {
    title("The bundle is written to the slot that does not run");
    show(machine, &format!("va-upgrade check /mnt/{RELEASE}.vab"))?;
    timed("applying the bundle", || {
        show(machine, &format!("va-upgrade apply /mnt/{RELEASE}.vab"))
    })?;
    show(machine, "va-upgrade status")?;

    title("The next boot tries the new system, which checks its health and stays");
    machine.ok("umount /mnt")?;
    step(
        "restarting on trial, until the new system is confirmed",
        || {
            machine.reboot()?;
            machine.wait_until_committed("back")
        },
    )?;
    show(
        machine,
        ". /etc/os-release; echo $PRETTY_NAME; uname -r; cat /data/customer",
    )?;
    show(machine, "va-upgrade status")
}

fn show_rollback(machine: &mut Appliance) -> Result<()> {
    title("The customer goes back to the old system");
    show(machine, "va-upgrade rollback")?;
    step("restarting into the old system", || machine.reboot())?;
    show(machine, ". /etc/os-release; echo $PRETTY_NAME; uname -r")?;
    show(machine, "va-upgrade status")
}

fn title(text: &str) {
    say(&format!("\n== {text}"));
}

/// Runs a script on this machine, in `dir`, and shows its output as it comes.
#[expect(
    clippy::disallowed_methods,
    reason = "what it prints is shown as it comes"
)]
fn show_here(dir: &Path, script: &str) -> Result<()> {
    say(&format!("\n{}$ {script}", short(dir)));
    let (reader, writer) = io::pipe()?;
    let mut child = Command::new("sh")
        .args(["-c", script])
        .current_dir(dir)
        .env("PATH", path_with_program()?)
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .spawn()
        .with_context(|| format!("starting `{script}`"))?;
    let mut screen = Screen::new();
    for line in BufReader::new(reader).lines() {
        screen.show(&line?);
    }
    screen.end();
    let status = child.wait()?;
    ensure!(status.success(), "`{script}` in {}: {status}", short(dir));
    Ok(())
}

/// Returns the PATH on which the program under test comes first.
fn path_with_program() -> Result<OsString> {
    let program = appliance::program()?;
    let mut dirs: Vec<PathBuf> = program.parent().map(Path::to_owned).into_iter().collect();
    dirs.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    Ok(env::join_paths(dirs)?)
}

/// Runs a script on the appliance and shows its output as it comes.
fn show(machine: &mut Appliance, script: &str) -> Result<()> {
    say(&format!("\nappliance# {script}"));
    machine.put("/run/lab-script", script, 0o600)?;
    machine.ok("rm -f /run/lab-status
         { bash /run/lab-script; echo $? >/run/lab-status; } >/run/lab-output 2>&1 &")?;
    let mut screen = Screen::new();
    let mut shown = 0;
    loop {
        // The file is there before its content is.
        let status = machine.run("cat /run/lab-status")?.stdout;
        let ended = status.ends_with('\n');
        let output = machine.run("cat /run/lab-output")?.stdout;
        let whole = match output.rfind('\n') {
            _ if ended => output.len(),
            Some(end) => end + 1,
            None => 0,
        };
        let lines = output.get(shown..whole).unwrap_or_default().lines();
        lines.for_each(|line| screen.show(line));
        shown = whole;
        if ended {
            screen.end();
            let code = status.trim();
            ensure!(code == "0", "`{script}` ended with status {code}");
            return Ok(());
        }
        thread::sleep(Duration::from_millis(500));
    }
}
