//! SELinux labels of a new system, on the fake machine.

use std::fs;
use std::path::{Path, PathBuf};

use va_upgrade::appliance::machine::Machine as Look;
use va_upgrade::failure::{Class, class_of};
use va_upgrade::install::label::finish;
use va_upgrade::slot::Slot;
use va_upgrade::upgrade::preflight;
use va_upgrade::upgrade::trial::{Outcome, after_boot};

use crate::apply::{run, state};
use crate::machine::{Fault, Machine, scratch};
use crate::release::make_bundle;
use crate::settle::notes_of_apply;
use crate::trial::trial_running;

const MARK: &str = "/.va-upgrade-unlabelled";
const SETTINGS: &str = "SELINUX=enforcing\nSELINUXTYPE=targeted\n";
const REFUSED: &str = "Could not set context for /usr/bin/new: Invalid argument";
const SETFILES: &str = "setfiles -F -e /proc /etc/selinux/targeted/contexts/files/file_contexts /";

/// Makes a bundle of a system that uses SELinux, left with a mark of its own.
fn bundle_with_policy(dir: &Path) -> PathBuf {
    let tree = dir.join("tree-9.4.1");
    fs::create_dir_all(tree.join("etc/selinux")).unwrap();
    fs::write(tree.join("etc/selinux/config"), SETTINGS).unwrap();
    fs::write(tree.join(&MARK[1..]), "of the image").unwrap();
    make_bundle(dir, "9.4.1")
}

fn enforcing() -> Machine {
    let machine = Machine::fresh();
    machine.write("/sys/fs/selinux/enforce", "1");
    machine
}

#[test]
fn a_new_system_gets_its_labels_at_once_where_no_policy_refuses_them() {
    for enforce in [None, Some("0"), Some("1\n")] {
        let dir = scratch();
        let machine = Machine::fresh();
        if let Some(text) = enforce {
            machine.write("/sys/fs/selinux/enforce", text);
        }
        assert!(notes_of_apply(&machine, &bundle_with_policy(dir.path())).is_empty());
        let log = machine.log();
        let chrooted = format!(
            "{} {SETFILES}",
            machine.at("/run/va-upgrade/slot").display()
        );
        assert!(log.contains(&chrooted), "{log}");
        assert!(!machine.at("/devices/VA-back").join(&MARK[1..]).exists());
    }
}

#[test]
fn labels_that_an_enforced_policy_refuses_are_left_to_the_new_system() {
    let dir = scratch();
    let machine = enforcing();
    machine.answer("refused", REFUSED);
    let notes = notes_of_apply(&machine, &bundle_with_policy(dir.path()));
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(
        notes[0].contains("it sets the rest in its initramfs"),
        "{notes:?}"
    );
    let mark = machine.read(&format!("/devices/VA-back{MARK}"));
    assert!(mark.contains(REFUSED), "{mark}");
    // What is left takes no restart, so the tries are as many as ever.
    let trial = state(&machine).unwrap().trial().unwrap();
    assert_eq!((trial.slot, trial.tries_left), (Slot::Back, 3));
}

#[test]
fn whatever_else_setfiles_fails_of_ends_the_upgrade() {
    let dir = scratch();
    let bundle = bundle_with_policy(dir.path());
    let undone = |machine: &Machine, word: &str| {
        let error = run(machine, &bundle).err().unwrap();
        let text = format!("{error:#}");
        assert_eq!(class_of(&error), Class::Undone, "{text}");
        assert!(text.contains(word), "{text}");
        assert!(machine.mounts().is_empty());
    };
    // The same failure where no policy is enforced is one of the storage's.
    let machine = Machine::fresh();
    machine.write("/sys/fs/selinux/enforce", "0");
    machine.answer("refused", "Input/output error");
    undone(&machine, "Input/output error");
    let machine = enforcing();
    machine.fail_on("setfiles");
    undone(&machine, "made to fail");
    let machine = enforcing();
    machine.lie_on("setfiles");
    undone(
        &machine,
        "has no SELinux label although setfiles reported no error",
    );
}

