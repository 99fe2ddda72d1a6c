//! An early appliance is moved in memory: its own GRUB starts the migration environment
//! once, for a rehearsal, or to make the disk anew.

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
fn payload(name: &str) -> Result<PathBuf> {
    let dir = disk_dir()?;
    fs::copy(program()?, dir.path().join("va-upgrade"))?;
    build(&images::next_release_tree()?, dir.path())?;
    make_payload(dir.path(), &format!("{name}-payload.raw"))
}

/// Returns a running machine with the disk `base` that has the program, the key and the
/// bundle.
fn started(name: &str, base: &Path, disk: &Path) -> Result<Guest> {
    overlay(base, "raw", disk)?;
    let mut guest = Guest::new(name, disk.to_owned(), &payload(name)?, Hardware::default())?;
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

    let said = guest.ok("va-upgrade migrate --rehearse /root/new.vab")?;
    assert!(said.contains("/dev/vda is made anew"), "{said}");
    assert!(
        said.contains("rehearses the move to version 9.4.2"),
        "{said}"
    );
    guest.ok("va-upgrade migrate --cancel && test ! -e /boot/grub/va-migrate")?;
    assert_eq!(guest.ok(FINGERPRINT)?, before, "cancelling");

    guest.ok("va-upgrade migrate --rehearse /root/new.vab")?;
    guest.reboot()?;
    assert_eq!(guest.firmware_boots(), boots + 2, "{}", guest.console());
    let starts = guest.command_lines();
    let migrations = starts.iter().filter(|line| line.contains("va.migrate="));
    assert_eq!(migrations.count(), 1, "{starts:?}");

    let text = guest.ok(&format!("cat {REPORT}"))?;
    let report: Value = serde_json::from_str(&text).context("parsing the report")?;
    assert_eq!(report["failure"], json!(null), "{text}");
    assert_eq!(report["mode"], "rehearse");
    assert_eq!(report["steps"].as_array().map(Vec::len), Some(12), "{text}");
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
    guest.ok("va-upgrade status | grep 'came to its end' && va-upgrade migrate --cancel")?;
    guest.ok(&format!("test ! -e {REPORT} -a ! -e /boot/grub/va-migrate"))?;
    assert_eq!(guest.ok(FINGERPRINT)?, before);
    Ok(())
}

/// Leaves an appliance one root, and no room for another.
const ONE_ROOT: &str = "set -e
    umount /data /image
    sed -i '/VA-data\\|VA.data\\|VA.image/d' /etc/fstab
    systemctl daemon-reload
    for name in back data image; do lvremove -y VA/$name; done
    lvcreate -y -n filler -l 100%FREE VA";

#[test]
#[ignore = "starts virtual machines"]
fn a_system_on_lvm_with_a_menu_made_by_hand_is_given_up_and_starts_again() -> Result<()> {
    let dir = disk_dir()?;
    let base = images::old_appliance()?;
    let mut guest = started("lvm-rehearsal", &base, &dir.path().join("disk.qcow2"))?;
    guest.ok(ONE_ROOT)?;
    let before = guest.ok(FINGERPRINT)?;
    guest.ok("va-upgrade migrate --rehearse /root/new.vab")?;
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

/// What a customer does to an appliance.
const LIVE_IN: &str = r#"set -e
    echo gw-oslo >/etc/hostname; hostname gw-oslo
    mkdir -p /etc/cron.d /root/.ssh /etc/strange
    echo '1 2 * * * root true' >/etc/cron.d/own
    echo 'ssh-ed25519 AAAA own' >/root/.ssh/authorized_keys
    echo 'b=2' >/etc/strange/own.conf
    useradd -m -u 1000 -s /bin/sh admin
    echo 'admin:own-password' | chpasswd
    sync"#;

/// What of that is to be there afterwards, as one answer.
const LOOK: &str = r#"set -e
    hostname
    cat /etc/cron.d/own /etc/cron.d/late /root/.ssh/authorized_keys /etc/machine-id
    id admin; getent passwd admin; getent shadow admin"#;

/// Prints the log of the move, with the times.
const LOG: &str = "cat /data/va-upgrade/migrations/*.log";

#[test]
#[ignore = "starts virtual machines"]
fn a_system_on_a_plain_partition_gets_two_slots_with_nobody_there() -> Result<()> {
    let dir = disk_dir()?;
    let base = single_disk::early_appliance()?;
    let mut guest = started("moved", &base, &dir.path().join("disk.qcow2"))?;
    guest.ok(LIVE_IN)?;
    let plan = guest.ok("va-upgrade migrate --dry-run /root/new.vab")?;
    assert!(plan.contains("in RAM: the way that is left"), "{plan}");
    guest.ok("test ! -e /boot/grub/va-migrate")?;
    guest.ok("va-upgrade migrate /root/new.vab")?;
    guest.ok("echo '3 4 * * * root true' >/etc/cron.d/late")?;
    let lived_in = guest.ok(LOOK)?;
    let boots = guest.firmware_boots();
    guest.start_reboot()?;
    guest.wait_for_boot_of("/dev/mapper/VA-")?;
    assert_eq!(guest.firmware_boots(), boots + 2, "{}", guest.console());

    assert_eq!(guest.ok("findmnt -no SOURCE /")?, "/dev/mapper/VA-root");
    assert_eq!(guest.ok(". /etc/os-release; echo $VERSION_ID")?, "12");
    assert_eq!(guest.ok(LOOK)?, lived_in);
    guest.wait_until("ls /usr/lib/va-upgrade; echo .", |found| {
        !found.contains("first-start.yaml") && found.contains('.')
    })?;
    let status: Value = serde_json::from_str(&guest.ok("va-upgrade status --json")?)?;
    assert_eq!(status["committed"], "root", "{status}");
    assert_eq!(status["slots"][1]["state"], "empty", "{status}");
    guest.ok("test ! -e /etc/strange && ls /data/va-upgrade/migrations/*.settings.tar")?;
    let log = guest.ok(LOG)?;
    assert!(
        log.contains("M20 table") && log.contains("M32 start: done"),
        "{log}"
    );
    say(&log);

    // From now on it is like any other.
    guest.ok("set -e; mount -o ro /dev/disk/by-id/virtio-payload /mnt
        va-upgrade apply /mnt/new.vab")?;
    guest.start_reboot()?;
    guest.wait_for_boot_of("/dev/mapper/VA-back")?;
    guest.wait_until("va-upgrade status --json", |text| {
        serde_json::from_str(text).is_ok_and(|status: Value| status["committed"] == "back")
    })?;
    assert_eq!(guest.ok(LOOK)?, lived_in);
    guest.ok("va-upgrade rollback")?;
    guest.start_reboot()?;
    guest.wait_for_boot_of("/dev/mapper/VA-root")?;
    assert_eq!(guest.ok(LOOK)?, lived_in);
    Ok(())
}
