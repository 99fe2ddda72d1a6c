//! The archive of a system's settings, collected and opened again.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::Result;
use va_upgrade::failure::{Class, class_of};
use va_upgrade::install::customer;
use va_upgrade::migrate::settings::{self, Digest, Facts};
use va_upgrade::sha::Sha;

use crate::machine::{Machine, scratch};

/// A system with one root, as its customer left it.
pub fn old_system() -> Machine {
    let machine = Machine::fresh();
    machine.write(
        "/proc/self/mountinfo",
        "1 0 8:1 / / rw - ext4 /dev/vda1 rw\n4 1 0:99 / /devices rw - tmpfs none rw\n",
    );
    machine.write(
        "/proc/cmdline",
        "BOOT_IMAGE=/vmlinuz root=/dev/vda1 ro rd.lvm.lv=old/swap console=ttyS0\n",
    );
    machine.write(
        "/etc/fstab",
        "/dev/vda1 / ext4 defaults 0 1\n/swapfile none swap sw 0 0\nnas:/x /mnt/nas nfs _netdev 0 0\n",
    );
    machine.write("/etc/hostname", "gateway-7\n");
    machine.write("/etc/ssh/ssh_host_key", "secret");
    let key = machine.at("/etc/ssh/ssh_host_key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    std::os::unix::fs::chown(&key, Some(1234), Some(5678)).unwrap();
    xattr::set(&key, "trusted.label", b"its own").unwrap();
    machine.write("/root/.ssh/authorized_keys", "ssh-ed25519 AAAA\n");
    machine.write("/opt/app/own.conf", "colour: blue\n");
    symlink("own.conf", machine.at("/opt/app/link")).unwrap();
    machine.write("/var/log/app.log", "noise");
    machine
}

pub fn collect(machine: &Machine, to: &Path) -> Result<Digest> {
    machine.with_appliance(|appliance| settings::collect(appliance, to, &[]))
}

/// Collects and opens; returns the directory.
fn travelled(machine: &Machine, dir: &Path) -> PathBuf {
    let archive = dir.join("settings.tar");
    let digest = collect(machine, &archive).unwrap();
    assert_eq!(digest.size_bytes, archive.metadata().unwrap().len());
    let opened = dir.join("opened");
    settings::open(&archive, &digest.sha256, &opened).unwrap();
    opened
}

#[test]
fn what_is_the_customers_comes_back_with_owner_mode_and_links() {
    let (machine, dir) = (old_system(), scratch());
    let opened = travelled(&machine, dir.path());
    let key = opened.join("etc/ssh/ssh_host_key").metadata().unwrap();
    assert_eq!((key.uid(), key.gid()), (1234, 5678));
    assert_eq!(key.permissions().mode() & 0o7777, 0o600);
    let label = xattr::get(opened.join("etc/ssh/ssh_host_key"), "trusted.label");
    assert_eq!(label.unwrap().unwrap(), b"its own");
    let text = |path: &str| fs::read_to_string(opened.join(path)).unwrap();
    assert_eq!(text("root/.ssh/authorized_keys"), "ssh-ed25519 AAAA\n");
    assert_eq!(text("opt/app/link"), "colour: blue\n");
    assert!(!opened.join("var/log/app.log").exists());
    assert!(!opened.join("boot").exists());
    let mode = opened.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o700);
    let facts = Facts::load(&opened.join("usr/lib/va-upgrade/migration")).unwrap();
    assert_eq!(facts.root_fs_type, "ext4");
    assert_eq!(facts.release.version, "11");
    assert!(facts.cmdline.ends_with("console=ttyS0"));
    assert_eq!(Vec::from_iter(facts.lost), ["/swapfile none swap sw 0 0\n"]);
}

/// A package database that knows some of the files.
fn with_packages(machine: &Machine) {
    machine.write(
        "/var/lib/dpkg/status",
        "Package: base\nStatus: install ok installed\nConffiles:\n \
         /etc/motd 6f5902ac237024bdd0c176cb93063dc4\n \
         /etc/issue 6f5902ac237024bdd0c176cb93063dc4\n \
         /etc/gone.conf 6f5902ac237024bdd0c176cb93063dc4\n",
    );
    machine.write(
        "/var/lib/dpkg/info/base.list",
        "/.\n/etc\n/etc/motd\n/etc/issue\n/etc/gone.conf\n/opt/app\n/opt/app/delivered\n\
         /usr/local/bin/tool\n/home/demo/.profile\n",
    );
    machine.write("/etc/motd", "hello world\n");
    machine.write("/etc/issue", "changed\n");
    machine.write("/opt/app/delivered", "as it came");
    machine.write("/usr/local/bin/tool", "as it came");
    machine.write("/home/demo/.profile", "as it came");
}

