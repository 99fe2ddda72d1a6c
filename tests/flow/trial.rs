//! What the boot service does on the fake machine.

use std::fs;

use va_upgrade::appliance::machine::Machine as Facts;
use va_upgrade::appliance::release::ReleaseRecord;
use va_upgrade::boot::menu::TRIAL_ARGS;
use va_upgrade::boot::state::{Phase, Reason, State};
use va_upgrade::report::Verdict;
use va_upgrade::slot::Slot;
use va_upgrade::system::Restart;
use va_upgrade::upgrade::preflight;
use va_upgrade::upgrade::status::status;
use va_upgrade::upgrade::trial::{Outcome, after_boot};

use crate::apply::{armed, run, state};
use crate::boots;
use crate::machine::{Fault, Machine, scratch};
use crate::release::make_bundle;

pub fn trial_running() -> (tempfile::TempDir, Machine) {
    let dir = scratch();
    let machine = armed(dir.path());
    machine.boot("back", "trial");
    (dir, machine)
}

/// Writes into both copies what GRUB writes when the tries are used up.
pub fn exhaust(machine: &Machine) {
    for copy in ["env1", "env2"] {
        let path = format!("/boot/va/{copy}");
        let mut text = machine.read(&path);
        for (from, to) in [
            ("va_trial=back\n", "va_trial=\n"),
            ("va_left=3\n", "va_left=0\n"),
            ("va_failed=\n", "va_failed=back\n"),
            ("va_why=\n", "va_why=exhausted\n"),
        ] {
            text = text.replace(from, to);
        }
        text.truncate(1024);
        let text = format!("{text:#<1024}");
        machine.write(&path, &text);
    }
}

/// Lets `unit` have failed.
pub fn degrade(machine: &Machine, unit: &str) {
    machine.answer("running", "degraded\n");
    machine.answer("units", &format!("{unit} loaded failed failed A unit\n"));
}

pub fn shown(machine: &Machine) -> serde_json::Value {
    machine.with_appliance(|appliance| {
        let facts = Facts::look(appliance).unwrap();
        serde_json::to_value(status(appliance, &facts).unwrap()).unwrap()
    })
}

#[test]
fn a_healthy_trial_is_confirmed() {
    let (_dir, machine) = trial_running();
    let outcome = machine.with_appliance(after_boot).unwrap();
    assert_eq!(outcome, Outcome::Confirmed(Slot::Back));
    let state = state(&machine).unwrap();
    assert_eq!(
        (state.committed(), state.phase(Slot::Root)),
        (Slot::Back, Phase::Good)
    );
    assert!(machine.reboots().is_empty());
    assert!(
        machine
            .read("/data/va-upgrade/history.jsonl")
            .contains("\"operation\":\"confirm\"")
    );
}

/// Gives the kernel these command line words before and after the menu's own,
/// and each setting its value; returns their values once the trial is confirmed.
fn settings_after_confirm(own: &str, trial: &str, values: [&str; 3]) -> [String; 3] {
    let (_dir, machine) = trial_running();
    let line = format!("root=x {own} va.slot=back va.why=trial va.left=2 {trial}\n");
    machine.write("/proc/cmdline", &line);
    let paths = ["panic", "softlockup_panic", "hung_task_panic"]
        .map(|name| format!("/proc/sys/kernel/{name}"));
    for (path, value) in paths.iter().zip(values) {
        machine.write(path, &format!("{value}\n"));
    }
    assert!(machine.confirm().unwrap());
    paths.map(|path| machine.read(&path).trim().to_owned())
}

#[test]
fn a_confirmed_system_has_the_kernel_settings_of_one_that_was_never_on_trial() {
    let trial = TRIAL_ARGS;
    let confirmed = settings_after_confirm;
    assert_eq!(confirmed("ro", trial, ["10", "1", "1"]), ["0", "0", "0"]);
    // Words of the entry's own, the last of which counts.
    let own = "panic=5 panic=30 softlockup_panic=1";
    assert_eq!(confirmed(own, trial, ["10", "1", "1"]), ["30", "1", "0"]);
    // Somebody has set another value since.
    assert_eq!(confirmed("ro", trial, ["60", "0", "1"]), ["60", "0", "0"]);
    // An older menu gave no such word.
    assert_eq!(
        confirmed("ro", "panic=10", ["10", "1", "1"]),
        ["0", "1", "1"]
    );
}

