//! Kernels that packages bring into a committed slot, on the fake machine.

use std::fs;

use anyhow::Result;
use va_upgrade::appliance::machine::Machine as Facts;
use va_upgrade::boot::next;
use va_upgrade::boot::state::Phase;
use va_upgrade::failure::{Class, class_of};
use va_upgrade::slot::Slot;
use va_upgrade::system::Lock;
use va_upgrade::upgrade::deadline;
use va_upgrade::upgrade::kernel_update::{self, Adopted, Change};
use va_upgrade::upgrade::rollback::rollback;
use va_upgrade::upgrade::trial::{Outcome, after_boot};

use crate::apply::{run, state};
use crate::boots;
use crate::machine::{Fault, Machine};
use crate::release::make_bundle;
use crate::trial::{exhaust, shown, trial_running};

pub const OLD: &str = "6.1.0-2";
pub const NEW: &str = "6.1.0-10";

/// A machine that runs 9.4.1 from slot `back`, committed.
pub fn committed() -> (tempfile::TempDir, Machine) {
    let (dir, machine) = trial_running();
    machine.confirm().unwrap();
    restart(&machine, "commit");
    machine.write("/proc/sys/kernel/osrelease", &format!("{OLD}\n"));
    machine.write(&format!("/lib/modules/{OLD}/modules.dep"), "");
    fs::remove_file(machine.at("/lib/modules/5.10.0-1/modules.dep")).unwrap();
    (dir, machine)
}

/// Starts slot `back` as the menu would; everything in `/run` is gone.
pub fn restart(machine: &Machine, why: &str) {
    machine.boot("back", why);
    let _ = fs::remove_file(machine.at("/run/va-upgrade.over"));
}

/// Starts what is on trial, as the menu would.
pub fn start_trial(machine: &Machine) {
    let entry = machine.read("/boot/va/back/next.cfg");
    let mut words = entry.split_whitespace();
    let id = words.find(|word| word.starts_with("va.kernel=")).unwrap();
    restart(machine, "trial");
    let line = machine.read("/proc/cmdline");
    machine.write("/proc/cmdline", &format!("{id} {line}"));
    machine.write("/proc/sys/kernel/osrelease", &format!("{NEW}\n"));
}

/// Puts there what a package of the kernel `release` does.
pub fn bring(machine: &Machine, release: &str, initramfs: &str) {
    machine.write(&format!("/boot/vmlinuz-{release}"), "package's kernel");
    machine.write(&format!("/boot/initrd.img-{release}"), initramfs);
    let modules = format!("/lib/modules/{release}");
    machine.write(&format!("{modules}/modules.dep"), "kernel/a.ko:\n");
    machine.write(&format!("{modules}/kernel/a.ko"), "");
}

pub fn adopt(machine: &Machine, change: Change) -> Result<Adopted> {
    machine.with_appliance(|appliance| {
        let facts = Facts::look(appliance)?;
        kernel_update::adopt(appliance, &facts, change, &appliance.lock()?)
    })
}

pub fn made(release: &str) -> Change<'_> {
    Change {
        release: Some(release),
        is_removal: false,
    }
}

pub fn removed(release: &str) -> Change<'_> {
    Change {
        release: Some(release),
        is_removal: true,
    }
}

/// A committed machine with the kernel [`NEW`] on trial.
pub fn on_trial() -> (tempfile::TempDir, Machine) {
    let (dir, machine) = committed();
    bring(&machine, NEW, "package's initramfs");
    let adopted = adopt(&machine, made(NEW)).unwrap();
    assert_eq!(adopted, Adopted::OnTrial(NEW.into()));
    (dir, machine)
}

fn lock(machine: &Machine) -> Lock {
    machine
        .with_appliance(|appliance| appliance.lock())
        .unwrap()
}

