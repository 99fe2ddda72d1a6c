//! What of the customer's comes over to the new slot, on the fake machine.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use va_upgrade::appliance::pristine;
use va_upgrade::failure::{Class, class_of};
use va_upgrade::system::Restart;
use va_upgrade::upgrade::last_word;

use crate::apply::run;
use crate::machine::{Fault, Machine, scratch};
use crate::release::make_bundle;

const SSHD: &str = "Port 22\nPermitRootLogin no\nUseDNS yes\n";
const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n";
const GROUP: &str = "root:x:0:\nnogroup:x:65534:\n";

/// Files that the old release and the new one have in common.
pub const SHIPPED: [(&str, &str); 9] = [
    ("etc/hostname", "appliance\n"),
    ("etc/ssh/sshd_config", SSHD),
    ("etc/motd", "welcome\n"),
    ("etc/cron.d/shipped", "1 * * * * root true\n"),
    ("etc/pam.d/login", "old pam\n"),
    ("etc/passwd", PASSWD),
    ("etc/group", GROUP),
    (
        "etc/shadow",
        "root:*:19000:0:99999:7:::\nnobody:*:19000::::::\n",
    ),
    (
        "etc/va-upgrade/sync.d/product.yaml",
        "- {name: app, way: copy, paths: [/etc/app/**]}\n",
    ),
];

pub fn put(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// A machine that came from a bundle, as it was delivered.
pub fn delivered() -> Machine {
    let machine = Machine::fresh();
    let root = machine.at("/");
    for (path, text) in SHIPPED {
        put(&root, path, text);
    }
    pristine::keep(&machine, &root, None).unwrap();
    machine
}

/// A bundle of a newer release, with its own `sshd_config`.
pub fn newer(dir: &Path) -> PathBuf {
    let tree = dir.join("tree-9.4.1");
    for (path, text) in SHIPPED {
        put(&tree, path, text);
    }
    put(
        &tree,
        "etc/ssh/sshd_config",
        &format!("{SSHD}X11Forwarding no\n"),
    );
    put(&tree, "etc/motd", "welcome to 9.4\n");
    put(&tree, "etc/pam.d/login", "new pam\n");
    make_bundle(dir, "9.4.1")
}

/// Lives in a machine: what a customer does to it.
pub fn live_in(machine: &Machine) {
    let root = machine.at("/");
    put(&root, "etc/hostname", "gw-oslo\n");
    put(&root, "etc/ssh/sshd_config", &SSHD.replace("22", "2222"));
    put(&root, "etc/ssh/ssh_host_ed25519_key", "private");
    fs::set_permissions(
        root.join("etc/ssh/ssh_host_ed25519_key"),
        Permissions::from_mode(0o640),
    )
    .unwrap();
    put(&root, "etc/pam.d/login", "customer's pam\n");
    put(&root, "etc/app/own.conf", "a=1\n");
    put(&root, "etc/strange/own.conf", "b=2\n");
    put(&root, "root/.ssh/authorized_keys", "ssh-ed25519 AAAA\n");
    symlink(
        "/usr/share/zoneinfo/Europe/Oslo",
        root.join("etc/localtime"),
    )
    .unwrap();
    fs::remove_file(root.join("etc/cron.d/shipped")).unwrap();
    put(
        &root,
        "etc/passwd",
        &format!("{PASSWD}admin:x:1000:1000::/home/admin:/bin/sh\n"),
    );
    put(&root, "etc/group", &format!("{GROUP}admin:x:1000:\n"));
    put(
        &root,
        "etc/shadow",
        "root:$6$root:19001:0:99999:7:::\nnobody:*:19000::::::\nadmin:$6$admin:19001:0:99999:7:::\n",
    );
}

/// Returns every file below `etc` and `root` of the slot that was written.
fn slot(machine: &Machine) -> BTreeMap<PathBuf, Vec<u8>> {
    let root = machine.at("/devices/VA-back");
    let mut all = BTreeMap::new();
    let mut todo = vec![root.join("etc"), root.join("root")];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten() {
            let (path, kind) = entry
                .map(|it| (it.path(), it.file_type().unwrap()))
                .unwrap();
            if kind.is_dir() {
                todo.push(path);
            } else if kind.is_file() {
                let relative = path.strip_prefix(&root).unwrap().to_owned();
                all.insert(relative, fs::read(path).unwrap());
            }
        }
    }
    all
}

