//! `apply --stage`, `activate` and `discard` on the fake machine.

use std::fs;
use std::path::Path;

use anyhow::Result;
use serde_json::json;
use va_upgrade::appliance::machine::Machine as Facts;
use va_upgrade::boot::state::Phase;
use va_upgrade::failure::{Class, class_of};
use va_upgrade::slot::Slot;
use va_upgrade::upgrade::apply::{Applied, Options, apply};
use va_upgrade::upgrade::stage::{self, Activated, Discarded};
use va_upgrade::upgrade::trial::{Outcome, after_boot};

use crate::apply::{armed, options, run, state};
use crate::boots;
use crate::machine::{Fault, Machine, scratch};
use crate::release::make_bundle;
use crate::rollback::upgraded;
use crate::trial::shown;

pub fn activate(machine: &Machine) -> Result<Activated> {
    machine.with_appliance(|appliance| {
        let facts = Facts::look(appliance)?;
        stage::activate(appliance, &facts, &appliance.lock()?)
    })
}

pub fn discard(machine: &Machine) -> Result<Option<Discarded>> {
    machine.with_appliance(|appliance| {
        let facts = Facts::look(appliance)?;
        stage::discard(appliance, &facts, &appliance.lock()?)
    })
}

pub fn write_only(machine: &Machine, bundle: &Path) -> Result<Applied> {
    let options = Options {
        stage: true,
        ..options(bundle)
    };
    machine.with_appliance(|appliance| apply(appliance, options))
}

/// An appliance on which 9.4.1 waits in slot `back`.
pub fn staged() -> (tempfile::TempDir, Machine) {
    let dir = scratch();
    let machine = Machine::fresh();
    write_only(&machine, &make_bundle(dir.path(), "9.4.1")).unwrap();
    (dir, machine)
}

fn last_event(machine: &Machine) -> serde_json::Value {
    let history = machine.read("/data/va-upgrade/history.jsonl");
    serde_json::from_str(history.lines().last().unwrap()).unwrap()
}

#[test]
fn a_staged_system_is_whole_and_the_next_boots_are_the_old_ones() {
    let (_dir, machine) = staged();
    let status = shown(&machine);
    assert_eq!(status["next"], "root");
    assert_eq!(status["trial"], json!(null));
    assert_eq!(status["slots"][1]["state"], "ready");
    assert_eq!(status["slots"][1]["version"], "9.4.1");
    assert_eq!(boots::slot_fault(&machine, Slot::Back), None);
    assert_eq!(last_event(&machine)["outcome"], "staged, not on trial");
    machine.boot("root", "commit");
    let outcome = machine.with_appliance(after_boot).unwrap();
    assert_eq!(outcome, Outcome::Ordinary);
    assert_eq!(state(&machine).unwrap().phase(Slot::Back), Phase::Ready);
}

#[test]
fn what_is_activated_is_the_trial_that_apply_would_have_armed() {
    let (_dir, machine) = staged();
    let activated = activate(&machine).unwrap();
    assert!(!activated.was_armed);
    assert_eq!(
        (activated.slot, &*activated.version, activated.tries),
        (Slot::Back, "9.4.1", 3)
    );
    let dir = scratch();
    assert_eq!(state(&machine), state(&armed(dir.path())));
    assert_eq!(last_event(&machine)["operation"], "activate");
    assert!(machine.mounts().is_empty());

    let before = machine.snapshot("/boot");
    assert!(activate(&machine).unwrap().was_armed);
    assert!(machine.snapshot("/boot") == before);
    machine.boot("back", "trial");
    let outcome = machine.with_appliance(after_boot).unwrap();
    assert_eq!(outcome, Outcome::Confirmed(Slot::Back));
}

#[test]
fn a_staged_system_that_would_not_boot_is_not_activated() {
    type Damage = fn(&Machine);
    let cases: [(&str, Damage); 7] = [
        ("vmlinuz", |m| {
            m.write("/boot/va/back/vmlinuz-6.1.0-2", "new kernal")
        }),
        ("no boot entry", |m| {
            fs::remove_file(m.at("/boot/va/back/slot.yaml")).unwrap()
        }),
        ("lacks init", |m| {
            fs::remove_dir_all(m.at("/devices/VA-back/usr/lib/modules")).unwrap()
        }),
        ("holds version 9.9", |m| {
            m.write(
                "/devices/VA-back/etc/va-upgrade/release.yaml",
                "product: acme\nversion: '9.9'\n",
            )
        }),
        ("does not say which version", |m| {
            fs::remove_file(m.at("/devices/VA-back/etc/va-upgrade/release.yaml")).unwrap()
        }),
        ("another GRUB", Machine::install_foreign_grub),
        ("although slot root is committed", |m| {
            m.boot("back", "other")
        }),
    ];
    for (words, damage) in cases {
        let (_dir, machine) = staged();
        damage(&machine);
        machine.be_damaged();
        let before = state(&machine);
        let error = activate(&machine).unwrap_err();
        assert_eq!(class_of(&error), Class::Refused, "{error:#}");
        assert!(format!("{error:#}").contains(words), "{words}: {error:#}");
        assert_eq!(state(&machine), before, "{words}");
        assert!(machine.mounts().is_empty(), "{words}");
    }
}