/// A system in whose initramfs the labels are to be set; `/` is mounted so.
fn unlabelled(root: &str) -> Machine {
    let machine = Machine::fresh();
    machine.write("/etc/selinux/config", SETTINGS);
    machine.write("/usr/sbin/va-upgrade", "ours");
    machine.write(MARK, "not set by the system before\n");
    let line = format!("1 0 253:1 / / {root} - ext4 /dev/mapper/VA-back rw\n");
    machine.write("/proc/self/mountinfo", &line);
    machine
}

#[test]
fn the_rest_of_the_labels_is_set_before_the_root_takes_over() {
    for (options, has_remounts) in [("ro,relatime", true), ("rw,relatime", false)] {
        let machine = unlabelled(options);
        assert!(machine.with_appliance(finish).unwrap());
        assert!(!machine.at(MARK).exists());
        let log = machine.log();
        let place = |words: &str| log.find(words).unwrap_or_else(|| panic!("{words}: {log}"));
        assert!(place(SETFILES) < place("sync"), "{log}");
        if has_remounts {
            assert!(place("mount -o remount,rw /") < place(SETFILES), "{log}");
            assert!(place("sync") < place("mount -o remount,ro /"), "{log}");
        } else {
            assert!(!log.contains("remount"), "{log}");
        }
        assert!(!machine.with_appliance(finish).unwrap(), "it is done once");
    }
}

#[test]
fn labels_that_cannot_be_set_leave_word_why() {
    let machine = unlabelled("ro");
    machine.answer("refused", REFUSED);
    machine.with_appliance(finish).unwrap_err();
    assert!(machine.read(MARK).contains(REFUSED));
    let log = machine.log();
    assert!(log.ends_with("mount -o remount,ro /"), "{log}");
    machine.forget_answer("refused");
    machine.lie_on("setfiles");
    machine.with_appliance(finish).unwrap_err();
    assert!(machine.read(MARK).contains("has no SELinux label"));
    assert!(
        machine.with_appliance(finish).unwrap(),
        "the next start tries again"
    );
}

#[test]
fn a_failure_at_any_step_of_it_keeps_the_word_until_all_is_set() {
    for fault in Fault::ALL {
        for step in 0.. {
            let machine = unlabelled("ro");
            machine.fail_at(step, fault);
            let outcome = machine.with_appliance(finish);
            if machine.failed_call().is_none() {
                outcome.unwrap();
                break;
            }
            let log = machine.log();
            if !machine.at(MARK).exists() {
                assert!(machine.is_labelled(), "{fault:?} at step {step}: {log}");
            }
        }
    }
}

#[test]
fn a_trial_without_all_its_labels_is_not_kept() {
    let (_dir, machine) = trial_running();
    machine.write(MARK, "setfiles was refused\n");
    let outcome = machine.with_appliance(after_boot).unwrap();
    let reason = "its SELinux labels are not all set: setfiles was refused";
    assert_eq!(outcome, Outcome::Restarting(reason.into()));
    let history = machine.read("/data/va-upgrade/history.jsonl");
    assert!(history.contains(reason), "{history}");
}

#[test]
fn check_tells_when_labels_are_set() {
    let told = |machine: &Machine| {
        machine.with_appliance(|appliance| {
            let look = Look::look(appliance).unwrap();
            let checks = preflight::check(appliance, &look, None).0.checks;
            let check = checks.into_iter().find(|check| check.name == "selinux");
            check.unwrap().message()
        })
    };
    let machine = Machine::fresh();
    assert!(told(&machine).contains("not used by this system"));
    machine.write("/sys/fs/selinux/enforce", "0");
    assert!(told(&machine).contains("not enforced by this system"));
    machine.write("/sys/fs/selinux/enforce", "1");
    assert!(told(&machine).contains("are set when that starts, in its initramfs"));
}