fn text(slot: &BTreeMap<PathBuf, Vec<u8>>, path: &str) -> String {
    let content = slot.get(Path::new(path));
    String::from_utf8(content.unwrap_or_else(|| panic!("no {path}")).clone()).unwrap()
}

#[test]
fn the_customers_own_comes_over_and_what_nobody_touched_is_the_images() {
    let dir = scratch();
    let machine = delivered();
    live_in(&machine);
    run(&machine, &newer(dir.path())).unwrap();
    let slot = slot(&machine);
    assert_eq!(text(&slot, "etc/hostname"), "gw-oslo\n");
    let sshd = SSHD.replace("22", "2222") + "X11Forwarding no\n";
    assert_eq!(text(&slot, "etc/ssh/sshd_config"), sshd);
    assert_eq!(text(&slot, "etc/motd"), "welcome to 9.4\n");
    assert_eq!(text(&slot, "etc/pam.d/login"), "new pam\n");
    assert_eq!(text(&slot, "etc/app/own.conf"), "a=1\n");
    assert_eq!(
        text(&slot, "root/.ssh/authorized_keys"),
        "ssh-ed25519 AAAA\n"
    );
    assert!(text(&slot, "etc/passwd").contains("admin:x:1000:1000:"));
    assert!(text(&slot, "etc/shadow").contains("root:$6$root:"));
    assert!(text(&slot, "etc/shadow").contains("admin:$6$admin:"));
    for gone in ["etc/cron.d/shipped", "etc/strange/own.conf"] {
        assert!(!slot.contains_key(Path::new(gone)), "{gone}");
    }
    let back = machine.at("/devices/VA-back");
    let zone = fs::read_link(back.join("etc/localtime")).unwrap();
    assert_eq!(zone, Path::new("/usr/share/zoneinfo/Europe/Oslo"));
    let key = fs::metadata(back.join("etc/ssh/ssh_host_ed25519_key")).unwrap();
    assert_eq!(key.permissions().mode() & 0o7777, 0o600);
    assert!(!back.join(".va-upgrade-sync").exists());
    // Nothing is lost: what no rule knows, and both sides of a merge.
    let kept = |path: &str| machine.read(&format!("/data/va-upgrade/sync/1/{path}"));
    assert_eq!(kept("unknown/etc/strange/own.conf"), "b=2\n");
    assert_eq!(
        kept("customer/etc/ssh/sshd_config"),
        SSHD.replace("22", "2222")
    );
    assert!(kept("report.json").contains("\"from\""));
}

#[test]
fn carrying_over_twice_is_carrying_over_once() {
    let dir = scratch();
    let machine = delivered();
    live_in(&machine);
    let bundle = newer(dir.path());
    run(&machine, &bundle).unwrap();
    let once = slot(&machine);
    run(&machine, &bundle).unwrap();
    let twice = slot(&machine);
    let differing: Vec<&PathBuf> = once
        .iter()
        .filter(|(path, content)| twice.get(*path) != Some(content))
        .map(|(path, _)| path)
        .collect();
    assert!(differing.is_empty(), "{differing:?}");
    assert_eq!(once.len(), twice.len());
}