#[test]
fn where_nothing_is_staged_nothing_is_activated_and_the_way_out_is_named() {
    let (_dir, confirmed) = upgraded();
    for machine in [Machine::fresh(), confirmed] {
        let error = activate(&machine).unwrap_err();
        assert_eq!(class_of(&error), Class::Refused, "{error:#}");
        assert!(format!("{error:#}").contains("apply --stage"), "{error:#}");
        let before = machine.snapshot("/boot");
        assert_eq!(discard(&machine).unwrap(), None);
        assert!(machine.snapshot("/boot") == before);
    }
}

#[test]
fn what_is_discarded_before_the_restart_leaves_the_old_system_and_an_empty_slot() {
    for is_armed in [true, false] {
        let (_dir, machine) = staged();
        if is_armed {
            activate(&machine).unwrap();
        }
        let dropped = discard(&machine).unwrap().unwrap();
        assert_eq!(dropped.was_armed, is_armed);
        assert_eq!(dropped.version.as_deref(), Some("9.4.1"));
        let status = shown(&machine);
        assert_eq!(
            (&status["next"], &status["trial"]),
            (&json!("root"), &json!(null))
        );
        assert_eq!(status["slots"][1]["state"], "empty");
        assert_eq!(status["failed"], json!(null));
        assert_eq!(last_event(&machine)["operation"], "discard");
        assert_eq!(discard(&machine).unwrap(), None);
        assert!(activate(&machine).is_err());
    }
}

#[test]
fn after_a_discard_the_next_apply_starts_anew() {
    let (dir, machine) = staged();
    discard(&machine).unwrap();
    run(&machine, &make_bundle(dir.path(), "9.4.2")).unwrap();
    assert_eq!(state(&machine).unwrap().next(), Slot::Back);
    assert_eq!(boots::slot_fault(&machine, Slot::Back), None);
}

#[test]
fn a_system_that_runs_is_not_discarded() {
    for why in ["trial", "other"] {
        let (_dir, machine) = staged();
        if why == "trial" {
            activate(&machine).unwrap();
        }
        machine.boot("back", why);
        let before = machine.snapshot("/boot");
        let error = discard(&machine).unwrap_err();
        assert_eq!(class_of(&error), Class::Refused, "{error:#}");
        assert!(machine.snapshot("/boot") == before);
    }
}

#[test]
fn whichever_program_goes_wrong_an_activation_is_whole_or_has_not_been() {
    for fault in Fault::ALL {
        for step in 0.. {
            let (_dir, machine) = staged();
            machine.fail_at(step, fault);
            let outcome = activate(&machine);
            let failed = machine.failed_call();
            let next = state(&machine).unwrap().next();
            assert!(machine.mounts().is_empty(), "{failed:?} left a mount");
            assert_eq!(next == Slot::Back, outcome.is_ok(), "{failed:?}");
            for slot in Slot::ALL {
                assert_eq!(boots::slot_fault(&machine, slot), None, "{failed:?}");
            }
            if failed.is_none() {
                break;
            }
        }
    }
}

#[test]
fn whichever_program_goes_wrong_a_discarded_system_is_not_started() {
    for fault in Fault::ALL {
        for step in 0.. {
            let (_dir, machine) = staged();
            activate(&machine).unwrap();
            machine.fail_at(step, fault);
            let outcome = discard(&machine);
            let failed = machine.failed_call();
            assert!(outcome.is_ok(), "{failed:?}: {outcome:?}");
            let next = state(&machine).map_or(Slot::Root, |state| state.next());
            assert_eq!(next, Slot::Root, "{failed:?}");
            assert_eq!(boots::fault(&machine), None, "{failed:?}");
            if failed.is_none() {
                break;
            }
        }
    }
}

#[test]
fn a_failure_at_any_step_of_a_first_staging_puts_everything_back() {
    let dir = scratch();
    let bundle = make_bundle(dir.path(), "9.4.1");
    for step in 0.. {
        let machine = Machine::fresh();
        let (boot, area) = (machine.snapshot("/boot"), machine.boot_area());
        machine.fail_at(step, Fault::Fails);
        let outcome = write_only(&machine, &bundle);
        assert!(machine.mounts().is_empty(), "step {step} left a mount");
        if outcome.is_err() {
            assert!(machine.snapshot("/boot") == boot, "step {step}");
            assert_eq!(machine.boot_area(), area, "step {step}");
        } else {
            assert_eq!(state(&machine).unwrap().phase(Slot::Back), Phase::Ready);
            assert_eq!(boots::slot_fault(&machine, Slot::Back), None);
        }
        if machine.failed_call().is_none() {
            break;
        }
    }
}
