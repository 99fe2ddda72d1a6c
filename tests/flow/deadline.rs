//! What the watcher of a trial's deadline does on the fake machine.

use std::fs;
use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use va_upgrade::failure::{Class, class_of};
use va_upgrade::system::{Lock, Restart};
use va_upgrade::upgrade::deadline::watch;
use va_upgrade::upgrade::trial::after_boot;

use crate::machine::Machine;
use crate::rollback;
use crate::trial::{degrade, exhaust, shown, trial_running};

/// Runs the watcher while reading the boot state hangs and time runs out, until
/// `is_enough` or ten seconds have passed; only then the storage comes back.
fn watch_with_hung_storage(machine: &Machine, is_enough: impl Fn() -> bool) {
    let (env, aside) = (machine.at("/boot/va/env1"), machine.at("/aside"));
    let content = fs::read(&env).unwrap();
    fs::remove_file(&env).unwrap();
    nix::unistd::mkfifo(&env, nix::sys::stat::Mode::S_IRWXU).unwrap();
    machine.be_damaged();
    machine.run_out_of_time();
    thread::scope(|scope| {
        let watcher = scope.spawn(|| machine.with_appliance(watch));
        let start = Instant::now();
        while !is_enough() && !watcher.is_finished() && start.elapsed() < Duration::from_secs(10) {
            thread::sleep(Duration::from_millis(1));
        }
        let was_enough = is_enough();
        fs::rename(&env, &aside).unwrap();
        fs::write(&env, content).unwrap();
        if !watcher.is_finished() {
            let open = fs::File::options().read(true).write(true).open(&aside);
            open.unwrap().write_all(b"x").unwrap();
        }
        watcher.join().unwrap().unwrap();
        assert!(was_enough);
    });
}

#[test]
fn storage_that_hangs_keeps_no_trial_running() {
    let (_dir, machine) = trial_running();
    let is_restarted = || machine.read("/proc/sysrq-trigger") == "b";
    watch_with_hung_storage(&machine, is_restarted);
}

#[test]
fn a_restart_that_hangs_keeps_no_trial_running() {
    let (_dir, machine) = trial_running();
    machine.run_out_of_time();
    machine.meanwhile("reboot", |machine| {
        let start = Instant::now();
        while machine.read("/proc/sysrq-trigger") != "b" {
            assert!(start.elapsed() < Duration::from_secs(10));
            thread::sleep(Duration::from_millis(1));
        }
    });
    machine.with_appliance(watch).unwrap();
    assert_eq!(machine.reboots(), [Restart::Forced]);
}

#[test]
fn a_trial_that_was_ended_by_a_person_is_not_restarted_even_when_storage_hangs() {
    type End = fn(&Machine);
    let ends: [End; 2] = [
        |machine| assert!(machine.confirm().unwrap()),
        |machine| assert!(rollback::run(machine).unwrap().cancelled_trial),
    ];
    for end in ends {
        let (_dir, machine) = trial_running();
        rollback::fill_root(&machine);
        end(&machine);
        watch_with_hung_storage(&machine, || true);
        assert!(machine.reboots().is_empty());
        assert_eq!(machine.read("/proc/sysrq-trigger"), "");
    }
}

#[test]
fn what_the_last_restart_needs_is_there_before_the_watcher_waits() {
    let (_dir, machine) = trial_running();
    machine.write("/proc/uptime", "30.00 1.0\n");
    machine.meanwhile("wait", |machine| {
        assert!(machine.log().ends_with("lock memory"));
        let trigger = machine.at("/proc/sysrq-trigger");
        fs::rename(trigger, machine.at("/opened")).unwrap();
    });
    machine.with_appliance(watch).unwrap();
    assert_eq!(machine.read("/opened"), "sb");
}

#[test]
fn a_watcher_that_cannot_prepare_still_restarts_a_trial() {
    let (_dir, machine) = trial_running();
    machine.fail_on("lock memory");
    fs::remove_file(machine.at("/proc/sysrq-trigger")).unwrap();
    machine.with_appliance(watch).unwrap();
    assert_eq!(machine.reboots(), [Restart::Forced]);
}

#[test]
fn the_deadline_restarts_an_unconfirmed_trial_by_force() {
    let (_dir, machine) = trial_running();
    machine.with_appliance(watch).unwrap();
    assert_eq!(machine.reboots(), [Restart::Forced]);
    exhaust(&machine);
    machine.boot("root", "exhausted");
    assert_eq!(shown(&machine)["failed"]["reason"], "deadline");
}

#[test]
fn a_deadline_after_a_failed_health_check_leaves_its_reason() {
    let (_dir, machine) = trial_running();
    degrade(&machine, "broken.service");
    machine.with_appliance(after_boot).unwrap();
    machine.with_appliance(watch).unwrap();
    assert_eq!(machine.reboots(), [Restart::Orderly, Restart::Forced]);
    exhaust(&machine);
    machine.boot("root", "exhausted");
    assert_eq!(shown(&machine)["failed"]["reason"], "health");
}