/// Lists the kernels on `/boot` that the slot has.
pub fn kernels(machine: &Machine) -> Vec<String> {
    let files = machine.snapshot("/boot/va/back");
    let names = files.keys().filter_map(|path| path.file_name()?.to_str());
    let mut kernels: Vec<String> = names
        .filter_map(|name| name.strip_prefix("vmlinuz-"))
        .map(str::to_owned)
        .collect();
    kernels.sort();
    kernels
}

pub fn history(machine: &Machine) -> String {
    machine.read("/data/va-upgrade/history.jsonl")
}

#[test]
fn a_packages_kernel_is_tried_beside_the_old_one_and_kept_once_it_is_healthy() {
    let (_dir, machine) = on_trial();
    assert_eq!(kernels(&machine), [NEW, OLD]);
    let status = shown(&machine);
    assert_eq!(status["slots"][1]["kernel"], OLD);
    assert_eq!(status["slots"][1]["state"], "committed");
    assert_eq!(
        status["kernel_trial"],
        serde_json::json!({"kernel": NEW, "tries_left": 3})
    );
    let entry = machine.read("/boot/va/back/entry.cfg");
    assert!(
        entry.contains(&format!("linux /va/back/vmlinuz-{OLD} ")),
        "{entry}"
    );
    let next = machine.read("/boot/va/back/next.cfg");
    assert!(next.contains(&format!(
        "/vmlinuz-{NEW} root=/dev/mapper/VA-back rd.lvm.lv=VA/back ro"
    )));
    // Nothing has started it, so a person who confirms confirms nothing.
    assert!(!machine.confirm().unwrap());
    assert_eq!(
        machine.with_appliance(after_boot).unwrap(),
        Outcome::Ordinary
    );
    assert!(state(&machine).unwrap().kernel_trial().is_some());

    start_trial(&machine);
    let outcome = machine.with_appliance(after_boot).unwrap();
    assert_eq!(outcome, Outcome::KernelKept(Slot::Back, NEW.into()));
    assert_eq!(kernels(&machine), [NEW]);
    assert_eq!(boots::fault(&machine), None);
    let kept = state(&machine).unwrap();
    assert_eq!((kept.committed(), kept.kernel_trial()), (Slot::Back, None));
    assert_eq!(kept.phase(Slot::Root), Phase::Good);
    assert_eq!(shown(&machine)["slots"][1]["kernel"], NEW);
    let entry = machine.read("/boot/va/back/entry.cfg");
    assert!(entry.contains(&format!("/vmlinuz-{NEW} ")), "{entry}");
    assert!(history(&machine).contains("came up and is the slot's own"));

    // The next package finds all as the first did.
    assert_eq!(adopt(&machine, made(NEW)).unwrap(), Adopted::Nothing);
    bring(&machine, "6.1.0-11", "next initramfs");
    let adopted = adopt(&machine, made("6.1.0-11")).unwrap();
    assert_eq!(adopted, Adopted::OnTrial("6.1.0-11".into()));
    assert_eq!(kernels(&machine), [NEW, "6.1.0-11"]);
    assert!(!machine.confirm().unwrap(), "the boot of the one before");
}

#[test]
fn a_kernel_that_does_not_come_up_leaves_the_old_one_and_is_not_tried_again() {
    let (_dir, machine) = on_trial();
    exhaust(&machine);
    restart(&machine, "exhausted");
    assert_eq!(shown(&machine)["failed"], serde_json::json!(null));
    let outcome = machine.with_appliance(after_boot).unwrap();
    assert_eq!(outcome, Outcome::KernelFailed(Slot::Back, NEW.into()));
    assert_eq!(kernels(&machine), [OLD]);
    assert_eq!(boots::fault(&machine), None);
    assert!(history(&machine).contains("did not come up (exhausted)"));
    let told = shown(&machine)["kernel_drift"].to_string();
    assert!(told.contains("kernel 6.1.0-10 was tried"), "{told}");
    assert_eq!(shown(&machine)["slots"][1]["state"], "committed");

    let error = adopt(&machine, made(NEW)).unwrap_err();
    assert_eq!(class_of(&error), Class::Refused);
    assert_eq!(kernels(&machine), [OLD]);
    restart(&machine, "commit");
    assert_eq!(
        machine.with_appliance(after_boot).unwrap(),
        Outcome::Ordinary
    );
    bring(&machine, NEW, "mended initramfs");
    let adopted = adopt(&machine, made(NEW)).unwrap();
    assert_eq!(adopted, Adopted::OnTrial(NEW.into()));
}

