//! `drill` on the fake machine: armed, started, come back from.

use std::fs;

use anyhow::Result;
use serde_json::json;
use va_upgrade::appliance::machine::Machine as Facts;
use va_upgrade::boot::state::{Drill, Phase, Reason, State};
use va_upgrade::failure::{Class, class_of};
use va_upgrade::slot::Slot;
use va_upgrade::system::Restart;
use va_upgrade::upgrade::deadline::watch;
use va_upgrade::upgrade::drill::{self, Armed};
use va_upgrade::upgrade::trial::{Outcome, after_boot, extend};

use crate::apply::state;
use crate::boots;
use crate::machine::{Fault, Machine};
use crate::release::make_bundle;
use crate::rollback::{self, upgraded};
use crate::stage::staged;
use crate::trial::shown;

fn arm(machine: &Machine) -> Result<Armed> {
    machine.with_appliance(|appliance| {
        let facts = Facts::look(appliance)?;
        drill::arm(appliance, &facts, &appliance.lock()?)
    })
}

/// A machine on which 9.4.1 waits in `back`, with a program that knows drills.
fn ready() -> (tempfile::TempDir, Machine) {
    let (dir, machine) = staged();
    machine.answer("drill", "Have the next boot try the other system");
    (dir, machine)
}

fn drilled() -> (tempfile::TempDir, Machine) {
    let (dir, machine) = ready();
    arm(&machine).unwrap();
    (dir, machine)
}

/// Does what the menu does with the boot state, and starts the slot it chooses.
fn restart(machine: &Machine) {
    // The kernel forgets all of /run.
    for word in ["/run/va-upgrade.over", "/run/va-upgrade.until"] {
        fs::remove_file(machine.at(word)).ok();
    }
    let block = machine.read("/boot/va/env1");
    let get = |name: &str| {
        let value = block.lines().find_map(|line| line.strip_prefix(name));
        value.unwrap_or_default().to_owned()
    };
    let (trial, committed) = (get("va_trial="), get("va_commit="));
    let left: u8 = get("va_left=").parse().unwrap_or(0);
    let (slot, changes) = match (trial.is_empty(), left) {
        (true, _) => return machine.boot(&committed, "commit"),
        (false, 0) => (
            &committed,
            [
                ("va_trial", String::new()),
                ("va_left", "0".to_owned()),
                ("va_failed", trial.clone()),
                ("va_why", "exhausted".to_owned()),
            ],
        ),
        (false, left) => (
            &trial,
            [
                ("va_trial", trial.clone()),
                ("va_left", (left - 1).to_string()),
                ("va_failed", get("va_failed=")),
                ("va_why", "trial".to_owned()),
            ],
        ),
    };
    let mut text = String::new();
    for line in block.lines().filter(|line| !line.starts_with("##")) {
        let name = line.split('=').next().unwrap_or_default();
        match changes.iter().find(|(changed, _)| *changed == name) {
            Some((name, value)) => text += &format!("{name}={value}\n"),
            None => text += &format!("{line}\n"),
        }
    }
    let text = format!("{text:#<1024}");
    for copy in ["env1", "env2"] {
        machine.write(&format!("/boot/va/{copy}"), &text);
    }
    machine.boot(slot, if left > 0 { "trial" } else { "exhausted" });
}

fn start(machine: &Machine) -> Outcome {
    machine.with_appliance(after_boot).unwrap()
}

fn outcomes(machine: &Machine) -> Vec<String> {
    let history = machine.read("/data/va-upgrade/history.jsonl");
    let events = history.lines().map(|line| {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        (event["operation"] == "drill").then(|| event["outcome"].as_str().unwrap().to_owned())
    });
    events.flatten().collect()
}

/// What the state was before the drill, with the drill's outcome.
fn with_outcome(machine: &Machine, before: &State, outcome: Reason) {
    let after = state(machine).unwrap();
    let drill = Drill {
        slot: Slot::Back,
        outcome: Some(outcome),
    };
    assert_eq!(after.drill(), Some(drill));
    for slot in Slot::ALL {
        assert_eq!(after.phase(slot), before.phase(slot));
    }
    assert_eq!(
        (after.committed(), after.trial(), after.failed()),
        (before.committed(), before.trial(), before.failed())
    );
    assert_eq!(after.kernel_failed(), None);
    assert_eq!(shown(machine)["failed"], json!(null));
}

