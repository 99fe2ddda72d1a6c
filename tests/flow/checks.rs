//! The checks before an upgrade, on machines with one thing wrong.

use std::fs::{self, File};

use nix::fcntl::{FcntlArg, fcntl};
use va_upgrade::appliance::machine::Machine as Found;
use va_upgrade::failure::{Class, class_of};
use va_upgrade::report::{Report, Verdict};
use va_upgrade::upgrade::preflight;

use crate::apply::run;
use crate::machine::{Machine, scratch};
use crate::release::make_bundle;

fn check(machine: &Machine) -> Report {
    machine.with_appliance(|appliance| {
        let found = Found::look(appliance).unwrap();
        preflight::check(appliance, &found, None).0
    })
}

/// Returns how the check `name` ended, and what it said.
fn verdict(machine: &Machine, name: &str) -> (Verdict, String) {
    let report = check(machine);
    let check = report.checks.into_iter().find(|check| check.name == name);
    let check = check.unwrap_or_else(|| panic!("no check {name}"));
    (check.verdict, check.message())
}

fn set(machine: &Machine, settings: &str) {
    let text = format!("product: acme\n{settings}\n");
    machine.write("/etc/va-upgrade/config.yaml", &text);
}

#[test]
fn a_machine_without_memory_is_refused_unless_its_settings_say_otherwise() {
    let machine = Machine::fresh();
    assert_eq!(verdict(&machine, "memory").0, Verdict::Ok);
    machine.write("/proc/meminfo", "MemAvailable: 100000 kB\n");
    let (found, message) = verdict(&machine, "memory");
    assert_eq!(found, Verdict::Refuse);
    assert!(message.contains("97 MiB of memory are free"), "{message}");
    for (policy, wanted) in [("warn", Verdict::Warn), ("observe", Verdict::Ok)] {
        set(&machine, &format!("checks: {{memory: {policy}}}"));
        assert_eq!(verdict(&machine, "memory").0, wanted);
        assert!(check(&machine).ok);
    }
}

#[test]
fn a_check_that_nothing_can_go_on_without_keeps_its_strictness() {
    let machine = Machine::fresh();
    for name in ["volumes", "boot disk", "nonsense"] {
        set(&machine, &format!("checks: {{{name}: warn}}"));
        let (found, message) = verdict(&machine, "configuration");
        assert_eq!(found, Verdict::Refuse);
        assert!(message.contains(&format!("names {name:?}")), "{message}");
    }
}

#[test]
fn a_group_that_belongs_to_one_machine_or_is_there_twice_is_refused() {
    for (groups, words) in [
        ("  VA|uuid-1|host-7\n", "the machine \"host-7\" alone"),
        (
            "  VA|uuid-1|\n  VA|uuid-2|\n  X|uuid-3|\n",
            "2 volume groups called VA",
        ),
        ("  X|uuid-3|\n", "no volume group VA"),
    ] {
        let machine = Machine::fresh();
        machine.answer("vgs", groups);
        let (found, message) = verdict(&machine, "volumes");
        assert_eq!(found, Verdict::Refuse);
        assert!(message.contains(words), "{message}");
    }
}

#[test]
fn features_that_grub_does_not_read_are_named_before_anything_is_written() {
    let machine = Machine::fresh();
    for (incompat, wanted) in [
        (0x0042_u32, Verdict::Ok),
        (0x2042, Verdict::Warn),
        (0x4042, Verdict::Refuse),
    ] {
        let mut start = vec![0; 4096];
        start[1080..1082].copy_from_slice(&[0x53, 0xef]);
        start[1120..1124].copy_from_slice(&incompat.to_le_bytes());
        fs::write(machine.at("/dev/vda2"), start).unwrap();
        assert_eq!(
            verdict(&machine, "boot features").0,
            wanted,
            "{incompat:#x}"
        );
    }
}

#[test]
fn a_clock_before_the_bundle_was_made_is_a_warning_and_no_bad_signature() {
    let dir = scratch();
    let machine = Machine::fresh();
    set(&machine, "checks: {clock: enforce}");
    let bundle = make_bundle(dir.path(), "9.4.1");
    run(&machine, &bundle).unwrap();
    let late = crate::release::make_bundle_of(dir.path(), "9.4.2", (1 << 33) - 1);
    let error = run(&machine, &late).err().unwrap();
    assert_eq!(class_of(&error), Class::Refused);
    assert!(
        format!("{error:#}").contains("clock is at least"),
        "{error:#}"
    );
}

#[test]
fn a_running_package_transaction_is_waited_for_by_a_person() {
    let machine = Machine::fresh();
    machine.write("/var/lib/dpkg/lock-frontend", "");
    assert_eq!(verdict(&machine, "packages").0, Verdict::Ok);
    let file = File::options()
        .write(true)
        .open(machine.at("/var/lib/dpkg/lock-frontend"));
    let lock = nix::libc::flock {
        l_type: i16::try_from(nix::libc::F_WRLCK).unwrap(),
        l_whence: 0,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    // Locks of one process do not show to itself, but for those of an open file.
    let file = file.unwrap();
    fcntl(&file, FcntlArg::F_OFD_SETLK(&lock)).unwrap();
    let (found, message) = verdict(&machine, "packages");
    assert_eq!(found, Verdict::Refuse);
    assert!(
        message.starts_with("another program is installing"),
        "{message}"
    );
    drop(file);
    assert_eq!(verdict(&machine, "packages").0, Verdict::Ok);
}