#[test]
fn a_kernel_whose_count_cannot_be_stored_is_not_tried_and_not_refused_for_that() {
    let (_dir, machine) = on_trial();
    restart(&machine, "nowrite");
    let outcome = machine.with_appliance(after_boot).unwrap();
    assert_eq!(outcome, Outcome::KernelNotTried(Slot::Back, NEW.into()));
    assert_eq!(state(&machine).unwrap().kernel_trial(), None);
    assert_eq!(kernels(&machine), [OLD]);
    assert!(history(&machine).contains("was not started"));
    restart(&machine, "commit");
    machine.with_appliance(after_boot).unwrap();
    let adopted = adopt(&machine, made(NEW)).unwrap();
    assert_eq!(adopted, Adopted::OnTrial(NEW.into()));
}

#[test]
fn a_kernel_that_did_not_come_up_goes_also_where_that_cannot_be_written_down() {
    let (_dir, machine) = on_trial();
    fs::create_dir(machine.at("/boot/va/back/refused.yaml")).unwrap();
    exhaust(&machine);
    restart(&machine, "exhausted");
    let outcome = machine.with_appliance(after_boot).unwrap();
    assert_eq!(outcome, Outcome::KernelFailed(Slot::Back, NEW.into()));
    assert_eq!(kernels(&machine), [OLD]);
    assert_eq!(state(&machine).unwrap().kernel_failed(), None);
}

#[test]
fn whichever_program_goes_wrong_a_kernel_is_adopted_or_not_and_the_slot_boots() {
    for fault in Fault::ALL {
        for step in 0.. {
            let (_dir, machine) = committed();
            bring(&machine, NEW, "package's initramfs");
            machine.fail_at(step, fault);
            let adopted = adopt(&machine, made(NEW));
            let failed = machine.failed_call();
            assert_eq!(boots::fault(&machine), None, "{failed:?}");
            let is_armed = state(&machine).unwrap().kernel_trial().is_some();
            assert_eq!(adopted.is_ok(), is_armed, "{failed:?}: {adopted:?}");
            let kernels = kernels(&machine);
            assert_eq!(kernels.len(), if is_armed { 2 } else { 1 }, "{failed:?}");
            if failed.is_none() {
                break;
            }
        }
    }
}

#[test]
fn whichever_program_goes_wrong_a_healthy_kernel_is_kept_or_its_trial_is_over() {
    for fault in Fault::ALL {
        for step in 0.. {
            let (_dir, machine) = on_trial();
            start_trial(&machine);
            machine.fail_at(step, fault);
            let outcome = machine.with_appliance(after_boot);
            let failed = machine.failed_call();
            assert_eq!(boots::fault(&machine), None, "{failed:?}");
            let is_ended = state(&machine).unwrap().kernel_trial().is_none();
            let is_over = machine.at("/run/va-upgrade.over").exists();
            assert_eq!(is_ended, is_over, "{failed:?}: {outcome:?}");
            let is_kept = matches!(outcome, Ok(Outcome::KernelKept(..)));
            let told = outcome.map_or_else(|error| format!("{error:#}"), |it| format!("{it:?}"));
            let is_left = told.contains("is healthy, but could not be kept");
            assert_eq!(is_over, is_kept || is_left, "{failed:?}: {told}");
            if failed.is_none() {
                assert!(is_kept);
                break;
            }
        }
    }
}