#[test]
fn a_kernel_setting_that_the_system_wants_stays_when_it_is_confirmed() {
    let (_dir, machine) = trial_running();
    let line = format!("root=x va.slot=back va.why=trial va.left=2 {TRIAL_ARGS}\n");
    machine.write("/proc/cmdline", &line);
    machine.write("/etc/sysctl.d/90-panic.conf", "kernel.panic = 10\n");
    machine.write("/etc/sysctl.d/off", "kernel.softlockup_panic = 1\n");
    machine.write("/proc/sys/kernel/panic", "10\n");
    machine.write("/proc/sys/kernel/softlockup_panic", "1\n");
    assert!(machine.confirm().unwrap());
    assert_eq!(machine.read("/proc/sys/kernel/panic"), "10\n");
    assert_eq!(machine.read("/proc/sys/kernel/softlockup_panic"), "0");
}

#[test]
fn a_kernel_without_such_settings_can_be_confirmed() {
    let (_dir, machine) = trial_running();
    let line = format!("root=x va.slot=back va.why=trial va.left=2 {TRIAL_ARGS}\n");
    machine.write("/proc/cmdline", &line);
    std::fs::create_dir_all(machine.at("/proc/sys/kernel/panic")).unwrap();
    assert!(machine.confirm().unwrap());
}

#[test]
fn an_unhealthy_trial_notes_why_and_restarts() {
    type Setup = fn(&Machine);
    let cases: [(&str, Setup); 4] = [
        ("units: broken.service", |m| degrade(m, "broken.service")),
        ("address 10.0.2.15/24", |m| m.answer("ip", "")),
        ("network card", |m| {
            std::fs::remove_file(m.at("/sys/class/net/eth0/device/x"))
                .and_then(|()| std::fs::remove_dir(m.at("/sys/class/net/eth0/device")))
                .unwrap()
        }),
        ("health check 10-app", |m| {
            use std::os::unix::fs::PermissionsExt;
            m.write("/etc/va-upgrade/health.d/10-app", "");
            let path = m.at("/etc/va-upgrade/health.d/10-app");
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
            m.answer("health", "fails");
        }),
    ];
    for (words, setup) in cases {
        let (_dir, machine) = trial_running();
        setup(&machine);
        let outcome = machine.with_appliance(after_boot).unwrap();
        let Outcome::Restarting(why) = outcome else {
            panic!("{words}: {outcome:?}")
        };
        assert!(why.contains(words), "{words}: {why}");
        assert_eq!(machine.reboots(), [Restart::Orderly]);
        exhaust(&machine);
        machine.boot("root", "exhausted");
        let status = shown(&machine);
        assert_eq!(status["failed"]["reason"], "health");
        assert_eq!(status["failed"]["version"], "9.4.1");
        assert_eq!(status["next"], "root");
    }
}

#[test]
fn a_trial_whose_boot_state_is_gone_is_kept_only_when_it_is_healthy() {
    for is_healthy in [true, false] {
        let (_dir, machine) = trial_running();
        for copy in ["env1", "env2"] {
            std::fs::remove_file(machine.at(&format!("/boot/va/{copy}"))).unwrap();
        }
        if !is_healthy {
            degrade(&machine, "broken.service");
        }
        let outcome = machine.with_appliance(after_boot).unwrap();
        let restarts = machine.reboots().len();
        if is_healthy {
            assert_eq!((outcome, restarts), (Outcome::Confirmed(Slot::Back), 0));
            assert_eq!(state(&machine).unwrap().committed(), Slot::Back);
        } else {
            assert!(matches!(outcome, Outcome::Restarting(_)), "{outcome:?}");
            assert_eq!(restarts, 1);
        }
    }
}