#[test]
fn a_setting_that_both_changed_stays_the_customers_and_both_are_kept() {
    let dir = scratch();
    let machine = delivered();
    let root = machine.at("/");
    put(
        &root,
        "etc/ssh/sshd_config",
        &SSHD.replace("PermitRootLogin no", "PermitRootLogin yes"),
    );
    let tree = dir.path().join("tree-9.4.1");
    let bundle = {
        for (path, text) in SHIPPED {
            put(&tree, path, text);
        }
        let image = SSHD.replace("PermitRootLogin no", "PermitRootLogin prohibit-password");
        put(&tree, "etc/ssh/sshd_config", &image);
        make_bundle(dir.path(), "9.4.1")
    };
    run(&machine, &bundle).unwrap();
    let slot = slot(&machine);
    assert!(text(&slot, "etc/ssh/sshd_config").contains("PermitRootLogin yes"));
    let kept = |path: &str| machine.read(&format!("/data/va-upgrade/sync/1/{path}"));
    assert!(kept("image/etc/ssh/sshd_config").contains("prohibit-password"));
    assert!(kept("report.json").contains("permitrootlogin"));

    let rules =
        "- {name: strict, way: merge, paths: [/etc/ssh/sshd_config], on_conflict: refuse}\n";
    put(&root, "etc/va-upgrade/sync.d/own.yaml", rules);
    let error = run(&machine, &bundle).err().unwrap();
    assert_eq!(class_of(&error), Class::Undone);
    assert!(
        format!("{error:#}").contains("permitrootlogin"),
        "{error:#}"
    );
}

#[test]
fn settings_that_the_new_system_does_not_take_undo_the_upgrade() {
    let dir = scratch();
    let machine = delivered();
    live_in(&machine);
    let bundle = newer(dir.path());
    machine.answer("sshd", "Nonsense");
    run(&machine, &bundle).unwrap();
    machine.answer("sshd", "2222");
    let error = run(&machine, &bundle).err().unwrap();
    assert_eq!(class_of(&error), Class::Undone);
    let message = format!("{error:#}");
    assert!(
        message.contains("\"sshd\"") && message.contains("Bad configuration"),
        "{message}"
    );
}

#[test]
fn a_program_of_the_new_system_makes_the_new_file_and_its_refusal_undoes_the_upgrade() {
    let dir = scratch();
    let machine = delivered();
    let root = machine.at("/");
    put(&root, "etc/app/own.conf", "a=1\n");
    let bundle = newer(dir.path());
    for (program, is_taken) in [("/usr/bin/convert", true), ("/usr/bin/refuses", false)] {
        let rule = format!(
            "- {{name: app, way: transform, run: {program}, paths: [/etc/app/own.conf]}}\n"
        );
        put(&root, "etc/va-upgrade/sync.d/app.yaml", &rule);
        let outcome = run(&machine, &bundle);
        if is_taken {
            outcome.unwrap();
            assert_eq!(text(&slot(&machine), "etc/app/own.conf"), "A=1\n");
            continue;
        }
        let error = outcome.err().unwrap();
        assert_eq!(class_of(&error), Class::Undone);
        let message = format!("{error:#}");
        assert!(
            message.contains("etc/app/own.conf") && message.contains("too old"),
            "{message}"
        );
    }
}

#[test]
fn rules_of_the_new_release_take_the_place_of_the_old_ones() {
    let dir = scratch();
    let machine = delivered();
    let tree = dir.path().join("tree-9.4.1");
    for (path, text) in SHIPPED {
        put(&tree, path, text);
    }
    let new = "- {name: app, way: drop, paths: [/etc/app/**]}\n";
    put(&tree, "etc/va-upgrade/sync.d/product.yaml", new);
    let bundle = make_bundle(dir.path(), "9.4.1");
    put(&machine.at("/"), "etc/app/own.conf", "a=1\n");
    run(&machine, &bundle).unwrap();
    let slot = slot(&machine);
    assert_eq!(text(&slot, "etc/va-upgrade/sync.d/product.yaml"), new);
    assert!(!slot.contains_key(Path::new("etc/app/own.conf")));

    // A rule that the customer has changed is the customer's, and comes first.
    let own = "- {name: app, way: copy, paths: [/etc/app/**]} # mine\n";
    put(&machine.at("/"), "etc/va-upgrade/sync.d/product.yaml", own);
    run(&machine, &bundle).unwrap();
    let slot = self::slot(&machine);
    assert_eq!(text(&slot, "etc/va-upgrade/sync.d/product.yaml"), own);
    assert_eq!(text(&slot, "etc/app/own.conf"), "a=1\n");
}