#[test]
fn the_deadline_restarts_even_when_boot_is_not_mounted() {
    let (_dir, machine) = trial_running();
    machine.write(
        "/proc/self/mountinfo",
        "1 0 253:1 / / rw - ext4 /dev/mapper/VA-back rw\n",
    );
    machine.with_appliance(watch).unwrap();
    assert_eq!(machine.reboots(), [Restart::Forced]);
}

#[test]
fn a_confirmed_trial_has_no_deadline_and_a_committed_boot_never_had_one() {
    let (_dir, machine) = trial_running();
    assert!(machine.confirm().unwrap());
    assert!(!machine.confirm().unwrap());
    machine.with_appliance(watch).unwrap();
    machine.boot("back", "commit");
    machine.with_appliance(watch).unwrap();
    assert!(machine.reboots().is_empty());
}

#[test]
fn a_lock_that_is_held_over_the_deadline_restarts_a_trial_but_no_confirmed_system() {
    let (_dir, machine) = trial_running();
    let lock = Lock::take(&machine.at("/run/va-upgrade.lock")).unwrap();
    machine.with_appliance(watch).unwrap();
    assert_eq!(machine.reboots(), [Restart::Forced]);
    drop(lock);

    let (dir, machine) = trial_running();
    machine.confirm().unwrap();
    // The other slot is written, and on trial, under the same kernel.
    let bundle = crate::release::make_bundle(dir.path(), "9.4.2");
    let lock = Lock::take(&machine.at("/run/va-upgrade.lock")).unwrap();
    machine.with_appliance(watch).unwrap();
    drop(lock);
    crate::apply::run(&machine, &bundle).unwrap();
    let _lock = Lock::take(&machine.at("/run/va-upgrade.lock")).unwrap();
    machine.with_appliance(watch).unwrap();
    assert!(machine.reboots().is_empty());
}

#[test]
fn a_confirmation_while_the_watcher_waits_counts_and_none_comes_between_note_and_restart() {
    let (_dir, machine) = trial_running();
    machine.write("/proc/uptime", "30.00 1.0\n");
    machine.meanwhile("wait", |machine| assert!(machine.confirm().unwrap()));
    machine.with_appliance(watch).unwrap();
    assert!(machine.reboots().is_empty());

    let (_dir, machine) = trial_running();
    machine.meanwhile("reboot", |machine| {
        assert_eq!(class_of(&machine.confirm().unwrap_err()), Class::Locked);
    });
    machine.with_appliance(watch).unwrap();
    assert_eq!(machine.reboots(), [Restart::Forced]);
}

#[test]
fn a_trial_whose_boot_state_is_gone_ends_at_the_deadline() {
    let (_dir, machine) = trial_running();
    for copy in ["env1", "env2"] {
        std::fs::remove_file(machine.at(&format!("/boot/va/{copy}"))).unwrap();
    }
    machine.with_appliance(watch).unwrap();
    assert_eq!(machine.reboots(), [Restart::Forced]);
}

/// Gives the machine a watchdog, and time to feed it; what is written to it stays
/// in a file.
fn add_watchdog(machine: &Machine, nowayout: &str) {
    machine.write("/proc/uptime", "500.00 900.00\n");
    machine.write("/sys/class/watchdog/watchdog0/timeout", "30\n");
    machine.write("/sys/class/watchdog/watchdog0/nowayout", nowayout);
    machine.write("/dev/watchdog0", "");
}

#[test]
fn a_watchdog_is_fed_until_the_trial_is_confirmed_and_then_stopped() {
    let (_dir, machine) = trial_running();
    add_watchdog(&machine, "0\n");
    machine.meanwhile("wait", |machine| assert!(machine.confirm().unwrap()));
    machine.with_appliance(watch).unwrap();
    assert_eq!(machine.read("/dev/watchdog0"), "\nV");
    assert!(machine.reboots().is_empty());
}

#[test]
fn a_watchdog_goes_on_counting_while_an_unconfirmed_trial_restarts() {
    let (_dir, machine) = trial_running();
    add_watchdog(&machine, "0\n");
    machine.with_appliance(watch).unwrap();
    let written = machine.read("/dev/watchdog0");
    assert!(written.len() > 1 && !written.contains('V'), "{written:?}");
    assert_eq!(machine.reboots(), [Restart::Forced]);
}

#[test]
fn a_watchdog_that_nothing_stops_again_or_a_daemon_wants_is_not_started() {
    for (nowayout, is_claimed) in [("1\n", false), ("0\n", true)] {
        let (_dir, machine) = trial_running();
        add_watchdog(&machine, nowayout);
        if is_claimed {
            machine.write("/etc/watchdog.conf", "");
        }
        machine.meanwhile("wait", |machine| assert!(machine.confirm().unwrap()));
        machine.with_appliance(watch).unwrap();
        assert_eq!(machine.read("/dev/watchdog0"), "");
    }
}