#[test]
fn a_drilled_slot_is_started_once_and_left_and_both_slots_are_what_they_were() {
    let (_dir, machine) = ready();
    let before = state(&machine).unwrap();
    let armed = arm(&machine).unwrap();
    assert_eq!((armed.slot, armed.was_armed), (Slot::Back, false));
    assert!(arm(&machine).unwrap().was_armed);
    assert!(machine.mounts().is_empty());
    let status = shown(&machine);
    assert_eq!(status["drill"], json!({"slot": "back", "outcome": null}));
    assert_eq!(
        (&status["next"], &status["failed"]),
        (&json!("back"), &json!(null))
    );
    assert_eq!(status["slots"][1]["state"], "ready");

    restart(&machine);
    let outcome = start(&machine);
    assert_eq!(outcome, Outcome::Restarting(drill::ON_PURPOSE.to_owned()));
    assert_eq!(machine.reboots(), [Restart::Orderly]);
    assert_eq!(state(&machine).unwrap().next(), Slot::Root);

    restart(&machine);
    assert_eq!(shown(&machine)["failed"], json!(null));
    assert_eq!(
        start(&machine),
        Outcome::DrillOver(Slot::Back, Reason::Drill)
    );
    with_outcome(&machine, &before, Reason::Drill);
    assert_eq!(
        outcomes(&machine),
        [
            "armed",
            drill::ON_PURPOSE,
            "drill passed: slot back started, slot root came back"
        ]
    );
    restart(&machine);
    assert_eq!(start(&machine), Outcome::Ordinary);
    assert_eq!(shown(&machine)["drill"]["outcome"], "drill");
}

#[test]
fn the_old_system_of_a_confirmed_upgrade_is_drilled_and_stays_good() {
    let (_dir, machine) = upgraded();
    machine.answer("drill", "");
    for (wanted_by, name) in [
        ("multi-user.target.wants", "va-upgrade-boot.service"),
        ("sysinit.target.wants", "va-upgrade-deadline.service"),
    ] {
        machine.write(
            &format!("/devices/VA-root/usr/lib/systemd/system/{name}"),
            "",
        );
        let wants = machine.at(&format!("/devices/VA-root/etc/systemd/system/{wanted_by}"));
        fs::create_dir_all(&wants).unwrap();
        std::os::unix::fs::symlink("x", wants.join(name)).unwrap();
    }
    machine.write("/usr/lib/modules/6.1.0-2/modules.dep", "");
    machine.write("/lib/modules/6.1.0-2/modules.dep", "");
    assert_eq!(arm(&machine).unwrap().slot, Slot::Root);
    restart(&machine);
    assert!(matches!(start(&machine), Outcome::Restarting(_)));
    restart(&machine);
    assert_eq!(
        start(&machine),
        Outcome::DrillOver(Slot::Root, Reason::Drill)
    );
    let state = state(&machine).unwrap();
    assert_eq!(state.phase(Slot::Root), Phase::Good);
    assert_eq!(rollback::run(&machine).unwrap().next, Slot::Root);
}

#[test]
fn a_drilled_slot_that_does_not_start_is_told_and_not_counted_as_failed() {
    let (_dir, machine) = drilled();
    let before = ready().1;
    restart(&machine);
    restart(&machine);
    assert_eq!(
        start(&machine),
        Outcome::DrillOver(Slot::Back, Reason::Exhausted)
    );
    with_outcome(&machine, &state(&before).unwrap(), Reason::Exhausted);
    let last = outcomes(&machine).pop().unwrap();
    assert!(
        last.starts_with("drill failed: slot back did not start"),
        "{last}"
    );
}

#[test]
fn a_drill_that_grub_cannot_count_is_told_and_over() {
    let (_dir, machine) = drilled();
    machine.boot("root", "nowrite");
    assert_eq!(
        start(&machine),
        Outcome::DrillOver(Slot::Back, Reason::Nowrite)
    );
    assert_eq!(state(&machine).unwrap().trial(), None);
    assert_eq!(state(&machine).unwrap().phase(Slot::Back), Phase::Ready);
}

#[test]
fn a_drilled_slot_whose_boot_service_hangs_is_left_at_the_deadline() {
    let (_dir, machine) = drilled();
    restart(&machine);
    machine.write("/proc/uptime", "30.00 1.0\n");
    machine.with_appliance(watch).unwrap();
    assert_eq!(machine.reboots(), [Restart::Forced]);
    restart(&machine);
    assert_eq!(
        start(&machine),
        Outcome::DrillOver(Slot::Back, Reason::Deadline)
    );
    assert_eq!(state(&machine).unwrap().phase(Slot::Back), Phase::Ready);
}