#[test]
fn a_healthy_kernel_is_kept_by_renaming_what_was_written_before() {
    use std::os::unix::fs::MetadataExt;
    let (_dir, machine) = on_trial();
    let files = machine.snapshot("/boot/va/back");
    let prepared = |name: &str| {
        let found = files.keys().find(|path| {
            path.ends_with(name) && path.parent().unwrap() != machine.at("/boot/va/back")
        });
        found.unwrap().metadata().unwrap().ino()
    };
    let prepared = ["entry.cfg", "slot.yaml"].map(|name| (name, prepared(name)));
    next::promote(&machine, Slot::Back, &lock(&machine)).unwrap();
    for (name, inode) in prepared {
        let kept = machine.at(&format!("/boot/va/back/{name}"));
        assert_eq!(kept.metadata().unwrap().ino(), inode, "{name}");
    }
    assert_eq!(boots::fault(&machine), None);
}

#[test]
fn a_healthy_kernel_that_cannot_be_kept_is_not_restarted_and_the_old_one_starts_again() {
    let (_dir, machine) = on_trial();
    start_trial(&machine);
    let entry = machine.at("/boot/va/back/entry.cfg");
    let text = fs::read(&entry).unwrap();
    // Nothing can take its place.
    machine.be_damaged();
    fs::remove_file(&entry).unwrap();
    fs::create_dir(&entry).unwrap();
    let error = machine.with_appliance(after_boot).unwrap_err();
    assert!(format!("{error:#}").contains("is healthy"), "{error:#}");
    assert_eq!(state(&machine).unwrap().kernel_trial(), None);
    machine.with_appliance(deadline::watch).unwrap();
    assert!(machine.reboots().is_empty());
    fs::remove_dir(&entry).unwrap();
    fs::write(&entry, text).unwrap();
    machine.be_watched();
    restart(&machine, "commit");
    machine.with_appliance(after_boot).unwrap();
    assert_eq!(kernels(&machine), [OLD]);
    let adopted = adopt(&machine, made(NEW)).unwrap();
    assert_eq!(adopted, Adopted::OnTrial(NEW.into()));
}

#[test]
fn a_power_cut_while_a_kernel_becomes_the_slots_own_costs_neither_kernel() {
    let cut = |machine: &Machine, with_record: bool| {
        let record = "/boot/va/back/slot.yaml";
        let old = machine.read(record);
        next::promote(machine, Slot::Back, &lock(machine)).unwrap();
        if !with_record {
            machine.be_damaged();
            let next = next::load(machine, Slot::Back).unwrap().unwrap();
            let place = next::dir(machine, Slot::Back, &next).unwrap();
            fs::rename(machine.at(record), place.join("slot.yaml")).unwrap();
            machine.write(record, &old);
        }
    };
    for with_record in [true, false] {
        let (_dir, machine) = on_trial();
        cut(&machine, with_record);
        start_trial(&machine);
        let outcome = machine.with_appliance(after_boot).unwrap();
        assert_eq!(outcome, Outcome::KernelKept(Slot::Back, NEW.into()));
        assert_eq!(kernels(&machine), [NEW]);
        assert_eq!(boots::fault(&machine), None);
        machine.be_watched();

        // Or it does not come up any more.
        let (_dir, machine) = on_trial();
        cut(&machine, with_record);
        exhaust(&machine);
        restart(&machine, "exhausted");
        machine.with_appliance(after_boot).unwrap();
        assert_eq!(boots::fault(&machine), None);
        let kept = if with_record { NEW } else { OLD };
        assert_eq!(kernels(&machine), [kept]);
        machine.be_watched();

        // Or its trial is ended by a person.
        let (_dir, machine) = on_trial();
        cut(&machine, with_record);
        let mut ended = state(&machine).unwrap();
        ended.end_kernel_trial();
        let saved = ended.save(&machine.at("/boot/va"), &lock(&machine));
        saved.unwrap().rest.unwrap();
        restart(&machine, "commit");
        machine.with_appliance(after_boot).unwrap();
        assert_eq!(boots::fault(&machine), None);
        assert_eq!(kernels(&machine), [kept]);
    }
}

