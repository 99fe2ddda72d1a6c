//! What `report` says, and what a trial leaves on the data volume, on the fake machine.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use std::time::{Duration, UNIX_EPOCH};

use anyhow::Result;
use va_upgrade::appliance::machine::Machine as Facts;
use va_upgrade::failure::{Class, class_of};
use va_upgrade::slot::Slot;
use va_upgrade::upgrade::changes::{self, Changes};
use va_upgrade::upgrade::deadline::watch;
use va_upgrade::upgrade::trial::{Outcome, after_boot};

use crate::apply::run;
use crate::machine::{Fault, Machine, scratch};
use crate::release::make_bundle;
use crate::trial::{degrade, exhaust, shown};

fn report(machine: &Machine) -> Result<Changes> {
    machine.with_appliance(|appliance| changes::of_running(appliance, &Facts::look(appliance)?))
}

fn messages(machine: &Machine) -> Vec<String> {
    let changes = report(machine).unwrap().changes;
    changes.iter().map(ToString::to_string).collect()
}

fn listen(machine: &Machine, ports: &[&str]) {
    let lines = ports
        .iter()
        .map(|port| format!("0: {port} 00000000:0000 0A 0\n"));
    machine.write("/proc/net/tcp", &lines.collect::<String>());
}

/// A trial that runs after a system with two ports, a mount and a failed unit.
fn upgraded() -> (tempfile::TempDir, Machine) {
    let dir = scratch();
    let machine = Machine::fresh();
    machine.write("/proc/sys/kernel/hostname", "gate\n");
    listen(&machine, &["00000000:0016", "0100007F:0019"]);
    mount(&machine, "4 1 8:1 / /srv rw - xfs /dev/sda1 rw\n");
    degrade(&machine, "old.service");
    run(&machine, &make_bundle(dir.path(), "9.4.1")).unwrap();
    machine.boot("back", "trial");
    mount(&machine, "4 1 8:1 / /srv rw - xfs /dev/sda1 rw\n");
    (dir, machine)
}

fn mount(machine: &Machine, line: &str) {
    let table = machine.read("/proc/self/mountinfo");
    machine.write("/proc/self/mountinfo", &(table + line));
}

/// The directory of the only trial.
fn kept(machine: &Machine) -> String {
    let trials = fs::read_dir(machine.at("/data/va-upgrade/trials")).unwrap();
    let names: Vec<_> = trials.map(|it| it.unwrap().file_name()).collect();
    assert_eq!(names.len(), 1, "{names:?}");
    format!("/data/va-upgrade/trials/{}", names[0].to_string_lossy())
}

#[test]
fn a_system_that_is_as_before_has_only_what_was_broken_before() {
    let (_dir, machine) = upgraded();
    let changes = report(&machine).unwrap();
    assert_eq!((changes.from.as_deref(), &*changes.to), (Some("11"), "11"));
    assert_eq!(
        messages(&machine),
        ["note  unit: old.service has failed, as it had before"]
    );
}

#[test]
fn what_is_gone_is_a_warning_and_what_is_new_a_note() {
    let (_dir, machine) = upgraded();
    machine.write("/proc/sys/kernel/hostname", "localhost\n");
    listen(&machine, &["00000000:0016", "00000000:01BB"]);
    machine.boot("back", "trial");
    mount(&machine, "4 1 8:2 / /opt/new ro - ext4 /dev/sda2 ro\n");
    degrade(&machine, "new.service");
    assert_eq!(
        messages(&machine),
        [
            "warn  unit: new.service has failed",
            "warn  host name: it is \"localhost\", it was \"gate\"",
            "warn  listener: nobody listens on tcp 25 of this machine any more",
            "warn  mount: /srv (xfs) is not mounted any more",
            "note  unit: old.service had failed, and has not now",
            "note  listener: somebody listens on tcp 443 now",
            "note  mount: /opt/new (ext4) is mounted now",
        ]
    );
    machine.boot("back", "trial");
    mount(&machine, "4 1 8:1 / /srv ro - xfs /dev/sda1 ro\n");
    assert!(messages(&machine).contains(&"warn  mount: /srv cannot be written any more".into()));
}

