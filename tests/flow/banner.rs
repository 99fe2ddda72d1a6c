//! What whoever logs in is told, on the fake machine.

use std::fs;

use va_upgrade::upgrade::last_word;
use va_upgrade::upgrade::trial::after_boot;

use crate::apply::run;
use crate::machine::{Machine, scratch};
use crate::release::make_bundle;
use crate::trial::{degrade, exhaust};

fn banner(machine: &Machine) -> Option<String> {
    fs::read_to_string(machine.at("/run/va-upgrade.banner")).ok()
}

/// A machine that runs 9.4.1 on trial.
fn on_trial() -> (tempfile::TempDir, Machine) {
    let dir = scratch();
    let machine = Machine::fresh();
    run(&machine, &make_bundle(dir.path(), "9.4.1")).unwrap();
    machine.boot("back", "trial");
    (dir, machine)
}

#[test]
fn a_running_trial_is_told_of_until_it_is_kept() {
    let (_dir, machine) = on_trial();
    for system in ["/", "/devices/VA-back"] {
        let root = machine.at(system);
        for link in ["etc/issue.d/va-upgrade.issue", "etc/motd.d/va-upgrade"] {
            let end = fs::read_link(root.join(link)).unwrap();
            assert_eq!(end.to_str(), Some("/run/va-upgrade.banner"), "{system}");
        }
        assert!(root.join("etc/profile.d/va-upgrade.sh").is_file());
    }
    assert_eq!(banner(&machine), None);
    machine.with_appliance(last_word::run).unwrap();
    let text = banner(&machine).unwrap();
    assert!(
        text.contains("Version 9.4.1, in slot back, is on trial."),
        "{text}"
    );
    assert!(text.contains("else version 11 starts again"), "{text}");
    machine.with_appliance(after_boot).unwrap();
    assert_eq!(banner(&machine), None);

    let (_dir, machine) = on_trial();
    machine.write(
        "/etc/va-upgrade/config.yaml",
        "product: acme\nconfirm_by: operator\n",
    );
    machine.with_appliance(after_boot).unwrap();
    assert!(banner(&machine).unwrap().contains("`va-upgrade confirm`"));
    machine.confirm().unwrap();
    assert_eq!(banner(&machine), None);
}

#[test]
fn the_old_system_tells_where_the_report_of_a_failed_trial_is_until_the_next_one() {
    let (dir, machine) = on_trial();
    degrade(&machine, "broken.service");
    machine.with_appliance(after_boot).unwrap();
    exhaust(&machine);
    machine.boot("root", "exhausted");
    machine.forget_answer("running");
    machine.with_appliance(after_boot).unwrap();
    let text = banner(&machine).unwrap();
    assert!(
        text.contains("version 9.4.1 did not stay (health)"),
        "{text}"
    );
    assert!(
        text.contains("report is in /data/va-upgrade/trials/"),
        "{text}"
    );
    run(&machine, &make_bundle(dir.path(), "9.5.0")).unwrap();
    assert_eq!(banner(&machine), None);
}
