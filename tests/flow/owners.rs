//! Whose ids files on the data volume have, from a trial to a rollback and on.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;

use va_upgrade::slot::Slot;
use va_upgrade::upgrade::trial::{Outcome, after_boot};
use va_upgrade::upgrade::{last_word, owners};

use crate::apply::run;
use crate::machine::{Machine, scratch};
use crate::release::make_bundle;
use crate::rollback;

const RULE: &str = "- {data: [/srv/app], ids: follow}\n";

fn put(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// Writes the accounts of a system.
fn accounts(root: &Path, people: &[(&str, u32)]) {
    let mut passwd = "root:x:0:0:root:/root:/bin/sh\n".to_owned();
    let (mut group, mut shadow) = ("root:x:0:\n".to_owned(), "root:*:19000::::::\n".to_owned());
    for (name, id) in people {
        passwd += &format!("{name}:x:{id}:{id}::/srv/app:/bin/sh\n");
        group += &format!("{name}:x:{id}:\n");
        shadow += &format!("{name}:*:19000::::::\n");
    }
    put(root, "etc/passwd", &passwd);
    put(root, "etc/group", &group);
    put(root, "etc/shadow", &shadow);
}

/// A machine whose `admin` has another id in the release that runs on trial.
fn on_trial(dir: &Path, rule: &str) -> Machine {
    let machine = Machine::fresh();
    accounts(&machine.at("/"), &[("admin", 1000), ("other", 1001)]);
    put(&machine.at("/"), "sbin/init", "");
    put(&machine.at("/"), "etc/va-upgrade/sync.d/own.yaml", rule);
    for (name, uid) in [("admins", 1000), ("others", 1001)] {
        let path = format!("data/srv/app/{name}");
        put(&machine.at("/"), &path, "");
        chown(machine.at(&path), Some(uid), Some(uid)).unwrap();
    }
    let tree = dir.join("tree-9.4.1");
    accounts(&tree, &[("admin", 1001), ("setup", 1000)]);
    run(&machine, &make_bundle(dir, "9.4.1")).unwrap();
    machine.swap_slots();
    machine.boot("back", "trial");
    machine
}

fn ids(machine: &Machine) -> [u32; 2] {
    ["admins", "others"].map(|name| {
        let meta = fs::metadata(machine.at(&format!("/data/srv/app/{name}")));
        meta.unwrap().uid()
    })
}

fn uid_of(machine: &Machine, name: &str) -> u32 {
    let passwd = machine.read("/etc/passwd");
    let line = passwd.lines().find(|line| line.starts_with(name)).unwrap();
    line.split(':').nth(2).unwrap().parse().unwrap()
}

fn settle(machine: &Machine) {
    machine.with_appliance(|appliance| owners::settle(appliance, &appliance.lock().unwrap()));
}

/// Starts the system that was rolled back to.
fn go_back(machine: &Machine) {
    for name in ["bin", "etc", "home", "lib", "root", "sbin", "usr", "var"] {
        let running = machine.at(&format!("/{name}"));
        for (from, to) in [
            (
                running.clone(),
                machine.at(&format!("/devices/VA-back/{name}")),
            ),
            (machine.at(&format!("/devices/VA-root/{name}")), running),
        ] {
            if from.exists() {
                fs::rename(from, to).unwrap();
            }
        }
    }
    machine.boot("root", "committed");
}

#[test]
fn files_follow_their_accounts_once_the_new_system_is_kept_and_go_back_with_a_rollback() {
    let dir = scratch();
    let machine = on_trial(dir.path(), RULE);
    machine.with_appliance(last_word::run).unwrap();
    settle(&machine);
    assert_eq!(ids(&machine), [1000, 1001], "before it is confirmed");
    let made = "data/srv/app/made-on-trial";
    put(&machine.at("/"), made, "");
    chown(machine.at(made), Some(1001), Some(1001)).unwrap();

    let outcome = machine.with_appliance(after_boot).unwrap();
    assert_eq!(outcome, Outcome::Confirmed(Slot::Back));
    let other = uid_of(&machine, "other");
    assert!(other != 1000 && other != 1001, "{other}");
    assert_eq!(uid_of(&machine, "admin"), 1001);
    assert_eq!(ids(&machine), [1001, other]);
    assert_eq!(fs::metadata(machine.at(made)).unwrap().uid(), 1001);
    settle(&machine);
    assert_eq!(ids(&machine), [1001, other], "once");

    rollback::run(&machine).unwrap();
    go_back(&machine);
    settle(&machine);
    assert_eq!(ids(&machine), [1000, 1001]);
    assert_eq!(fs::metadata(machine.at(made)).unwrap().uid(), 1000);
    settle(&machine);
    assert_eq!(ids(&machine), [1000, 1001]);
}

#[test]
fn without_a_rule_and_after_a_trial_that_was_not_kept_files_stay_as_they_are() {
    let dir = scratch();
    let machine = on_trial(dir.path(), "");
    machine.with_appliance(after_boot).unwrap();
    assert_eq!(ids(&machine), [1000, 1001]);
    assert!(!machine.at("/data/va-upgrade/owners.json").exists());

    let dir = scratch();
    let machine = on_trial(dir.path(), RULE);
    machine.with_appliance(|appliance| owners::plan(appliance, &appliance.lock().unwrap()));
    assert!(machine.at("/data/va-upgrade/owners.json").exists());
    crate::trial::exhaust(&machine);
    go_back(&machine);
    machine.with_appliance(after_boot).unwrap();
    assert_eq!(ids(&machine), [1000, 1001]);
}