#[test]
fn what_is_activated_later_is_compared_with_the_system_as_it_was_then() {
    let dir = scratch();
    let machine = Machine::fresh();
    listen(&machine, &["00000000:0016"]);
    crate::stage::write_only(&machine, &make_bundle(dir.path(), "9.4.1")).unwrap();
    // A week later.
    listen(&machine, &["00000000:01BB"]);
    machine.set_clock([UNIX_EPOCH + Duration::from_secs(1_796_000_000)]);
    crate::stage::activate(&machine).unwrap();
    machine.boot("back", "trial");
    let changes = report(&machine).unwrap();
    assert_eq!(changes.before, 1_796_000_000);
    assert_eq!(messages(&machine), [""; 0]);
}

#[test]
fn a_listener_or_mount_that_is_gone_ends_no_trial_and_is_in_the_report_of_it() {
    let (_dir, machine) = upgraded();
    listen(&machine, &[]);
    machine.boot("back", "trial");
    let outcome = machine.with_appliance(after_boot).unwrap();
    assert_eq!(outcome, Outcome::Confirmed(Slot::Back));
    let text = machine.read(&format!("{}/report.txt", kept(&machine)));
    assert!(text.starts_with("healthy\nfrom 11 to "), "{text}");
    assert!(
        text.contains("\nwarn  listener: nobody listens on tcp 22 any more\n"),
        "{text}"
    );
    assert!(
        text.contains("\nwarn  mount: /srv (xfs) is not mounted"),
        "{text}"
    );
    assert!(!machine.log().contains("journalctl"));
    // It can be looked at later, too.
    assert!(!messages(&machine).is_empty());
}

#[test]
fn a_failed_trial_leaves_its_report_and_journal_and_the_old_system_says_where() {
    let (_dir, machine) = upgraded();
    degrade(&machine, "broken.service");
    machine.answer("journal", "broken.service: no such \u{1b}[31mfile\n");
    let outcome = machine.with_appliance(after_boot).unwrap();
    assert!(matches!(outcome, Outcome::Restarting(_)), "{outcome:?}");
    let dir = kept(&machine);
    let text = machine.read(&format!("{dir}/report.txt"));
    assert!(
        text.starts_with("given up: the system is degraded"),
        "{text}"
    );
    assert!(
        text.contains("\nwarn  unit: broken.service has failed\n"),
        "{text}"
    );
    assert!(
        machine
            .read(&format!("{dir}/journal.txt"))
            .contains("no such")
    );
    let mode = |path: &str| machine.at(path).metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(
        (mode(&dir), mode(&format!("{dir}/journal.txt"))),
        (0o700, 0o600)
    );

    exhaust(&machine);
    machine.boot("root", "exhausted");
    assert_eq!(shown(&machine)["failed"]["kept"], *dir);
    let error = report(&machine).unwrap_err();
    assert_eq!(class_of(&error), Class::Refused, "{error:#}");
}

#[test]
fn a_trial_that_ends_at_the_deadline_leaves_its_journal() {
    let (_dir, machine) = upgraded();
    machine.write("/proc/uptime", "30.00 1.0\n");
    machine.with_appliance(watch).unwrap();
    let dir = kept(&machine);
    assert!(
        machine
            .read(&format!("{dir}/report.txt"))
            .starts_with("given up: nothing confirmed")
    );
    assert!(
        machine
            .read(&format!("{dir}/journal.txt"))
            .contains("hello")
    );
}

#[test]
fn records_of_an_earlier_version_are_compared_as_far_as_they_go() {
    let (_dir, machine) = upgraded();
    fs::remove_file(machine.at("/boot/va/back/before.yaml")).unwrap();
    let changes = report(&machine).unwrap();
    assert_eq!((changes.before, changes.from), (0, None));
    assert_eq!(changes.changes.len(), 1);
    machine.write("/boot/va/back/before.yaml", "time: 7\nnot_yet_known: 1\n");
    assert_eq!(report(&machine).unwrap().before, 7);
    let outcome = machine.with_appliance(after_boot).unwrap();
    assert_eq!(outcome, Outcome::Confirmed(Slot::Back));
}