#[test]
fn a_power_cut_in_the_drilled_slot_leads_back_too() {
    let (_dir, machine) = drilled();
    restart(&machine);
    // Nothing in it has run yet.
    assert_eq!(state(&machine).unwrap().next(), Slot::Root);
    restart(&machine);
    assert_eq!(shown(&machine)["booted"], "root");
    start(&machine);
    assert_eq!(state(&machine).unwrap().committed(), Slot::Root);
}

#[test]
fn nobody_confirms_a_drill_or_gives_it_time() {
    let (_dir, machine) = drilled();
    restart(&machine);
    let refused = |error: anyhow::Error| {
        assert_eq!(class_of(&error), Class::Refused, "{error:#}");
        assert!(format!("{error:#}").contains("drill"), "{error:#}");
    };
    refused(machine.confirm().unwrap_err());
    refused(
        machine
            .with_appliance(|appliance| extend(appliance, 5, &appliance.lock()?))
            .unwrap_err(),
    );
    refused(crate::stage::discard(&machine).unwrap_err());
    refused(arm(&machine).unwrap_err());
    assert_eq!(state(&machine).unwrap().committed(), Slot::Root);
    // A person who sees it hang goes back by hand.
    rollback::fill_root(&machine);
    assert!(rollback::run(&machine).unwrap().was_drill);
    assert_eq!(state(&machine).unwrap().drill(), None);
    assert_eq!(state(&machine).unwrap().phase(Slot::Back), Phase::Ready);
}

#[test]
fn a_drilled_slot_whose_boot_state_is_gone_is_left_and_not_confirmed() {
    let (_dir, machine) = drilled();
    restart(&machine);
    let line = machine.read("/proc/cmdline");
    machine.write("/proc/cmdline", &format!("va.drill=1 {line}"));
    for copy in ["env1", "env2"] {
        fs::remove_file(machine.at(&format!("/boot/va/{copy}"))).unwrap();
    }
    let error = machine.confirm().unwrap_err();
    assert_eq!(class_of(&error), Class::Refused, "{error:#}");
    assert!(matches!(start(&machine), Outcome::Restarting(_)));
    assert_eq!(machine.reboots(), [Restart::Orderly]);
    // The menu then starts what default.cfg names.
    assert!(!machine.at("/boot/va/env1").exists());
    assert_eq!(boots::fault(&machine), None);
    machine.boot("root", "noenv");
    start(&machine);
    assert_eq!(state(&machine).unwrap().committed(), Slot::Root);
}

#[test]
fn a_drill_is_cancelled_before_the_restart_and_the_slot_keeps_its_system() {
    type Cancel = fn(&Machine);
    let cancels: [Cancel; 2] = [
        |machine| assert!(crate::stage::discard(machine).unwrap().unwrap().was_drill),
        |machine| assert!(rollback::run(machine).unwrap().was_drill),
    ];
    for cancel in cancels {
        let (_dir, machine) = ready();
        let before = machine.snapshot("/boot");
        arm(&machine).unwrap();
        assert!(crate::stage::activate(&machine).is_err());
        cancel(&machine);
        assert!(machine.snapshot("/boot") == before);
        assert_eq!(shown(&machine)["drill"], json!(null));
        let activated = crate::stage::activate(&machine).unwrap();
        assert!(!activated.was_armed);
    }
}

#[test]
fn an_upgrade_takes_the_place_of_a_drill() {
    let (dir, machine) = drilled();
    crate::apply::run(&machine, &make_bundle(dir.path(), "9.4.2")).unwrap();
    let state = state(&machine).unwrap();
    assert_eq!(
        (state.phase(Slot::Back), state.drill()),
        (Phase::Trial, None)
    );
    machine.boot("back", "trial");
    assert_eq!(start(&machine), Outcome::Confirmed(Slot::Back));
}

