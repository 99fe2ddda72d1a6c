//! What was changed since a system was delivered is found, and nothing else.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use va_upgrade::appliance::pristine::{self, Pristine, What, changes};
use va_upgrade::bundle::Sealed;
use va_upgrade::bundle::Trust;
use va_upgrade::tree::glob::Glob;

use crate::machine::{Machine, scratch};
use crate::release::make_bundle;

fn list(bundle: &Path) -> Option<Vec<u8>> {
    let sealed = Sealed::open(bundle).unwrap();
    sealed
        .authenticate(Trust::Anyone)
        .unwrap()
        .0
        .files()
        .unwrap()
}

/// Lists what differs in the tree, as `+path`, `~path` or `-path`.
fn differences(tree: &Path) -> Vec<String> {
    let pristine = Pristine::kept(tree).unwrap().unwrap();
    let ignored = [Glob::new("/usr/lib/va-upgrade").unwrap()];
    let found = changes(&pristine, tree, &ignored).unwrap();
    let shown = found.iter().map(|change| {
        let sign = match change.what {
            What::Added => '+',
            What::Changed => '~',
            What::Deleted => '-',
        };
        format!("{sign}{}", change.path.display())
    });
    shown.collect()
}

/// A tree that was delivered, and what is kept of that in it.
fn delivered(dir: &Path) -> std::path::PathBuf {
    let tree = dir.join("tree-9.4.1");
    for (path, text) in [
        ("etc/ssh/sshd_config", "Port 22\n"),
        ("etc/motd", "hello\n"),
        ("etc/cron.d/shipped", "x\n"),
        ("opt/app/own.conf", "a=1\n"),
        ("opt/app/gone", "x\n"),
        ("usr/bin/tool", "x\n"),
    ] {
        let path = tree.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    symlink("/usr/share/zoneinfo/UTC", tree.join("etc/localtime")).unwrap();
    let bundle = make_bundle(dir, "9.4.1");
    let list = list(&bundle);
    assert!(list.is_some());
    pristine::keep(&Machine::fresh(), &tree, list.as_deref()).unwrap();
    tree
}

#[test]
fn every_kind_of_change_is_found_and_what_nobody_touched_is_not() {
    let dir = scratch();
    let tree = delivered(dir.path());
    assert!(differences(&tree).is_empty(), "{:?}", differences(&tree));

    let at = |path: &str| tree.join(path);
    fs::write(at("etc/ssh/sshd_config"), "Port 99\n").unwrap();
    fs::set_permissions(at("etc/motd"), Permissions::from_mode(0o600)).unwrap();
    fs::remove_file(at("etc/localtime")).unwrap();
    symlink("/usr/share/zoneinfo/Europe/Oslo", at("etc/localtime")).unwrap();
    fs::remove_file(at("etc/cron.d/shipped")).unwrap();
    fs::create_dir_all(at("etc/own")).unwrap();
    fs::write(at("etc/own/key"), "secret").unwrap();
    fs::write(at("opt/app/own.conf"), "a=2\n").unwrap();
    fs::remove_file(at("opt/app/gone")).unwrap();
    fs::write(at("opt/app/new"), "x").unwrap();
    // Written again as it was: not a change.
    fs::write(at("usr/bin/tool"), "x\n").unwrap();
    assert_eq!(
        differences(&tree),
        [
            "-etc/cron.d/shipped",
            "~etc/localtime",
            "~etc/motd",
            "+etc/own",
            "+etc/own/key",
            "~etc/ssh/sshd_config",
            "-opt/app/gone",
            "+opt/app/new",
            "~opt/app/own.conf",
        ]
    );
}

#[test]
fn an_attribute_of_a_setting_is_a_change() {
    let dir = scratch();
    let tree = delivered(dir.path());
    xattr::set(tree.join("etc/motd"), "user.own", b"1").unwrap();
    assert_eq!(differences(&tree), ["~etc/motd"]);
}

#[test]
fn an_upgrade_leaves_the_record_and_a_stream_brings_it_too() {
    let dir = scratch();
    let bundle = make_bundle(dir.path(), "9.4.1");
    for from_stream in [false, true] {
        let machine = Machine::fresh();
        match from_stream {
            true => crate::streams::apply_stream(&machine, &fs::read(&bundle).unwrap()),
            false => crate::apply::run(&machine, &bundle),
        }
        .unwrap();
        let slot = machine.at("/devices/VA-back");
        let kept = Pristine::kept(&slot).unwrap().unwrap();
        assert!(kept.has(Path::new("usr/lib/systemd/systemd")));
        assert!(kept.has(Path::new("etc/os-release")));
        let fstab = kept.content(Path::new("etc/fstab")).unwrap().unwrap();
        assert!(fstab.starts_with(b"/dev/mapper/VA-root / ext4"));
        let mode = fs::metadata(slot.join("usr/lib/va-upgrade/pristine")).unwrap();
        assert_eq!(mode.permissions().mode() & 0o7777, 0o700);
    }
}

#[test]
fn a_system_that_never_came_from_a_bundle_is_compared_with_its_packages() {
    let machine = Machine::fresh();
    let sum = "b1946ac92492d2347c6235b4d2611184";
    machine.write(
        "/var/lib/dpkg/status",
        &format!(
            "Package: a\nStatus: install ok installed\nConffiles:\n /etc/a {sum}\n /etc/b {sum}\n"
        ),
    );
    machine.write(
        "/var/lib/dpkg/info/a.list",
        "/.\n/etc\n/etc/a\n/etc/b\n/bin/a\n",
    );
    machine.write("/etc/a", "hello\n");
    machine.write("/etc/b", "changed\n");
    machine.write("/usr/bin/a", "whatever");
    symlink("usr/bin", machine.at("/bin")).unwrap();
    let found = machine.with_appliance(|appliance| {
        let root = appliance.at("/");
        let pristine = pristine::delivered(appliance, &root).unwrap();
        assert_eq!(pristine.content(Path::new("etc/a")).unwrap(), None);
        changes(&pristine, &root.join("."), &[]).unwrap()
    });
    let what = |path: &str| {
        let change = found.iter().find(|change| change.path == Path::new(path));
        change.map(|change| change.what)
    };
    assert_eq!(what("etc/b"), Some(What::Changed));
    assert_eq!(
        (what("etc/a"), what("usr/bin/a"), what("etc")),
        (None, None, None)
    );
    assert_eq!(what("etc/fstab"), Some(What::Added));
}
