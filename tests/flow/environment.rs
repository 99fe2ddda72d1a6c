//! The migration environment, up to the moment at which it could give up the disk.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use va_upgrade::failure::{Class, class_of};
use va_upgrade::migrate::environment;
use va_upgrade::migrate::in_ram::{self, Last};
use va_upgrade::migrate::order::Mode;
use va_upgrade::migrate::outcome::Outcome;
use va_upgrade::paths::{MEMORY_MOUNT, NO_RETURN_FILE};

use crate::single_root::{SingleRoot, Spoil};

/// A machine whose GRUB has just started the environment.
fn started(mode: Mode) -> (SingleRoot, BTreeMap<PathBuf, Vec<u8>>) {
    let machine = SingleRoot::new();
    let before = machine.snapshot();
    machine.prepare(mode).unwrap();
    machine.start_environment();
    (machine, before)
}

/// Runs it to the restart, which it always comes to.
fn run(machine: &SingleRoot) -> Option<Outcome> {
    machine.write("/proc/sysrq-trigger", "");
    machine.with_appliance(environment::run).unwrap();
    assert!(machine.read("/proc/sysrq-trigger").ends_with('b'));
    assert!(machine.mounts().is_empty(), "{}", machine.log());
    assert!(
        !machine.at("/boot/grub/custom.cfg").exists(),
        "{}",
        machine.log()
    );
    match machine.with_appliance(in_ram::last).unwrap() {
        Some(Last::Told(outcome)) => Some(outcome),
        _ => None,
    }
}

/// Takes away what is ours; the rest is to be as it was.
fn assert_unchanged(machine: &SingleRoot, before: &BTreeMap<PathBuf, Vec<u8>>) {
    machine.write(
        "/proc/self/mountinfo",
        "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n",
    );
    machine.with_appliance(in_ram::cancel).unwrap();
    assert_eq!(machine.snapshot(), *before, "{}", machine.log());
}

#[test]
fn a_rehearsal_does_everything_and_changes_nothing() {
    let (machine, before) = started(Mode::Rehearse);
    let last = || machine.with_appliance(in_ram::last).unwrap();
    assert_eq!(last(), Some(Last::Prepared(Mode::Rehearse)));
    let outcome = run(&machine).unwrap();
    assert_eq!(outcome.failure, None);
    let steps: Vec<&str> = outcome.steps.iter().map(|it| &*it.code).collect();
    assert_eq!(
        steps,
        [
            "M01", "M02", "M03", "M04", "M05", "M06", "M07", "M08", "M11", "M12", "M13", "M14"
        ]
    );
    assert!(outcome.memory.peak_bytes > 0);
    assert!(outcome.to_string().contains("came to its end"));
    assert!(outcome.lines.iter().any(|line| line.contains("acme 9.4.1")));
    // The old file system is written twice, at the beginning and at the end.
    let writes = machine.log().matches("mount rw /dev/sda1").count();
    assert_eq!(writes, 2, "{}", machine.log());
    assert_unchanged(&machine, &before);
}

#[test]
fn an_order_is_never_followed_twice() {
    let (machine, before) = started(Mode::Rehearse);
    let first = run(&machine).unwrap();
    assert_eq!(first.failure, None);
    let calls = machine.log().lines().count();
    // What the first start has said stays.
    assert_eq!(run(&machine).unwrap(), first);
    let log = machine.log();
    let second: Vec<&str> = log.lines().skip(calls).collect();
    assert!(
        !second.iter().any(|call| call.contains("tmpfs")),
        "{second:?}"
    );
    assert_unchanged(&machine, &before);
}

