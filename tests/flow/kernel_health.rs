//! What the health of a kernel's trial is compared with, on the fake machine.

use std::fs;

use va_upgrade::slot::Slot;
use va_upgrade::upgrade::trial::{Outcome, after_boot};

use crate::kernel::{
    NEW, OLD, adopt, bring, committed, history, kernels, made, on_trial, restart, start_trial,
};
use crate::machine::Machine;
use crate::trial::{degrade, exhaust};

#[test]
fn an_unhealthy_start_of_a_kernel_restarts_and_says_why_on_the_old_one() {
    let (_dir, machine) = on_trial();
    start_trial(&machine);
    degrade(&machine, "broken.service");
    let outcome = machine.with_appliance(after_boot).unwrap();
    assert!(matches!(outcome, Outcome::Restarting(_)), "{outcome:?}");
    assert_eq!(machine.reboots().len(), 1);
    exhaust(&machine);
    restart(&machine, "exhausted");
    machine.with_appliance(after_boot).unwrap();
    assert_eq!(kernels(&machine), [OLD]);
    assert!(history(&machine).contains("did not come up (health)"));
}

#[test]
fn a_unit_that_had_failed_on_the_old_kernel_is_no_reason_to_leave_the_new_one() {
    let (_dir, machine) = committed();
    degrade(&machine, "old.service");
    bring(&machine, NEW, "package's initramfs");
    adopt(&machine, made(NEW)).unwrap();
    start_trial(&machine);
    let outcome = machine.with_appliance(after_boot).unwrap();
    assert_eq!(outcome, Outcome::KernelKept(Slot::Back, NEW.into()));
}

/// Says that the baseline of the kernel on trial is an hour older than this moment,
/// or newer.
fn date_baseline(machine: &Machine, is_older: bool) {
    let hour = std::time::Duration::from_secs(3600);
    let now = std::time::SystemTime::now();
    let time = if is_older { now - hour } else { now + hour };
    let files = machine.snapshot("/boot/va/back");
    let is_it = |path: &&std::path::PathBuf| {
        path.ends_with("failed-units.yaml") && path.to_string_lossy().contains("/k-")
    };
    let path = files.keys().find(is_it).unwrap();
    let file = fs::File::options().append(true).open(path).unwrap();
    file.set_modified(time).unwrap();
}

#[test]
fn what_a_person_changed_since_a_kernel_came_is_no_reason_to_leave_it() {
    let (_dir, machine) = on_trial();
    date_baseline(&machine, true);
    start_trial(&machine);
    machine.answer("ip", "2: eth0    inet 192.0.2.77/24 scope global eth0\n");
    machine.write("/proc/net/route", "Iface\tDestination\tGateway\n");
    machine.write("/etc/systemd/system/new.service", "[Service]\n");
    machine.answer("type", "FragmentPath=/etc/systemd/system/new.service\n");
    degrade(&machine, "new.service");
    let outcome = machine.with_appliance(after_boot).unwrap();
    assert_eq!(outcome, Outcome::KernelKept(Slot::Back, NEW.into()));
}

#[test]
fn a_kernel_under_which_a_card_has_no_address_or_an_old_unit_fails_is_left() {
    let (_dir, machine) = on_trial();
    start_trial(&machine);
    machine.answer("ip", "");
    let outcome = machine.with_appliance(after_boot).unwrap();
    assert!(matches!(&outcome, Outcome::Restarting(why) if why.contains("any address")));

    // Units that are generated at each start are as old as what they come from.
    const GENERATED: &str = "FragmentPath=/run/systemd/generator/old.service\nSourcePath=/etc/it\n";
    for (shown, is_older) in [
        (
            "FragmentPath=/etc/systemd/system/old.service\nDropInPaths=\n",
            false,
        ),
        (GENERATED, true),
        ("FragmentPath=\n", true),
    ] {
        let (_dir, machine) = on_trial();
        machine.write("/etc/systemd/system/old.service", "[Service]\n");
        machine.write("/run/systemd/generator/old.service", "[Service]\n");
        date_baseline(&machine, is_older);
        start_trial(&machine);
        machine.answer("type", shown);
        degrade(&machine, "old.service");
        let outcome = machine.with_appliance(after_boot).unwrap();
        assert!(matches!(outcome, Outcome::Restarting(_)), "{shown}");
    }
}
