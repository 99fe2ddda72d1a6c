//! `rollback` on the fake machine.

use std::fs;
use std::path::Path;

use va_upgrade::appliance::machine::Machine as Facts;
use va_upgrade::failure::{Class, class_of};
use va_upgrade::slot::Slot;
use va_upgrade::upgrade::rollback::{RolledBack, rollback};

use crate::apply::{armed, state};
use crate::boots;
use crate::machine::{Fault, Machine, scratch};

pub fn run(machine: &Machine) -> anyhow::Result<RolledBack> {
    machine.with_appliance(|appliance| {
        let facts = Facts::look(appliance)?;
        rollback(appliance, &facts, &appliance.lock()?)
    })
}

/// Runs 9.4.1 from `back`, confirmed; `root` holds the old system.
pub fn upgraded() -> (tempfile::TempDir, Machine) {
    let dir = scratch();
    let machine = upgrade(dir.path());
    (dir, machine)
}

/// The same, with its bundle in the directory `bundles`.
pub fn upgrade(bundles: &Path) -> Machine {
    let machine = armed(bundles);
    machine.boot("back", "trial");
    machine.confirm().unwrap();
    machine.boot("back", "commit");
    fill_root(&machine);
    machine
}

/// Puts into `root` what an old system there would have.
pub fn fill_root(machine: &Machine) {
    for path in ["sbin/init", "lib/modules/5.10.0-1/modules.dep", "etc/fstab"] {
        machine.write(&format!("/devices/VA-root/{path}"), "");
    }
}

#[test]
fn rollback_works_from_either_side_twice_in_a_row() {
    let (_dir, machine) = upgraded();
    assert_eq!(run(&machine).unwrap().next, Slot::Root);
    assert_eq!(state(&machine).unwrap().next(), Slot::Root);
    machine.boot("root", "commit");
    assert_eq!(run(&machine).unwrap().next, Slot::Back);
    // Not restarted yet: once more is back again.
    assert_eq!(run(&machine).unwrap().next, Slot::Root);
    assert!(machine.mounts().is_empty());
}

#[test]
fn rollback_refuses_a_slot_that_would_not_boot() {
    type Damage = fn(&Machine);
    let cases: [(&str, Damage); 7] = [
        ("vmlinuz", |m| {
            fs::remove_file(m.at("/boot/va/root/vmlinuz-5.10.0-1")).unwrap()
        }),
        ("initrd", |m| {
            m.write("/boot/va/root/initrd", "old initramfz")
        }),
        ("entry.cfg", |m| {
            fs::remove_file(m.at("/boot/va/root/entry.cfg")).unwrap()
        }),
        ("no boot entry", |m| {
            fs::remove_file(m.at("/boot/va/root/slot.yaml")).unwrap()
        }),
        ("lacks init", |m| {
            fs::remove_file(m.at("/devices/VA-root/sbin/init")).unwrap()
        }),
        ("another GRUB", Machine::install_foreign_grub),
        ("cannot be told", |m| {
            fs::remove_file(m.at("/boot/va/grub-1/core")).unwrap();
            fs::remove_file(m.at("/boot/va/grub-1/grub/i386-pc/core.img")).unwrap()
        }),
    ];
    for (words, damage) in cases {
        let (_dir, machine) = upgraded();
        machine.be_damaged();
        damage(&machine);
        let error = run(&machine).unwrap_err();
        assert_eq!(class_of(&error), Class::Refused);
        assert!(format!("{error:#}").contains(words), "{words}: {error:#}");
        assert_eq!(state(&machine).unwrap().next(), Slot::Back, "{words}");
        assert!(machine.mounts().is_empty());
    }
}

#[test]
fn whichever_program_goes_wrong_the_default_is_a_slot_that_boots() {
    for fault in Fault::ALL {
        for step in 0.. {
            let (_dir, machine) = upgraded();
            machine.fail_at(step, fault);
            let outcome = run(&machine);
            let failed = machine.failed_call();
            assert!(machine.mounts().is_empty(), "{failed:?} left a mount");
            let wanted = if outcome.is_ok() {
                Slot::Root
            } else {
                Slot::Back
            };
            assert_eq!(state(&machine).unwrap().next(), wanted, "{failed:?}");
            assert_eq!(boots::fault(&machine), None, "{failed:?}");
            if failed.is_none() {
                break;
            }
        }
    }
}

#[test]
fn rollback_ends_a_trial_before_it_starts_and_while_it_runs() {
    for booted in ["root", "back"] {
        let dir = scratch();
        let machine = armed(dir.path());
        for path in ["sbin/init", "lib/modules/5.10.0-1/modules.dep", "etc/fstab"] {
            machine.write(&format!("/devices/VA-root/{path}"), "");
        }
        machine.boot(booted, if booted == "back" { "trial" } else { "other" });
        let outcome = run(&machine).unwrap();
        assert!(outcome.cancelled_trial);
        assert_eq!(outcome.next, Slot::Root);
        assert_eq!(state(&machine).unwrap().trial(), None);
    }
}

#[test]
fn without_a_second_system_there_is_nothing_to_go_back_to() {
    let machine = Machine::fresh();
    assert_eq!(class_of(&run(&machine).unwrap_err()), Class::Refused);
    assert!(!machine.at("/boot/va").exists());
}

#[test]
fn what_fails_once_the_boot_state_counts_fails_neither_rollback_nor_confirm() {
    type Damage = fn(&Machine);
    let damages: [Damage; 2] = [
        |m| {
            fs::remove_file(m.at("/boot/va/default.cfg")).unwrap();
            fs::create_dir(m.at("/boot/va/default.cfg")).unwrap();
        },
        |m| {
            m.write("/boot/va/env2", "cut short");
            m.fail_on("fsfreeze");
        },
    ];
    for damage in damages {
        let (_dir, machine) = upgraded();
        damage(&machine);
        assert_eq!(run(&machine).unwrap().next, Slot::Root);
        assert_eq!(state(&machine).unwrap().committed(), Slot::Root);
        let history = machine.read("/data/va-upgrade/history.jsonl");
        assert!(history.contains("made the default"), "{history}");

        let dir = scratch();
        let machine = armed(dir.path());
        machine.boot("back", "trial");
        damage(&machine);
        assert!(machine.confirm().unwrap());
        assert_eq!(state(&machine).unwrap().committed(), Slot::Back);
    }
}