#[test]
fn whatever_fails_the_old_system_starts_again_and_knows_why() {
    let faults: [(Spoil, &str); 11] = [
        (|it| fs::write(it.at("/dev/sda"), [0; 1024]).unwrap(), "M02"),
        (
            |it| it.write("/proc/meminfo", "MemTotal: 1 kB\nMemAvailable: 90000 kB\n"),
            "M03",
        ),
        (|it| it.fail_on("tmpfs"), "M03"),
        (|it| fs::remove_file(it.at("/root/new.vab")).unwrap(), "M04"),
        (
            |it| it.write("/root/new.vab.settings", "of another length"),
            "M04",
        ),
        (
            |it| {
                let path = it.at("/root/new.vab.settings");
                let mut bytes = fs::read(&path).unwrap();
                bytes[0] ^= 1;
                fs::write(&path, bytes).unwrap();
            },
            "M05",
        ),
        (
            |it| fs::remove_file(it.at("/etc/va-upgrade/trusted.d/key.pem")).unwrap(),
            "M06",
        ),
        (|it| it.fail_on("mkfs.ext4 -V"), "M07"),
        (
            |it| it.write("/proc/swaps", "Filename\n/dev/sda2 partition\n"),
            "M08",
        ),
        (|it| it.fail_on("lvm lvcreate"), "M13"),
        (|it| it.fail_on("blockdev --rereadpt"), "M14"),
    ];
    for (spoil, code) in faults {
        let (machine, _) = started(Mode::Migrate);
        spoil(&machine);
        let before = machine.snapshot();
        let outcome = run(&machine).unwrap();
        let failure = outcome.failure.as_ref().unwrap();
        assert_eq!(failure.code, code, "{failure:?}");
        assert!(outcome.to_string().contains(code));
        let ours = ["va-migrate/started", "custom.cfg", ".migration.json"];
        let others = |mut files: BTreeMap<PathBuf, Vec<u8>>| {
            files.retain(|path, _| !ours.iter().any(|end| path.to_string_lossy().ends_with(end)));
            files
        };
        assert_eq!(others(machine.snapshot()), others(before), "{code}");
    }
}

#[test]
fn a_failure_at_any_call_ends_in_a_restart_without_a_start_in_grub() {
    let (machine, _) = started(Mode::Rehearse);
    let calls = machine.log().lines().count();
    run(&machine);
    let all = machine.log().lines().count();
    for call in calls..all {
        let (machine, _) = started(Mode::Rehearse);
        machine.fail_at(call);
        machine.write("/proc/sysrq-trigger", "");
        machine.with_appliance(environment::run).unwrap();
        assert!(
            machine.read("/proc/sysrq-trigger").ends_with('b'),
            "call {call}"
        );
    }
}

#[test]
fn what_hangs_is_ended_by_a_restart() {
    let (machine, _) = started(Mode::Rehearse);
    machine.hang();
    machine.with_appliance(environment::run).unwrap();
    assert!(machine.read("/proc/sysrq-trigger").contains('b'));
}

#[test]
fn without_an_order_the_machine_only_restarts() {
    let machine = SingleRoot::new();
    let before = machine.snapshot();
    machine.with_appliance(environment::run).unwrap();
    assert!(machine.read("/proc/sysrq-trigger").ends_with('b'));
    assert_eq!(machine.snapshot(), before);
}

#[test]
fn a_table_that_the_kernel_does_not_take_is_put_back_and_the_old_system_knows() {
    let (machine, _) = started(Mode::Migrate);
    let before = machine.snapshot();
    // The first look of the kernel is at the old table.
    machine.fail_on_later("blockdev --rereadpt", 1);
    let outcome = run(&machine).unwrap();
    let failure = outcome.failure.unwrap();
    assert_eq!(failure.code, "M21", "{failure:?}");
    let disk = machine.at("/dev/sda");
    assert_eq!(machine.snapshot()[&disk], before[&disk]);
    assert!(!machine.at(NO_RETURN_FILE).exists());
}

#[test]
fn a_disk_that_holds_no_system_is_not_started_and_what_is_in_memory_stays() {
    let (machine, _) = started(Mode::Migrate);
    for name in ["hung_task_panic", "softlockup_panic", "panic"] {
        machine.write(&format!("/proc/sys/kernel/{name}"), "10");
    }
    for part in ["sda1", "sda2", "sda3"] {
        let file = fs::File::create(machine.at(&format!("/dev/{part}"))).unwrap();
        file.set_len(9 << 30).unwrap();
    }
    // The twin needs one of each, too.
    machine.fail_on_later("lvm pvcreate", 1);
    machine.write("/proc/sysrq-trigger", "");
    let error = machine.with_appliance(environment::run).unwrap_err();
    assert_eq!(class_of(&error), Class::Stuck, "{error:#}");
    assert!(error.to_string().contains("M23"), "{error:#}");
    assert_eq!(machine.read("/proc/sysrq-trigger"), "");
    assert!(machine.at(NO_RETURN_FILE).exists());
    assert_eq!(machine.read("/proc/sys/kernel/panic"), "0");
    for name in ["bundle.vab", "settings"] {
        let path = machine.at(MEMORY_MOUNT).join(name);
        assert!(path.exists(), "{name}");
    }
}
