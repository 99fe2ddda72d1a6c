//! A trial that a person confirms, and one that gets more time, on the fake machine.

use va_upgrade::failure::{Class, class_of};
use va_upgrade::slot::Slot;
use va_upgrade::system::Restart;
use va_upgrade::upgrade::deadline::watch;
use va_upgrade::upgrade::trial::{Outcome, after_boot, extend};

use crate::apply::state;
use crate::machine::Machine;
use crate::trial::{degrade, shown, trial_running};

pub fn grant(machine: &Machine, minutes: u64) -> anyhow::Result<u64> {
    let left = machine.with_appliance(|appliance| extend(appliance, minutes, &appliance.lock()?));
    left.map(|left| left.as_secs())
}

pub fn uptime(machine: &Machine) -> u64 {
    let text = machine.read("/proc/uptime");
    text.split('.').next().unwrap().parse().unwrap()
}

/// A trial that has just started and that a person is to confirm in 20 minutes.
pub fn by_operator() -> (tempfile::TempDir, Machine) {
    let (dir, machine) = trial_running();
    let settings = "product: acme\nconfirm_by: operator\nconfirm_minutes: 20\n";
    machine.write("/etc/va-upgrade/config.yaml", settings);
    machine.write("/proc/uptime", "30.00 1.0\n");
    (dir, machine)
}

#[test]
fn a_healthy_trial_waits_for_a_person_where_the_settings_say_so() {
    let (_dir, machine) = by_operator();
    let outcome = machine.with_appliance(after_boot).unwrap();
    let Outcome::Waiting(Slot::Back, left) = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!(left.as_secs(), 20 * 60);
    assert_eq!(shown(&machine)["confirmation"]["seconds_left"], 20 * 60);
    machine.write("/proc/uptime", "90.00 1.0\n");
    assert_eq!(shown(&machine)["confirmation"]["seconds_left"], 19 * 60);
    assert_eq!(state(&machine).unwrap().committed(), Slot::Root);
    machine.meanwhile("wait", |machine| assert!(machine.confirm().unwrap()));
    machine.with_appliance(watch).unwrap();
    assert!(machine.reboots().is_empty());
    assert_eq!(state(&machine).unwrap().committed(), Slot::Back);
    assert_eq!(shown(&machine)["confirmation"], serde_json::json!(null));
}

#[test]
fn a_healthy_trial_that_no_person_confirms_goes_back_without_another_try() {
    let (_dir, machine) = by_operator();
    machine.with_appliance(after_boot).unwrap();
    machine.with_appliance(watch).unwrap();
    assert_eq!(machine.reboots(), [Restart::Forced]);
    assert!(uptime(&machine) >= 30 + 20 * 60);
    let state = state(&machine).unwrap();
    assert_eq!(
        (state.next(), state.trial().unwrap().tries_left),
        (Slot::Root, 0)
    );
    let history = machine.read("/data/va-upgrade/history.jsonl");
    assert!(history.contains("in the time it was given"), "{history}");
}

#[test]
fn an_unhealthy_trial_waits_for_nobody() {
    let (_dir, machine) = by_operator();
    degrade(&machine, "broken.service");
    let outcome = machine.with_appliance(after_boot).unwrap();
    assert!(matches!(outcome, Outcome::Restarting(_)), "{outcome:?}");
    assert_eq!(state(&machine).unwrap().trial().unwrap().tries_left, 3);
}

#[test]
fn a_trial_that_gets_more_time_while_the_watcher_waits_is_restarted_only_then() {
    let (_dir, machine) = trial_running();
    machine.write("/proc/uptime", "30.00 1.0\n");
    machine.meanwhile("wait", |machine| {
        assert_eq!(grant(machine, 60).unwrap(), 3600);
    });
    machine.with_appliance(watch).unwrap();
    assert!(uptime(&machine) >= 30 + 3600, "{}", uptime(&machine));
    assert_eq!(machine.reboots(), [Restart::Forced]);
    // The boot service was to confirm it, so another try is due.
    assert_eq!(state(&machine).unwrap().trial().unwrap().tries_left, 3);
}

#[test]
fn a_trial_that_the_boot_service_confirms_or_that_does_not_run_waits_for_no_person() {
    let (_dir, machine) = trial_running();
    grant(&machine, 60).unwrap();
    assert_eq!(shown(&machine)["confirmation"], serde_json::json!(null));
    let (_dir, machine) = by_operator();
    assert_eq!(shown(&machine)["confirmation"], serde_json::json!(null));
    machine.with_appliance(after_boot).unwrap();
    machine.boot("root", "commit");
    assert_eq!(shown(&machine)["confirmation"], serde_json::json!(null));
}

#[test]
fn time_that_was_given_is_never_taken_away() {
    let (_dir, machine) = trial_running();
    assert_eq!(grant(&machine, 60).unwrap(), 3600);
    assert_eq!(grant(&machine, 1).unwrap(), 3600);
    for garbage in ["", "soon", "-1", "99999999999999999999999"] {
        machine.write("/run/va-upgrade.until", garbage);
        assert_eq!(grant(&machine, 1).unwrap(), 60, "{garbage}");
    }
    machine.write("/run/va-upgrade.until", "18446744073709551615");
    assert_eq!(grant(&machine, 1).unwrap(), 7 * 24 * 3600);
}

#[test]
fn only_a_running_trial_gets_more_time_and_only_so_much() {
    let (_dir, machine) = trial_running();
    for minutes in [0, 10_081, u64::MAX] {
        let error = grant(&machine, minutes).unwrap_err();
        assert_eq!(class_of(&error), Class::Usage, "{error:#}");
    }
    machine.confirm().unwrap();
    assert_eq!(class_of(&grant(&machine, 5).unwrap_err()), Class::Refused);
    assert!(!machine.at("/run/va-upgrade.until").exists());
}
