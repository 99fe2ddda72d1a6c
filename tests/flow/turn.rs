//! The boot service and the watcher while another process has the lock.

use std::cell::RefCell;

use va_upgrade::failure::{Class, class_of};
use va_upgrade::slot::Slot;
use va_upgrade::system::{Lock, Restart};
use va_upgrade::upgrade::deadline::watch;
use va_upgrade::upgrade::trial::{LOCK_PATIENCE, Outcome, after_boot};

use crate::apply::state;
use crate::kernel::committed;
use crate::machine::Machine;
use crate::trial::{degrade, trial_running};
use crate::window::uptime;

thread_local! {
    /// What another process holds in these tests.
    static HELD: RefCell<Option<Lock>> = const { RefCell::new(None) };
}

/// Has another process take the lock, 30 seconds after the start.
fn hold(machine: &Machine) {
    let lock = Lock::take(&machine.at("/run/va-upgrade.lock")).unwrap();
    HELD.set(Some(lock));
    machine.write("/proc/uptime", "30.00 1.0\n");
}

fn let_go(_machine: &Machine) {
    HELD.take();
}

/// How long the default deadline is, in seconds.
fn deadline(machine: &Machine) -> u64 {
    machine.with_appliance(|appliance| appliance.config.deadline_seconds)
}

#[test]
fn an_ordinary_start_waits_for_the_lock_for_a_while_and_says_so() {
    let (_dir, machine) = committed();
    hold(&machine);
    let before = machine.snapshot("/boot");
    let error = machine.with_appliance(after_boot).unwrap_err();
    assert_eq!(class_of(&error), Class::Locked);
    assert!(format!("{error:#}").contains("another va-upgrade is at work"));
    let waited = uptime(&machine) - 30;
    assert!(waited <= LOCK_PATIENCE.as_secs() + 1, "{waited}");
    let state_files = |files: &std::collections::BTreeMap<_, _>| {
        let is_seen = |path: &std::path::PathBuf| path.ends_with("initramfs.yaml");
        let mut files: std::collections::BTreeMap<_, Vec<u8>> = files.clone();
        files.retain(|path, _| !is_seen(path));
        files
    };
    assert!(state_files(&machine.snapshot("/boot")) == state_files(&before));

    // Whoever has it ends in time.
    machine.write("/proc/uptime", "30.00 1.0\n");
    machine.meanwhile("wait", let_go);
    let outcome = machine.with_appliance(after_boot).unwrap();
    assert_eq!(outcome, Outcome::Ordinary);
    assert!(uptime(&machine) < 40);
}

#[test]
fn a_wait_for_the_lock_is_told_once_and_only_where_there_is_one() {
    use std::sync::Mutex;
    use va_upgrade::appliance::Appliance;
    use va_upgrade::progress::{Note, Recorder, Silent};
    let (_dir, machine) = committed();
    let told = |is_held: bool| {
        let recorder = Recorder::new(&Silent);
        let outcome = Mutex::new(None);
        machine.with_appliance(|appliance| {
            let appliance = Appliance {
                progress: &recorder,
                ..*appliance
            };
            if is_held {
                hold(&machine);
                machine.meanwhile("wait", let_go);
            }
            *outcome.lock().unwrap() = Some(after_boot(&appliance).unwrap());
        });
        assert_eq!(outcome.into_inner().unwrap(), Some(Outcome::Ordinary));
        recorder.into_notes()
    };
    assert_eq!(told(false), []);
    let wait = "another va-upgrade is at work; waiting up to 120 seconds for its end";
    assert_eq!(told(true), [Note::Remark(wait.into())]);
}

#[test]
fn a_healthy_trial_is_confirmed_as_soon_as_the_lock_is_free() {
    let (_dir, machine) = trial_running();
    hold(&machine);
    machine.meanwhile("wait", let_go);
    let outcome = machine.with_appliance(after_boot).unwrap();
    assert_eq!(outcome, Outcome::Confirmed(Slot::Back));
}

#[test]
fn a_healthy_trial_waits_for_the_lock_no_longer_than_its_deadline_takes() {
    let (_dir, machine) = trial_running();
    hold(&machine);
    let error = machine.with_appliance(after_boot).unwrap_err();
    assert_eq!(class_of(&error), Class::Locked);
    assert!(uptime(&machine) - 30 <= deadline(&machine) + 1);
    assert!(state(&machine).unwrap().trial().is_some());
    assert!(machine.reboots().is_empty());
    // Nobody confirmed it, so the watcher restarts it all the same.
    machine.with_appliance(watch).unwrap();
    assert_eq!(machine.reboots(), [Restart::Forced]);
}

#[test]
fn a_lock_that_is_never_free_does_not_put_the_deadline_off() {
    let (_dir, machine) = trial_running();
    hold(&machine);
    machine.meanwhile("reboot", |machine| {
        let late = uptime(machine) - deadline(machine);
        assert!(late <= 25, "{late} seconds after the deadline");
    });
    machine.with_appliance(watch).unwrap();
    assert_eq!(machine.reboots(), [Restart::Forced]);
    // The menu counts the try, so the old slot comes back in the end.
    assert_eq!(state(&machine).unwrap().committed(), Slot::Root);
}

#[test]
fn an_unhealthy_trial_restarts_though_nobody_can_note_why() {
    let (_dir, machine) = trial_running();
    degrade(&machine, "broken.service");
    hold(&machine);
    machine.meanwhile("reboot", |machine| {
        assert!(uptime(machine) - 30 <= LOCK_PATIENCE.as_secs() + 5);
    });
    let outcome = machine.with_appliance(after_boot).unwrap();
    assert!(matches!(outcome, Outcome::Restarting(_)), "{outcome:?}");
    assert_eq!(machine.reboots(), [Restart::Orderly]);
}