#[test]
fn whichever_program_goes_wrong_a_trial_is_kept_or_left_and_never_neither() {
    for fault in Fault::ALL {
        for step in 0.. {
            let (_dir, machine) = trial_running();
            machine.fail_at(step, fault);
            let outcome = machine.with_appliance(after_boot);
            let failed = machine.failed_call();
            let state = state(&machine).unwrap();
            let is_kept = matches!(outcome, Ok(Outcome::Confirmed(Slot::Back)));
            let committed = if is_kept { Slot::Back } else { Slot::Root };
            assert_eq!(state.committed(), committed, "{failed:?}: {outcome:?}");
            assert_eq!(boots::fault(&machine), None, "{failed:?}");
            if failed.is_none() {
                assert!(is_kept);
                break;
            }
        }
    }
}

#[test]
fn what_had_failed_before_or_another_machine_lacks_is_no_reason_to_go_back() {
    let dir = scratch();
    let machine = Machine::fresh();
    degrade(&machine, "\u{25cf} old.service");
    run(&machine, &make_bundle(dir.path(), "9.4.1")).unwrap();
    machine.boot("back", "trial");
    let outcome = machine.with_appliance(after_boot).unwrap();
    assert_eq!(outcome, Outcome::Confirmed(Slot::Back));

    for (kind, is_kept) in [
        ("Type=nfs4\nWhere=/srv/share\n", true),
        ("Type=fuse\nWhere=/srv/bucket\n", true),
        ("Type=fuse\nWhere=/srv/other\n", false),
        ("Type=ext4\nWhere=/srv/share\n", false),
    ] {
        let (_dir, machine) = trial_running();
        degrade(&machine, "srv-share.mount");
        machine.answer("type", kind);
        machine.write("/etc/fstab", "s3 /srv/bucket fuse _netdev 0 0\n");
        let outcome = machine.with_appliance(after_boot).unwrap();
        assert_eq!(outcome == Outcome::Confirmed(Slot::Back), is_kept, "{kind}");
    }
}

#[test]
fn an_undone_apply_leaves_what_is_known_of_the_last_trial() {
    let (dir, machine) = trial_running();
    exhaust(&machine);
    machine.boot("root", "exhausted");
    machine.with_appliance(after_boot).unwrap();
    let bundle = crate::release::make_bundle(dir.path(), "9.4.2");
    machine.fail_on("grub-script-check");
    assert!(crate::apply::run(&machine, &bundle).is_err());
    let status = shown(&machine);
    assert_eq!(
        status["failed"],
        serde_json::json!({"slot": "back", "version": null, "reason": "exhausted"})
    );
    assert_eq!(status["slots"][1]["state"], "empty");
}

#[test]
fn a_failed_trial_is_told_on_the_old_slot() {
    let (_dir, machine) = trial_running();
    exhaust(&machine);
    machine.boot("root", "exhausted");
    let outcome = machine.with_appliance(after_boot).unwrap();
    assert_eq!(outcome, Outcome::TrialFailed(Slot::Back, Reason::Exhausted));
    let status = shown(&machine);
    assert_eq!(
        status["failed"],
        serde_json::json!({"slot": "back", "version": "9.4.1", "reason": "exhausted"})
    );
    assert_eq!(status["slots"][1]["state"], "failed");
    assert_eq!(status["slots"][1]["bootable"], false);
}

#[test]
fn a_count_that_could_not_be_stored_ends_the_trial() {
    let (_dir, machine) = trial_running();
    machine.boot("root", "nowrite");
    assert_eq!(shown(&machine)["failed"]["reason"], "nowrite");
    let outcome = machine.with_appliance(after_boot).unwrap();
    assert_eq!(outcome, Outcome::TrialFailed(Slot::Back, Reason::Nowrite));
    assert_eq!(state(&machine).unwrap().trial(), None);
}