#[test]
fn a_drill_that_would_prove_nothing_or_not_come_back_is_refused_with_the_way_out() {
    type Damage = fn(&Machine);
    let cases: [(&str, Damage); 8] = [
        ("knows no drills", |m| m.forget_answer("drill")),
        ("not enabled", |m| {
            let wants = "/devices/VA-back/etc/systemd/system/multi-user.target.wants";
            fs::remove_dir_all(m.at(wants)).unwrap()
        }),
        ("vmlinuz", |m| {
            m.write("/boot/va/back/vmlinuz-6.1.0-2", "new kernal")
        }),
        ("slot root would not boot", |m| {
            m.write("/boot/va/root/initrd", "old initramfz")
        }),
        ("lacks init", |m| {
            fs::remove_dir_all(m.at("/devices/VA-back/usr/lib/modules")).unwrap()
        }),
        ("another GRUB", Machine::install_foreign_grub),
        ("slot back is on trial", |m| {
            crate::stage::activate(m).unwrap();
        }),
        ("apply --stage", |m| {
            crate::stage::discard(m).unwrap();
        }),
    ];
    for (words, damage) in cases {
        let (_dir, machine) = ready();
        machine.be_damaged();
        damage(&machine);
        let before = state(&machine);
        let error = arm(&machine).unwrap_err();
        assert_eq!(class_of(&error), Class::Refused, "{error:#}");
        assert!(format!("{error:#}").contains(words), "{words}: {error:#}");
        assert_eq!(state(&machine), before, "{words}");
        assert!(machine.mounts().is_empty(), "{words}");
    }
    let error = arm(&Machine::fresh()).unwrap_err();
    assert!(format!("{error:#}").contains("apply --stage"), "{error:#}");
    let (_dir, failed) = ready();
    crate::stage::activate(&failed).unwrap();
    (0..4).for_each(|_| restart(&failed));
    start(&failed);
    let error = arm(&failed).unwrap_err();
    assert!(
        format!("{error:#}").contains("slot back is failed"),
        "{error:#}"
    );
}

#[test]
fn whichever_step_of_arming_goes_wrong_the_drill_is_whole_or_has_not_been() {
    for fault in Fault::ALL {
        for step in 0.. {
            let (_dir, machine) = ready();
            machine.fail_at(step, fault);
            let outcome = arm(&machine);
            let failed = machine.failed_call();
            let state = state(&machine).unwrap();
            assert!(machine.mounts().is_empty(), "{failed:?} left a mount");
            assert_eq!(state.next() == Slot::Back, outcome.is_ok(), "{failed:?}");
            assert_eq!(state.is_drilling(), outcome.is_ok(), "{failed:?}");
            assert_eq!(boots::fault(&machine), None, "{failed:?}");
            if failed.is_none() {
                break;
            }
        }
    }
}

#[test]
fn whichever_step_of_a_drill_goes_wrong_the_old_slot_comes_back_and_nothing_is_confirmed() {
    for fault in Fault::ALL {
        for boot in [1, 2] {
            for step in 0.. {
                let (_dir, machine) = drilled();
                restart(&machine);
                if boot == 2 {
                    machine.with_appliance(after_boot).unwrap();
                    restart(&machine);
                }
                machine.fail_at(step, fault);
                let _ = machine.with_appliance(after_boot);
                let failed = machine.failed_call();
                let after = state(&machine).unwrap();
                assert_eq!(after.next(), Slot::Root, "{failed:?}");
                assert_eq!(after.phase(Slot::Back), Phase::Ready, "{failed:?}");
                restart(&machine);
                let _ = machine.with_appliance(after_boot);
                let after = state(&machine).unwrap();
                assert_eq!(after.committed(), Slot::Root, "{failed:?}");
                assert_eq!(after.failed(), None, "{failed:?}");
                let outcome = after.drill().and_then(|drill| drill.outcome);
                assert_eq!(outcome, Some(Reason::Drill), "{failed:?}");
                if failed.is_none() {
                    break;
                }
            }
        }
    }
}

#[test]
fn a_kernel_of_a_package_waits_for_the_end_of_a_drill() {
    use va_upgrade::upgrade::kernel_update::{Change, adopt};
    let (_dir, machine) = drilled();
    let error = machine
        .with_appliance(|appliance| {
            let facts = Facts::look(appliance)?;
            adopt(appliance, &facts, Change::default(), &appliance.lock()?)
        })
        .unwrap_err();
    assert_eq!(class_of(&error), Class::Refused, "{error:#}");
}

#[test]
fn an_ordinary_trial_after_a_drill_is_confirmed() {
    let (_dir, machine) = drilled();
    for _ in 0..2 {
        restart(&machine);
        start(&machine);
    }
    stage_and_confirm(&machine);
}

fn stage_and_confirm(machine: &Machine) {
    crate::stage::activate(machine).unwrap();
    assert_eq!(shown(machine)["drill"], json!(null));
    restart(machine);
    assert_eq!(start(machine), Outcome::Confirmed(Slot::Back));
}