#[test]
fn a_failure_at_any_step_of_a_lived_in_machine_leaves_it_bootable() {
    let dir = scratch();
    let bundle = newer(dir.path());
    for step in 0.. {
        let machine = delivered();
        live_in(&machine);
        machine.fail_at(step, Fault::Fails);
        let outcome = run(&machine, &bundle);
        assert!(machine.mounts().is_empty(), "step {step} left a mount");
        match outcome {
            Ok(_) if machine.failed_call().is_none() => break,
            Ok(_) => {}
            Err(error) => assert!(
                matches!(
                    class_of(&error),
                    Class::Undone | Class::Refused | Class::Unexpected
                ),
                "step {step}: {error:#}"
            ),
        }
        assert_eq!(machine.read("/etc/hostname"), "gw-oslo\n");
    }
}

/// A lived-in machine that runs the new slot on trial; the old one is beside it.
fn on_trial(dir: &Path) -> Machine {
    let machine = delivered();
    live_in(&machine);
    run(&machine, &newer(dir)).unwrap();
    // The disks change places: what was written is the running system now.
    machine.swap_slots();
    machine.boot("back", "trial");
    machine
}

#[test]
fn what_was_changed_after_the_upgrade_was_written_is_carried_early_in_the_trial() {
    let dir = scratch();
    let machine = on_trial(dir.path());
    assert!(!machine.with_appliance(last_word::run).unwrap());

    let old = machine.at("/devices/VA-root");
    put(&old, "etc/hostname", "gw-bergen\n");
    fs::remove_file(old.join("root/.ssh/authorized_keys")).unwrap();
    let mut sshd = fs::read_to_string(old.join("etc/ssh/sshd_config")).unwrap();
    sshd = sshd.replace("UseDNS yes", "UseDNS no");
    put(&old, "etc/ssh/sshd_config", &sshd);
    assert!(machine.with_appliance(last_word::run).unwrap());
    assert_eq!(machine.read("/etc/hostname"), "gw-bergen\n");
    assert_eq!(machine.read("/proc/sys/kernel/hostname"), "gw-bergen");
    let sshd = machine.read("/etc/ssh/sshd_config");
    assert!(
        sshd.contains("UseDNS no") && sshd.contains("X11Forwarding no"),
        "{sshd}"
    );
    assert!(machine.mounts().is_empty());
    assert!(!machine.with_appliance(last_word::run).unwrap());
    assert!(machine.reboots().is_empty());

    // What is taken back is the image's again, or gone.
    put(&old, "etc/ssh/sshd_config", SSHD);
    fs::remove_dir_all(old.join("etc/app")).unwrap();
    assert!(machine.with_appliance(last_word::run).unwrap());
    let sshd = machine.read("/etc/ssh/sshd_config");
    assert_eq!(sshd, format!("{SSHD}X11Forwarding no\n"));
    assert!(!machine.at("/etc/app/own.conf").exists());
}

#[test]
fn what_is_changed_while_it_is_carried_over_is_carried_early_in_the_trial() {
    let dir = scratch();
    let machine = delivered();
    live_in(&machine);
    machine.meanwhile("sshd -t", |machine| {
        let text = SSHD.replace("22", "2223");
        put(&machine.at("/"), "etc/ssh/sshd_config", &text);
    });
    run(&machine, &newer(dir.path())).unwrap();
    assert!(machine.read("/etc/ssh/sshd_config").contains("2223"));
    machine.swap_slots();
    machine.boot("back", "trial");
    machine.with_appliance(last_word::run).unwrap();
    let sshd = machine.read("/etc/ssh/sshd_config");
    assert!(
        sshd.contains("2223") && sshd.contains("X11Forwarding no"),
        "{sshd}"
    );
}

