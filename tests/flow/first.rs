//! What a first upgrade leaves, also where its trial fails.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use va_upgrade::boot::state::Reason;
use va_upgrade::slot::Slot;
use va_upgrade::upgrade::kernel_update::Adopted;
use va_upgrade::upgrade::trial::{Outcome, after_boot};

use crate::kernel::{NEW, adopt, bring, committed, made};
use crate::machine::Machine;
use crate::trial::{degrade, exhaust, trial_running};

fn last_event(machine: &Machine) -> serde_json::Value {
    let history = machine.read("/data/va-upgrade/history.jsonl");
    serde_json::from_str(history.lines().last().unwrap()).unwrap()
}

#[test]
fn the_old_system_writes_down_that_a_first_trial_failed() {
    let (_dir, machine) = trial_running();
    // What the adopted system starts by itself, since `apply`.
    let wanted = "/etc/systemd/system/multi-user.target.wants/va-upgrade-boot.service";
    assert!(machine.at(wanted).symlink_metadata().is_ok());
    exhaust(&machine);
    machine.boot("root", "exhausted");
    let outcome = machine.with_appliance(after_boot).unwrap();
    assert_eq!(outcome, Outcome::TrialFailed(Slot::Back, Reason::Exhausted));
    let event = last_event(&machine);
    assert_eq!(event["operation"], "trial");
    assert_eq!(event["slot"], "back");
    assert_eq!(event["version"], "9.4.1");
    assert_eq!(event["outcome"], "failed: exhausted");
}

#[test]
fn a_failed_unit_is_named_where_the_service_manager_puts_a_bullet_before_it() {
    let (_dir, machine) = trial_running();
    degrade(&machine, "\u{25cf} broken.service");
    let outcome = machine.with_appliance(after_boot).unwrap();
    let Outcome::Restarting(why) = outcome else {
        panic!("{outcome:?}")
    };
    assert!(why.contains("broken.service"), "{why}");
    assert!(!why.contains('\u{25cf}'), "{why}");
    let history = machine.read("/data/va-upgrade/history.jsonl");
    assert!(history.contains("broken.service"), "{history}");
}

#[test]
fn an_initramfs_with_keys_stays_closed_where_something_is_appended_to_it() {
    let (_dir, machine) = committed();
    bring(&machine, NEW, "keys");
    let initramfs = machine.at(&format!("/boot/initrd.img-{NEW}"));
    fs::set_permissions(initramfs, Permissions::from_mode(0o600)).unwrap();
    let adopted = adopt(&machine, made(NEW)).unwrap();
    assert_eq!(adopted, Adopted::OnTrial(NEW.into()));
    let files = machine.snapshot("/boot/va/back");
    let is_initramfs = |text: &[u8]| text.starts_with(b"keys") && text.len() > 4;
    let mut copies = files.iter().filter(|(_, text)| is_initramfs(text));
    let (copy, _) = copies.next().unwrap();
    assert_eq!(copy.metadata().unwrap().permissions().mode() & 0o777, 0o600);
}
