//! The migration environment, started once by the GRUB of an early appliance.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use va_upgrade::system::{Cmd, System};

use crate::appliance::{NEXT_RELEASE, disk_dir, make_payload, program};
use crate::lab::guest::{Guest, overlay};
use crate::lab::qemu::{Hardware, Qemu};
use crate::lab::tell::{say, step};
use crate::lab::{host, images, single_disk};

/// Everything that a rehearsal may not change: what the firmware starts, each file that
/// has to do with starting, and of the others what tells any change; udev's index of
/// hardware is made anew by each start of this system.
const FINGERPRINT: &str = "sync; dd if=/dev/vda bs=1M count=1 status=none | sha256sum
    find /boot -type f ! -path '*/va-migrate/*' -printf '%p %m %U:%G %s %T@\\n' | sort
    find /boot -type f ! -path '*/va-migrate/*' -exec sha256sum {} + | sort -k2
    find /usr /etc /root -xdev -type f ! -name 'new.vab.*' ! -name hwdb.bin \
        -printf '%p %m %U:%G %s %T@ %C@\\n' | sort";

const REPORT: &str = "/root/new.vab.migration.json";

/// Packs the tree of a release with an environment into `new.vab` in `dir`.
fn build(tree: &Path, dir: &Path) -> Result<()> {
    let at = |name: &str| dir.join(name);
    let program = program()?;
    let key = Cmd::new("openssl").args(["genpkey", "-algorithm", "ed25519", "-out"]);
    host().run(&key.arg(at("key.pem")))?;
    let public = Cmd::new("openssl").args(["pkey", "-pubout", "-in"]);
    host().run(&public.arg(at("key.pem")).arg("-out").arg(at("lab.pem")))?;
    let text = format!("product: lab-appliance\nversion: {NEXT_RELEASE}\ncpu_level: x86-64-v2\n");
    fs::write(at("release.yaml"), text)?;
    let build = Cmd::new(&program)
        .arg("build")
        .arg(tree)
        .args(["--environment", "--codec", "zstd", "--fast", "-o"])
        .arg(at("new.vab"))
        .arg("--release")
        .arg(at("release.yaml"))
        .arg("--key")
        .arg(at("key.pem"))
        .limit(Duration::from_secs(40 * 60));
    step("building a bundle with a migration environment", || {
        host().run(&build).map(drop)
    })
}

/// Returns a disk with that bundle, and what an appliance needs to take it.
fn payload() -> Result<PathBuf> {
    let dir = disk_dir()?;
    fs::copy(program()?, dir.path().join("va-upgrade"))?;
    build(&images::next_release_tree()?, dir.path())?;
    make_payload(dir.path(), "migration-payload.raw")
}