#[test]
fn what_is_carried_early_in_a_trial_gets_its_labels_wherever_it_lies() {
    let dir = scratch();
    let machine = on_trial(dir.path());
    put(
        &machine.at("/devices/VA-root"),
        "var/spool/cron/root",
        "@daily true\n",
    );
    fs::create_dir_all(machine.at("/sys/fs/selinux")).unwrap();
    fs::write(machine.at("/sys/fs/selinux/enforce"), "1").unwrap();
    machine.meanwhile("/var/spool/cron/root", |machine| {
        put(&machine.at("/"), "run/labelled", "");
    });
    assert!(machine.with_appliance(last_word::run).unwrap());
    assert!(machine.at("/run/labelled").exists());
}

#[test]
fn a_rule_that_says_nothing_sane_is_refused_before_anything_is_written() {
    let dir = scratch();
    let machine = delivered();
    let rules = "- {name: own, way: move, paths: [/etc/x]}\n";
    put(&machine.at("/"), "etc/va-upgrade/sync.d/own.yaml", rules);
    let error = run(&machine, &newer(dir.path())).err().unwrap();
    assert_eq!(class_of(&error), Class::Refused);
    assert!(format!("{error:#}").contains("own.yaml"), "{error:#}");
    assert!(!machine.at("/boot/va").exists());
}

#[test]
fn odd_files_of_the_customers_come_over_or_are_told_of() {
    let dir = scratch();
    let machine = delivered();
    let root = machine.at("/");
    // Only who may read it was changed: the text is the new image's.
    fs::set_permissions(root.join("etc/motd"), Permissions::from_mode(0o600)).unwrap();
    put(&root, "etc/cron.d/x", "");
    let odd = std::ffi::OsStr::from_bytes(b"od\xff\n");
    fs::create_dir_all(root.join("home/u")).unwrap();
    fs::write(root.join("home/u").join(odd), "x").unwrap();
    nix::unistd::mkfifo(&root.join("home/u/pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let large = fs::File::create(root.join("home/u/large")).unwrap();
    large.set_len(65 << 20).unwrap();
    run(&machine, &newer(dir.path())).unwrap();
    let slot = machine.at("/devices/VA-back");
    assert_eq!(
        fs::read_to_string(slot.join("etc/motd")).unwrap(),
        "welcome to 9.4\n"
    );
    let motd = fs::metadata(slot.join("etc/motd")).unwrap();
    assert_eq!(motd.permissions().mode() & 0o7777, 0o600);
    assert_eq!(fs::read(slot.join("home/u").join(odd)).unwrap(), b"x");
    assert_eq!(
        slot.join("home/u/large").metadata().unwrap().len(),
        65 << 20
    );
    assert!(!slot.join("home/u/pipe").exists());
    let report = machine.read("/data/va-upgrade/sync/1/report.json");
    assert!(report.contains("home/u/pipe"), "{report}");
}

#[test]
fn last_changes_that_the_new_system_does_not_take_end_the_trial_at_once() {
    let dir = scratch();
    let machine = on_trial(dir.path());
    let old = machine.at("/devices/VA-root");
    put(&old, "etc/ssh/sshd_config", "Port 2222\nNonsense yes\n");
    machine.answer("sshd", "Nonsense");
    assert!(machine.with_appliance(last_word::run).is_err());
    assert_eq!(machine.reboots(), [Restart::Orderly]);
    assert!(machine.mounts().is_empty());
}

#[test]
fn the_last_word_fails_at_any_step_without_leaving_a_mount_or_a_bad_system() {
    for step in 0.. {
        let dir = scratch();
        let machine = on_trial(dir.path());
        put(
            &machine.at("/devices/VA-root"),
            "etc/hostname",
            "gw-bergen\n",
        );
        machine.fail_at(step, Fault::Fails);
        let outcome = machine.with_appliance(last_word::run);
        assert!(machine.mounts().is_empty(), "step {step} left a mount");
        if machine.failed_call().is_none() {
            assert!(outcome.unwrap());
            break;
        }
        let is_ended =
            !machine.reboots().is_empty() || !machine.read("/proc/sysrq-trigger").is_empty();
        assert!(
            outcome.is_ok() || is_ended,
            "step {step} goes on without the last changes"
        );
    }
}
