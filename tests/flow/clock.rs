//! A clock that jumps, forwards and backwards, between and within the steps of
//! every flow. Linux's clocks for waiting (`/proc/uptime`) do not jump with it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use va_upgrade::slot::Slot;
use va_upgrade::system::Restart;
use va_upgrade::upgrade::deadline::watch;
use va_upgrade::upgrade::trial::{Outcome, after_boot};

use crate::apply::{run, state};
use crate::machine::{Machine, scratch};
use crate::release::make_bundle;
use crate::stage;
use crate::trial::{degrade, shown, trial_running};
use crate::window::{by_operator, grant, uptime};

const HOUR: u64 = 3600;

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

/// Times in an order in which no clock goes.
fn jumps() -> [SystemTime; 8] {
    const NOW: u64 = 1_795_900_000;
    [
        at(NOW),
        at(0),
        at(NOW + 5 * HOUR),
        // What does not fit 31 bits, nor 32.
        at(2_147_483_648),
        at(NOW - 5 * HOUR),
        at(4_294_967_296 + HOUR),
        UNIX_EPOCH - Duration::from_secs(HOUR),
        at(1),
    ]
}

/// What the flows decide: all of `/boot` but for the times that are told.
fn decided(machine: &Machine) -> BTreeMap<PathBuf, Vec<u8>> {
    let root = machine.at("/");
    let files = machine.snapshot("/boot").into_iter();
    let files = files.map(|(path, content)| (path.strip_prefix(&root).unwrap().into(), content));
    let mut files: BTreeMap<PathBuf, Vec<u8>> = files.collect();
    files.retain(|path, _| !path.ends_with("before.yaml") && !path.ends_with("initramfs.yaml"));
    files
}

fn history(machine: &Machine) -> Vec<(String, String)> {
    let text = machine.read("/data/va-upgrade/history.jsonl");
    let events = text.lines().map(|line| {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(event["time"].is_u64(), "{line}");
        let word = |name: &str| event[name].as_str().unwrap().to_owned();
        (word("operation"), word("outcome"))
    });
    events.collect()
}

/// What came of two upgrades.
#[derive(Debug, PartialEq, Eq)]
struct Life {
    boot: BTreeMap<PathBuf, Vec<u8>>,
    history: Vec<(String, String)>,
    status: serde_json::Value,
}

/// Two upgrades, one confirmed and one given up.
fn life(clock: &[SystemTime]) -> Life {
    let dir = scratch();
    let machine = Machine::fresh();
    machine.set_clock(clock.iter().copied());
    stage::write_only(&machine, &make_bundle(dir.path(), "9.4.1")).unwrap();
    stage::activate(&machine).unwrap();
    machine.boot("back", "trial");
    let outcome = machine.with_appliance(after_boot).unwrap();
    assert_eq!(outcome, Outcome::Confirmed(Slot::Back));
    run(&machine, &make_bundle(dir.path(), "9.4.2")).unwrap();
    machine.boot("root", "trial");
    let _ = std::fs::remove_file(machine.at("/run/va-upgrade.over"));
    degrade(&machine, "broken.service");
    let outcome = machine.with_appliance(after_boot).unwrap();
    assert!(matches!(outcome, Outcome::Restarting(_)), "{outcome:?}");
    machine.with_appliance(watch).unwrap();
    assert_eq!(machine.reboots(), [Restart::Orderly, Restart::Forced]);
    let kept = machine.at("/data/va-upgrade/trials");
    assert!(std::fs::read_dir(kept).unwrap().count() > 0);
    Life {
        boot: decided(&machine),
        history: history(&machine),
        status: shown(&machine),
    }
}

#[test]
fn a_clock_that_jumps_at_every_look_changes_nothing_but_the_times_that_are_told() {
    let steady = life(&[at(1_795_900_000)]);
    for first in 0..jumps().len() {
        let mut clock = jumps();
        clock.rotate_left(first);
        let jumped = life(&clock);
        assert_eq!(steady, jumped, "from jump {first}");
    }
}

#[test]
fn the_deadline_and_what_was_granted_do_not_move_with_the_clock() {
    for time in jumps() {
        let (_dir, machine) = trial_running();
        machine.write("/proc/uptime", "30.00 1.0\n");
        machine.set_clock([time]);
        assert_eq!(grant(&machine, 60).unwrap(), HOUR);
        machine.set_clock(jumps());
        machine.meanwhile("reboot", |machine| {
            assert!((30 + HOUR..40 + HOUR).contains(&uptime(machine)));
        });
        machine.with_appliance(watch).unwrap();
        assert_eq!(machine.reboots(), [Restart::Forced]);
    }
}

#[test]
fn the_time_that_a_person_has_does_not_move_with_the_clock() {
    for time in jumps() {
        let (_dir, machine) = by_operator();
        machine.set_clock([time]);
        machine.with_appliance(after_boot).unwrap();
        machine.set_clock(jumps());
        machine.write("/proc/uptime", "630.00 1.0\n");
        assert_eq!(shown(&machine)["confirmation"]["seconds_left"], 600);
        assert!(machine.confirm().unwrap());
        assert_eq!(state(&machine).unwrap().committed(), Slot::Back);
    }
}
