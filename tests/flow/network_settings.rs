//! Routes, packet sizes and name servers at a trial, on the fake machine.

use va_upgrade::slot::Slot;
use va_upgrade::upgrade::trial::{Outcome, after_boot};

use crate::apply::run;
use crate::machine::{Machine, scratch};
use crate::release::make_bundle;

/// A trial of a system with a route, large packets and a name server.
fn trial(settings: &str) -> (tempfile::TempDir, Machine) {
    let dir = scratch();
    let machine = Machine::fresh();
    machine.write(
        "/etc/va-upgrade/config.yaml",
        &format!("product: acme\n{settings}"),
    );
    machine.write("/sys/class/net/eth0/mtu", "9000\n");
    machine.write("/sys/class/net/eth0/flags", "0x1003\n");
    machine.write("/etc/resolv.conf", "nameserver 10.0.2.3\n");
    machine.answer("routes", ROUTES);
    run(&machine, &make_bundle(dir.path(), "9.4.1")).unwrap();
    machine.boot("back", "trial");
    (dir, machine)
}

const ROUTES: &str = "10.1.0.0/16 via 10.0.2.2 dev eth0 proto static metric 100\n\
                      10.0.2.0/24 dev eth0 proto kernel scope link src 10.0.2.15\n";

/// Loses one of them, by its subject.
fn lose(machine: &Machine, subject: &str) {
    match subject {
        "route" => machine.answer("routes", ""),
        "mtu" => machine.write("/sys/class/net/eth0/mtu", "1500\n"),
        _ => machine.write("/etc/resolv.conf", "# nobody\n"),
    }
}

#[test]
fn what_was_configured_and_is_not_in_force_ends_a_trial_unless_it_may() {
    for (subject, words) in [
        ("route", "route 10.1.0.0/16 via 10.0.2.2"),
        ("mtu", "52:54:00:00:00:01 (eth0) is 1500, it was 9000"),
        ("name server", "any name server, such as 10.0.2.3"),
    ] {
        let (_dir, machine) = trial("");
        lose(&machine, subject);
        match machine.with_appliance(after_boot).unwrap() {
            Outcome::Restarting(why) => assert!(why.contains(words), "{why}"),
            other => panic!("{subject}: {other:?}"),
        }
        let (_dir, machine) = trial(&format!("report: {{{subject}: warn}}\n"));
        lose(&machine, subject);
        let outcome = machine.with_appliance(after_boot).unwrap();
        assert_eq!(outcome, Outcome::Confirmed(Slot::Back), "{subject}");
    }
    let (_dir, machine) = trial("");
    let outcome = machine.with_appliance(after_boot).unwrap();
    assert_eq!(outcome, Outcome::Confirmed(Slot::Back));
}