#[test]
fn what_is_no_setting_stays_behind_wherever_it_lies() {
    let (machine, dir) = (old_system(), scratch());
    machine.write("/root/new.vab", "large");
    machine.write("/root/old.vab", "the customer's");
    let archive = dir.path().join("settings.tar");
    let collected = machine.with_appliance(|appliance| {
        settings::collect(appliance, &archive, &[Path::new("/root/new.vab")])
    });
    let opened = dir.path().join("opened");
    settings::open(&archive, &collected.unwrap().sha256, &opened).unwrap();
    assert!(opened.join("root/old.vab").exists());
    assert!(!opened.join("root/new.vab").exists());
}

#[test]
fn a_plan_made_of_the_archive_is_the_plan_made_of_the_system() {
    let (machine, dir) = (old_system(), scratch());
    with_packages(&machine);
    let of_system = machine
        .with_appliance(|appliance| customer::plan(appliance, None))
        .unwrap();
    let opened = travelled(&machine, dir.path());
    assert!(!opened.join("usr/local/bin/tool").exists());
    // What runs where the archive is opened has neither the files nor the packages.
    let elsewhere = Machine::found(&opened);
    let table = opened.join("proc/self/mountinfo");
    fs::create_dir_all(table.parent().unwrap()).unwrap();
    fs::write(table, "").unwrap();
    fs::create_dir_all(opened.join("etc/va-upgrade")).unwrap();
    let of_archive = elsewhere
        .with_appliance(|appliance| customer::plan(appliance, None))
        .unwrap();
    let shown = |plan: &va_upgrade::sync::Plan| {
        let carried: Vec<_> = plan
            .items
            .iter()
            .filter(|item| item.action.word() != "drop")
            .cloned()
            .collect();
        carried
    };
    assert_eq!(shown(&of_archive), shown(&of_system));
    let words: Vec<String> = shown(&of_system)
        .iter()
        .map(|item| format!("{} {}", item.action.word(), item.path.display()))
        .collect();
    for wanted in ["delete etc/issue.gone", "unknown opt/app/own.conf"] {
        let is_there = words.iter().any(|word| word == wanted);
        assert_eq!(is_there, !wanted.contains("issue.gone"), "{words:?}");
    }
    assert!(
        words.contains(&"unknown etc/gone.conf".to_owned()),
        "{words:?}"
    );
}

#[test]
fn an_archive_that_is_another_is_not_opened() {
    let (machine, dir) = (old_system(), scratch());
    let archive = dir.path().join("settings.tar");
    let digest = collect(&machine, &archive).unwrap();
    let opened = dir.path().join("opened");
    let mut bytes = fs::read(&archive).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&archive, &bytes).unwrap();
    let error = settings::open(&archive, &digest.sha256, &opened).unwrap_err();
    assert_eq!(class_of(&error), Class::BadBundle, "{error:#}");
    assert!(!opened.exists());
    for hostile in [&b"no archive at all"[..], &bytes[..1000]] {
        fs::write(&archive, hostile).unwrap();
        let error = settings::open(&archive, &Sha::of(hostile), &opened).unwrap_err();
        assert_eq!(class_of(&error), Class::BadBundle, "{error:#}");
    }
}

#[test]
fn what_would_be_lost_is_refused_by_name() {
    let (machine, dir) = (old_system(), scratch());
    let archive = dir.path().join("settings.tar");
    let large = machine.at("/opt/app/database");
    fs::File::create(&large).unwrap().set_len(65 << 20).unwrap();
    let error = collect(&machine, &archive).unwrap_err();
    assert_eq!(class_of(&error), Class::Refused, "{error:#}");
    let text = format!("{error:#}");
    assert!(text.contains("/opt/app/database (65 MiB)"), "{text}");
    fs::remove_file(&large).unwrap();

    fs::create_dir_all(machine.at("/sys/devices/vda/vda1")).unwrap();
    machine.write("/sys/devices/vda/vda1/partition", "1");
    machine.write("/sys/devices/vda/vda2/partition", "2");
    for (number, name) in [("8:1", "vda1"), ("8:2", "vda2")] {
        let link = machine.at(&format!("/sys/dev/block/{number}"));
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        symlink(machine.at(&format!("/sys/devices/vda/{name}")), link).unwrap();
    }
    machine.write(
        "/proc/self/mountinfo",
        "1 0 8:1 / / rw - ext4 /dev/vda1 rw\n2 1 8:2 / /home rw - ext4 /dev/vda2 rw\n",
    );
    let error = collect(&machine, &archive).unwrap_err();
    assert_eq!(class_of(&error), Class::Refused, "{error:#}");
    assert!(format!("{error:#}").contains("/home"), "{error:#}");
    machine.write(
        "/proc/self/mountinfo",
        "1 0 8:1 / / rw - ext4 /dev/vda1 rw\n",
    );
    let error = collect(&machine, &archive).unwrap_err();
    assert_eq!(class_of(&error), Class::Refused, "{error:#}");
    assert!(
        format!("{error:#}").contains("/dev/vda2 holds ext4 that is not mounted"),
        "{error:#}"
    );
    assert!(!archive.exists());
    machine.fail_on("/dev/vda2");
    collect(&machine, &archive).unwrap();
}