#[test]
fn a_trial_of_a_slot_goes_before_that_of_a_kernel() {
    let (dir, machine) = on_trial();
    run(&machine, &make_bundle(dir.path(), "9.4.2")).unwrap();
    let armed = state(&machine).unwrap();
    assert_eq!(armed.trial().unwrap().slot, Slot::Root);
    let error = adopt(&machine, made(NEW)).unwrap_err();
    assert_eq!(class_of(&error), Class::Refused);

    // The upgrade fails, and what waited is given up.
    for copy in ["env1", "env2"] {
        let path = format!("/boot/va/{copy}");
        let text = machine
            .read(&path)
            .replace("va_trial=root\n", "va_trial=\n");
        let text = text.replace("va_failed=\n", "va_failed=root\n");
        machine.write(&path, &format!("{:#<1024}", &text[..text.len().min(1024)]));
    }
    restart(&machine, "exhausted");
    machine.with_appliance(after_boot).unwrap();
    assert_eq!(kernels(&machine), [OLD]);
    assert_eq!(state(&machine).unwrap().phase(Slot::Root), Phase::Failed);
    let told = shown(&machine)["kernel_drift"].to_string();
    assert!(told.contains("boot --adopt-kernel"), "{told}");
    let adopted = adopt(&machine, Change::default()).unwrap();
    assert_eq!(adopted, Adopted::OnTrial(NEW.into()));
    assert_eq!(state(&machine).unwrap().phase(Slot::Root), Phase::Failed);
}

#[test]
fn a_kernel_that_waits_gives_its_room_to_an_upgrade_before_that_needs_it() {
    let (dir, machine) = committed();
    bring(&machine, NEW, &"initramfs".repeat(300_000));
    adopt(&machine, made(NEW)).unwrap();
    // 15 MiB, and the upgrade needs 16 for GRUB alone.
    machine.answer("stat", "4096 3840 100000 90000\n");
    machine.meanwhile("mkfs.ext4 -q", |machine| {
        machine.write("/run/looked", "");
        assert_eq!(kernels(machine), [OLD]);
        assert_eq!(state(machine).unwrap().kernel_trial(), None);
    });
    run(&machine, &make_bundle(dir.path(), "9.4.2")).unwrap();
    assert!(machine.at("/run/looked").exists());
    assert_eq!(state(&machine).unwrap().trial().unwrap().slot, Slot::Root);
}

#[test]
fn a_rollback_ends_the_trial_of_a_kernel() {
    let (_dir, machine) = on_trial();
    // What `check_root` looks at in the old system.
    for path in [
        "/sbin/init",
        "/lib/modules/5.10.0-1/modules.dep",
        "/etc/fstab",
    ] {
        machine.write(&format!("/devices/VA-root{path}"), "");
    }
    machine.with_appliance(|appliance| {
        let facts = Facts::look(appliance).unwrap();
        rollback(appliance, &facts, &appliance.lock().unwrap()).unwrap();
    });
    let back = state(&machine).unwrap();
    assert_eq!((back.next(), back.trial()), (Slot::Root, None));
    assert_eq!(back.kernel_trial(), None);
    assert_eq!(back.phase(Slot::Back), Phase::Good);
}

#[test]
fn a_damaged_record_of_a_kernel_on_trial_ends_the_trial_and_the_next_one_goes_well() {
    let (_dir, machine) = on_trial();
    machine.write("/boot/va/back/next.yaml", "\0");
    restart(&machine, "trial");
    assert_eq!(
        machine.with_appliance(after_boot).unwrap(),
        Outcome::Ordinary
    );
    assert_eq!(state(&machine).unwrap().kernel_trial(), None);
    assert_eq!(kernels(&machine), [OLD]);
    let adopted = adopt(&machine, made(NEW)).unwrap();
    assert_eq!(adopted, Adopted::OnTrial(NEW.into()));
}