#[test]
fn a_lost_boot_state_starts_anew_from_what_runs() {
    let (_dir, machine) = trial_running();
    for copy in ["env1", "env2"] {
        machine.write(&format!("/boot/va/{copy}"), "rubbish");
    }
    machine.boot("root", "noenv");
    assert_eq!(shown(&machine)["failed"]["reason"], "noenv");
    machine.with_appliance(after_boot).unwrap();
    let state = State::load(&machine.at("/boot/va")).unwrap().unwrap();
    assert_eq!(
        (state.committed(), state.failed()),
        (Slot::Root, Some((Slot::Back, Reason::Noenv)))
    );
}

#[test]
fn a_state_that_only_the_menu_could_not_read_is_written_again() {
    let (_dir, machine) = trial_running();
    exhaust(&machine);
    machine.boot("root", "exhausted");
    machine.with_appliance(after_boot).unwrap();
    let before = state(&machine);
    assert_eq!(shown(&machine)["state_unread"], false);

    machine.boot("root", "noenv");
    assert_eq!(shown(&machine)["state_unread"], true);
    assert_eq!(shown(&machine)["failed"]["reason"], "exhausted");
    let flushes = || machine.log().matches("fsfreeze --freeze").count();
    let flushed = flushes();
    // The trial of then did not fail now.
    let outcome = machine.with_appliance(after_boot).unwrap();
    assert_eq!(outcome, Outcome::Ordinary);
    assert_eq!(flushes(), flushed + 1);
    assert_eq!(state(&machine), before);
    let history = machine.read("/data/va-upgrade/history.jsonl");
    assert_eq!(history.matches("failed: exhausted").count(), 1, "{history}");
    assert!(
        history.contains("which the menu could not read"),
        "{history}"
    );

    machine.boot("back", "noenv");
    let outcome = machine.with_appliance(after_boot).unwrap();
    assert_eq!(outcome, Outcome::OtherSlot(Slot::Back));
}

#[test]
fn each_boot_mends_the_default_beside_the_boot_state() {
    let (_dir, machine) = trial_running();
    machine.confirm().unwrap();
    machine.boot("back", "commit");
    machine.write("/boot/va/default.cfg", "set va_slot=root\n");
    machine.with_appliance(after_boot).unwrap();
    assert_eq!(machine.read("/boot/va/default.cfg"), "set va_slot=back\n");
}

#[test]
fn a_system_of_ours_that_lost_its_boot_state_can_be_upgraded_and_loses_nothing_in_a_failure() {
    let (dir, machine) = trial_running();
    machine.confirm().unwrap();
    for copy in ["env1", "env2"] {
        machine.write(&format!("/boot/va/{copy}"), "");
    }
    machine.boot("back", "noenv");
    // Its kernel was never on /boot by the name a package gives it.
    machine.write("/proc/sys/kernel/osrelease", "6.1.0-2\n");
    let (files, grub) = (
        machine.snapshot("/boot/va/back"),
        machine.snapshot("/boot/va/grub-1"),
    );
    let bundle = crate::release::make_bundle(dir.path(), "9.4.2");
    machine.fail_on("grub-script-check");
    assert!(crate::apply::run(&machine, &bundle).is_err());
    assert!(machine.snapshot("/boot/va/back") == files);
    assert!(machine.snapshot("/boot/va/grub-1") == grub);
    assert_eq!(state(&machine).unwrap().committed(), Slot::Back);
    crate::apply::run(&machine, &bundle).unwrap();
    assert_eq!(state(&machine).unwrap().next(), Slot::Root);
}

#[test]
fn an_armed_trial_that_has_not_started_is_left_alone() {
    let dir = scratch();
    let machine = armed(dir.path());
    machine.boot("root", "other");
    assert_eq!(
        machine.with_appliance(after_boot).unwrap(),
        Outcome::Ordinary
    );
    assert_eq!(
        shown(&machine)["trial"],
        serde_json::json!({"slot": "back", "tries_left": 3})
    );
    assert_eq!(shown(&machine)["next"], "back");
}

