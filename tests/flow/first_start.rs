//! The first start of a system on a disk that was made anew.

use std::fs;

use va_upgrade::appliance::first_start::FirstStart;
use va_upgrade::disk::log_area::LogArea;
use va_upgrade::upgrade::first_start::{self, Verdict};

use crate::apply::state;
use crate::machine::Machine;

const BANNERS: [&str; 2] = ["/run/issue.d/va-upgrade.issue", "/run/motd.d/va-upgrade"];

fn migrated() -> Machine {
    let machine = Machine::fresh();
    fs::create_dir_all(machine.at("/usr/lib/va-upgrade")).unwrap();
    let first = FirstStart::new("7.9.0", "9.4.1", 42);
    first.leave(&machine.at("/")).unwrap();
    let mut log = LogArea::open(&machine.at("/dev/vda"), 42).unwrap();
    log.add(1_700_000_000, "M10 table: done").unwrap();
    machine.write("/dev/console", "");
    machine
}

fn run(machine: &Machine) -> Option<Verdict> {
    machine.with_appliance(first_start::run).unwrap()
}

#[test]
fn a_healthy_one_is_looked_at_once_and_the_log_is_on_the_data_volume() {
    let machine = migrated();
    machine.write(BANNERS[0], "of an earlier start");
    assert_eq!(run(&machine), Some(Verdict::Healthy("9.4.1".into())));
    assert_eq!(run(&machine), None);
    let log = machine.read("/data/va-upgrade/migrations/42.log");
    assert_eq!(log, "1700000000 M10 table: done\n");
    assert!(!machine.at(BANNERS[0]).exists());
    let history = machine.read("/data/va-upgrade/history.jsonl");
    assert!(
        history.contains("moved from 7.9.0 to two slots"),
        "{history}"
    );
}

#[test]
fn an_unhealthy_one_is_told_of_everywhere_and_is_neither_restarted_nor_given_up() {
    let machine = migrated();
    machine.write("/etc/va-upgrade/health.d/app", "");
    let check = machine.at("/etc/va-upgrade/health.d/app");
    let executable = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o755);
    fs::set_permissions(check, executable).unwrap();
    machine.answer("health", "unwell");
    for _ in 0..2 {
        let Some(Verdict::Unhealthy(why)) = run(&machine) else {
            panic!("it is taken for healthy");
        };
        assert!(why.contains("unwell"), "{why}");
    }
    for path in BANNERS.iter().chain(&["/dev/console"]) {
        let text = machine.read(path);
        assert!(text.contains("moved from 7.9.0 to 9.4.1"), "{text}");
        assert!(text.contains("unwell"), "{text}");
    }
    assert!(machine.reboots().is_empty());
    assert_eq!(state(&machine), None);
    machine.forget_answer("health");
    assert_eq!(run(&machine), Some(Verdict::Healthy("9.4.1".into())));
    assert!(BANNERS.iter().all(|path| !machine.at(path).exists()));
}

#[test]
fn one_that_has_nothing_of_the_customers_says_so_until_a_person_acts() {
    let machine = migrated();
    let mut first = FirstStart::new("7.9.0", "9.4.1", 42);
    first.lacks = Some("rule sshd refused".into());
    first.leave(&machine.at("/")).unwrap();
    let Some(Verdict::Unhealthy(why)) = run(&machine) else {
        panic!("it is taken for healthy");
    };
    assert!(why.contains("rule sshd refused"), "{why}");
    assert!(why.contains("42.settings.tar"), "{why}");
    fs::remove_file(machine.at("/usr/lib/va-upgrade/first-start.yaml")).unwrap();
    assert_eq!(run(&machine), None);
}

#[test]
fn any_other_system_is_left_alone() {
    let machine = Machine::fresh();
    assert_eq!(run(&machine), None);
    assert_eq!(machine.log(), "");
}