#[test]
fn a_record_that_is_rubbish_or_a_data_volume_that_is_gone_ends_no_trial() {
    for without_data in [true, false] {
        let (_dir, machine) = upgraded();
        if without_data {
            let table = machine.read("/proc/self/mountinfo");
            machine.write(
                "/proc/self/mountinfo",
                &table.replace("VA-data", "VA-other"),
            );
        } else {
            machine.write("/boot/va/back/before.yaml", "[rubbish");
        }
        let outcome = machine.with_appliance(after_boot).unwrap();
        assert_eq!(outcome, Outcome::Confirmed(Slot::Back));
        assert!(!machine.at("/data/va-upgrade/trials").exists());
    }
}

#[test]
fn whichever_step_of_a_failed_trial_goes_wrong_it_restarts() {
    for step in 0.. {
        let (_dir, machine) = upgraded();
        degrade(&machine, "broken.service");
        machine.fail_at(step, Fault::Fails);
        let _ = machine.with_appliance(after_boot);
        let failed = machine.failed_call();
        if failed.as_deref() != Some("reboot") {
            assert_eq!(machine.reboots().len(), 1, "{failed:?}");
        }
        if failed.is_none() {
            break;
        }
    }
}

/// A trial after a system with an account, a certificate and a clock that is right.
fn with_assets(policies: &str) -> (tempfile::TempDir, Machine) {
    let dir = scratch();
    let machine = Machine::fresh();
    machine.write(
        "/etc/va-upgrade/config.yaml",
        &format!("product: acme\n{policies}"),
    );
    machine.write(
        "/etc/passwd",
        "root:x:0:0::/:/bin/sh\nadmin:x:1000:1000::/:/bin/sh\n",
    );
    machine.write("/etc/shadow", "root:*:::::::\nadmin:$6$x$y:::::::\n");
    machine.write("/etc/group", "root:x:0:\n");
    machine.write("/etc/nginx/site.conf", "ssl_certificate /etc/own.pem;\n");
    machine.write("/etc/own.pem", include_str!("../data/certificate.pem"));
    run(&machine, &make_bundle(dir.path(), "9.4.1")).unwrap();
    machine.boot("back", "trial");
    (dir, machine)
}

#[test]
fn certificates_accounts_and_the_clock_are_compared() {
    let (_dir, machine) = with_assets("");
    assert_eq!(messages(&machine), [""; 0]);
    machine.write("/etc/shadow", "root:*:::::::\nadmin:!:::::::\n");
    machine.write("/etc/own.pem", "");
    machine.answer("clock", "b false\n");
    assert_eq!(
        messages(&machine),
        [
            "warn  time: the clock is not synchronized any more",
            "warn  account: admin has no password any more",
            "warn  certificate: /etc/own.pem holds none any more",
        ]
    );
    let outcome = machine.with_appliance(after_boot).unwrap();
    assert_eq!(outcome, Outcome::Confirmed(Slot::Back));
}

#[test]
fn what_the_configuration_enforces_ends_a_trial_and_what_it_observes_is_a_note() {
    let policies = "report: {certificate: enforce, time: observe}\n";
    let (_dir, machine) = with_assets(policies);
    machine.answer("clock", "b false\n");
    assert_eq!(
        messages(&machine),
        ["note  time: the clock is not synchronized any more"]
    );
    machine.write("/etc/own.pem", "");
    let Outcome::Restarting(why) = machine.with_appliance(after_boot).unwrap() else {
        panic!("it goes on");
    };
    assert_eq!(why, "certificate: /etc/own.pem holds none any more");
    // What is only late is no fault.
    let (_dir, machine) = with_assets(policies);
    machine.write("/etc/own.pem", "");
    machine.meanwhile("wait", |machine| {
        machine.write("/etc/own.pem", include_str!("../data/certificate.pem"));
    });
    let outcome = machine.with_appliance(after_boot).unwrap();
    assert_eq!(outcome, Outcome::Confirmed(Slot::Back));
}