/// Returns a running machine with the disk `base` that has the program, the key and the
/// bundle.
fn started(name: &str, base: &Path, disk: &Path) -> Result<Guest> {
    overlay(base, "raw", disk)?;
    let mut guest = Guest::new(name, disk.to_owned(), &payload()?, Hardware::default())?;
    guest.power_on()?;
    guest.ok("set -e; mount -o ro /dev/disk/by-id/virtio-payload /mnt
        install -m 755 /mnt/va-upgrade /usr/sbin/va-upgrade
        mkdir -p /etc/va-upgrade/trusted.d; cp /mnt/lab.pem /etc/va-upgrade/trusted.d/
        cp /mnt/new.vab /root/new.vab; umount /mnt; sync")?;
    Ok(guest)
}

#[test]
#[ignore = "starts virtual machines"]
fn a_rehearsal_is_started_once_by_the_old_grub_and_leaves_only_its_report() -> Result<()> {
    let dir = disk_dir()?;
    let base = single_disk::early_appliance()?;
    let mut guest = started("rehearsal", &base, &dir.path().join("disk.qcow2"))?;
    let before = guest.ok(FINGERPRINT)?;
    let boots = guest.firmware_boots();

    let said = guest.ok("va-upgrade boot --prepare-rehearsal /root/new.vab")?;
    assert!(
        said.contains("rehearses the move to 9.4.2 on /dev/vda"),
        "{said}"
    );
    guest.ok("va-upgrade boot --cancel-migration && test ! -e /boot/grub/va-migrate")?;
    assert_eq!(guest.ok(FINGERPRINT)?, before, "cancelling");

    guest.ok("va-upgrade boot --prepare-rehearsal /root/new.vab")?;
    guest.reboot()?;
    assert_eq!(guest.firmware_boots(), boots + 2, "{}", guest.console());
    let starts = guest.command_lines();
    let migrations = starts.iter().filter(|line| line.contains("va.migrate="));
    assert_eq!(migrations.count(), 1, "{starts:?}");

    let text = guest.ok(&format!("cat {REPORT}"))?;
    let report: Value = serde_json::from_str(&text).context("parsing the report")?;
    assert_eq!(report["failure"], json!(null), "{text}");
    assert_eq!(report["mode"], "rehearse");
    assert_eq!(report["steps"].as_array().map(Vec::len), Some(8), "{text}");
    let number = |name: &str| report["memory"][name].as_u64().unwrap_or_default();
    let size: u64 = guest.ok("stat -c %s /root/new.vab")?.parse()?;
    assert!(number("peak_bytes") > size, "{text}");
    say(&format!(
        "{} MiB of {} MiB in use at most, for a bundle of {} MiB; steps: {}",
        number("peak_bytes") >> 20,
        number("machine_bytes") >> 20,
        size >> 20,
        report["steps"]
    ));
    assert_eq!(guest.ok(FINGERPRINT)?, before);

    // It was started once, and is not again.
    guest.reboot()?;
    assert_eq!(guest.firmware_boots(), boots + 3);
    guest.ok("va-upgrade boot --cancel-migration")?;
    guest.ok(&format!("test ! -e {REPORT} -a ! -e /boot/grub/va-migrate"))?;
    assert_eq!(guest.ok(FINGERPRINT)?, before);
    Ok(())
}

#[test]
#[ignore = "starts virtual machines"]
fn a_system_on_lvm_with_a_menu_made_by_hand_is_given_up_and_starts_again() -> Result<()> {
    let dir = disk_dir()?;
    let base = images::old_appliance()?;
    let mut guest = started("lvm-rehearsal", &base, &dir.path().join("disk.qcow2"))?;
    let before = guest.ok(FINGERPRINT)?;
    guest.ok("va-upgrade boot --prepare-rehearsal /root/new.vab")?;
    // This menu reads no other file.
    guest.ok("grep -q va-migrate /boot/grub/grub.cfg && test ! -e /boot/grub/custom.cfg")?;
    guest.reboot()?;
    let text = guest.ok(&format!("cat {REPORT}"))?;
    let report: Value = serde_json::from_str(&text).context("parsing the report")?;
    assert_eq!(report["failure"], json!(null), "{text}");
    assert_eq!(guest.ok(FINGERPRINT)?, before);
    Ok(())
}

/// Longer than any machine takes for what is tried here.
const LIMIT: Duration = Duration::from_secs(30 * 60);

#[test]
#[ignore = "starts virtual machines"]
fn an_environment_made_by_dracut_runs_the_program_and_restarts_without_an_order() -> Result<()> {
    let dir = disk_dir()?;
    let at = |name: &str| dir.path().join(name);
    let tree = images::next_release_tree()?;
    host().run(
        &Cmd::new("cp")
            .args(["-a", "--reflink=auto"])
            .arg(&tree)
            .arg(at("tree")),
    )?;
    // The image has both; this one is looked for first.
    fs::remove_file(at("tree/usr/sbin/mkinitramfs"))?;
    build(&at("tree"), dir.path())?;
    fs::create_dir(at("only"))?;
    let unpack = Cmd::new(program()?)
        .args(["unpack", "--only", "boot", "--trusted"])
        .args([dir.path(), &at("new.vab"), &at("only")]);
    // The private key lies there too, and is none that can be trusted.
    fs::remove_file(at("key.pem"))?;
    host().run(&unpack)?;
    let boot = at("only/boot");
    let find = |start: &str| -> Result<String> {
        for entry in fs::read_dir(&boot)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name.starts_with(start) {
                return Ok(boot.join(name).to_string_lossy().into_owned());
            }
        }
        anyhow::bail!("no {start} in the bundle")
    };
    let mut words = Hardware {
        memory: 512,
        ..Hardware::default()
    }
    .words();
    words.extend(["-no-reboot".into(), "-kernel".into(), find("vmlinuz-")?]);
    words.extend(["-initrd".into(), find("va-migrate-")?, "-append".into()]);
    words.push("console=ttyS0 no_timer_check panic=10 printk.devkmsg=on".into());
    words.extend([
        "-serial".into(),
        format!("file:{}", at("console").display()),
    ]);
    let mut qemu = Qemu::start(&words, &at("qemu.log"))?;
    let started = Instant::now();
    let console =
        || String::from_utf8_lossy(&fs::read(at("console")).unwrap_or_default()).into_owned();
    while qemu.alive()? {
        ensure!(started.elapsed() < LIMIT, "it hangs: {}", console());
        sleep(Duration::from_millis(500));
    }
    let text = console();
    assert!(
        text.contains("va-upgrade M01 failed: the kernel was not told"),
        "{text}"
    );
    assert!(text.contains("Resetting"), "{text}");
    Ok(())
}