#[test]
fn a_kernel_that_a_package_brought_or_took_is_told() {
    let (_dir, machine) = trial_running();
    let drift = |machine: &Machine| shown(machine)["kernel_drift"].clone();
    machine.write("/proc/sys/kernel/osrelease", "6.1.0-2\n");
    machine.write("/lib/modules/6.1.0-2/modules.dep", "");
    assert_eq!(drift(&machine), serde_json::json!(null));
    machine.write("/lib/modules/6.1.0-10/modules.dep", "");
    let told = drift(&machine).to_string();
    assert!(
        told.contains("kernel 6.1.0-10 is installed, but slot back"),
        "{told}"
    );
    std::fs::remove_file(machine.at("/lib/modules/6.1.0-2/modules.dep")).unwrap();
    let told = drift(&machine).to_string();
    assert!(
        told.contains("starts kernel 6.1.0-2, whose modules"),
        "{told}"
    );
}

#[test]
fn an_appliance_that_never_saw_us_has_a_status() {
    let machine = Machine::fresh();
    assert_eq!(
        shown(&machine),
        serde_json::json!({
            "format": 1, "booted": "root", "committed": "root", "next": "root", "trial": null,
            "confirmation": null, "failed": null,
            "state_unread": false, "boot_sector": null, "kernel_drift": null, "kernel_trial": null,
            "drill": null,
            "slots": [
                { "name": "root", "device": "/dev/VA/root", "state": "committed", "version": "11",
                  "kernel": "5.10.0-1", "bootable": true },
                { "name": "back", "device": "/dev/VA/back", "state": "empty", "version": null,
                  "kernel": null, "bootable": false } ]
        })
    );
}

#[test]
fn a_grub_of_another_program_is_told_by_status_check_and_the_boot_service() {
    let (_dir, machine) = trial_running();
    machine.confirm().unwrap();
    machine.boot("back", "commit");
    assert_eq!(shown(&machine)["boot_sector"], "ours");
    assert_eq!(checked(&machine), Some(Verdict::Ok));
    machine.with_appliance(after_boot).unwrap();
    let history = || machine.read("/data/va-upgrade/history.jsonl");
    assert!(!history().contains("another GRUB"));

    machine.install_foreign_grub();
    assert_eq!(shown(&machine)["boot_sector"], "other");
    assert_eq!(checked(&machine), Some(Verdict::Warn));
    let outcome = machine.with_appliance(after_boot).unwrap();
    assert_eq!(outcome, Outcome::Ordinary);
    assert!(history().contains("the boot sector starts another GRUB"));

    fs::remove_file(machine.at("/boot/grub/i386-pc/core.img")).unwrap();
    assert_eq!(shown(&machine)["boot_sector"], "unknown");
    assert_eq!(checked(&machine), Some(Verdict::Warn));
    // A disk that cannot be read spoils neither the answer nor the boot.
    fs::remove_file(machine.at("/dev/vda")).unwrap();
    assert_eq!(shown(&machine)["boot_sector"], "unknown");
    machine.with_appliance(after_boot).unwrap();
}

/// Returns what `check` says of the boot sector.
fn checked(machine: &Machine) -> Option<Verdict> {
    machine.with_appliance(|appliance| {
        let facts = Facts::look(appliance).unwrap();
        let (report, _) = preflight::check(appliance, &facts, None);
        let found = report
            .checks
            .iter()
            .find(|check| check.name == "boot sector");
        found.map(|check| check.verdict)
    })
}

#[test]
fn an_appliance_without_a_record_is_known_by_its_settings_or_os_release() {
    let machine = Machine::fresh();
    let running = || machine.with_appliance(|a| ReleaseRecord::of_running(a).unwrap());
    machine.write("/etc/va-upgrade/config.yaml", "");
    let unknown = ReleaseRecord {
        product: None,
        version: "11".into(),
    };
    assert_eq!(running(), unknown);
    machine.write("/etc/va-upgrade/config.yaml", "version: 7.9.0\n");
    assert_eq!(running().version, "7.9.0");
    let record = "product: acme\nversion: 9.4.1\n";
    machine.write("/etc/va-upgrade/release.yaml", record);
    let known = ReleaseRecord {
        product: Some("acme".into()),
        version: "9.4.1".into(),
    };
    assert_eq!(running(), known);
}
