//! An initramfs that a person made anew, by no package and no script of ours.

use std::fs;

use va_upgrade::upgrade::preflight;
use va_upgrade::upgrade::trial::{Outcome, after_boot};

use crate::apply::state;
use crate::kernel::{
    NEW, OLD, adopt, bring, committed, history, kernels, made, restart, start_trial,
};
use crate::machine::Machine;
use crate::trial::{exhaust, shown};
use crate::{boots, rollback};
use va_upgrade::appliance::machine::Machine as Facts;
use va_upgrade::slot::Slot;
use va_upgrade::upgrade::kernel_update::Adopted;

const INITRAMFS: &str = "/boot/initramfs-6.1.0-2.img";

/// A committed machine whose boot service has run once.
fn started() -> (tempfile::TempDir, Machine) {
    let (dir, machine) = committed();
    start(&machine, "commit");
    (dir, machine)
}

fn start(machine: &Machine, why: &str) -> Outcome {
    restart(machine, why);
    machine.with_appliance(after_boot).unwrap()
}

fn drift(machine: &Machine) -> String {
    shown(machine)["kernel_drift"].to_string()
}

#[test]
fn what_dracut_makes_by_hand_is_told_at_once_and_tried_behind_the_next_start() {
    let (_dir, machine) = started();
    assert_eq!(drift(&machine), "null");
    machine.write(INITRAMFS, "made by hand");
    let told = drift(&machine);
    assert!(told.contains("made anew"), "{told}");
    assert!(told.contains("boot --adopt-kernel=6.1.0-2"), "{told}");
    let report = machine.with_appliance(|appliance| {
        let facts = Facts::look(appliance).unwrap();
        preflight::check(appliance, &facts, None).0
    });
    let report = serde_json::to_string(&report).unwrap();
    assert!(report.contains("made anew"), "{report}");

    assert_eq!(start(&machine, "commit"), Outcome::Ordinary);
    let status = shown(&machine);
    assert_eq!(status["kernel_trial"]["kernel"], OLD);
    assert_eq!(drift(&machine), "null");
    assert_eq!(kernels(&machine), [OLD, OLD]);
    start_trial(&machine);
    let outcome = machine.with_appliance(after_boot).unwrap();
    assert_eq!(outcome, Outcome::KernelKept(Slot::Back, OLD.into()));
    assert_eq!(boots::fault(&machine), None);
    assert_eq!(kernels(&machine), [OLD]);
    // It is the slot's own now, and nothing is told or tried again.
    for _ in 0..2 {
        assert_eq!(drift(&machine), "null");
        assert_eq!(start(&machine, "commit"), Outcome::Ordinary);
        assert_eq!(state(&machine).unwrap().kernel_trial(), None);
    }
}

#[test]
fn a_person_has_it_tried_with_the_next_start() {
    let (_dir, machine) = started();
    machine.write(INITRAMFS, "made by hand");
    let adopted = adopt(&machine, made(OLD)).unwrap();
    assert_eq!(adopted, Adopted::OnTrial(OLD.into()));
}

#[test]
fn one_that_does_not_come_up_is_told_and_not_tried_again() {
    let (_dir, machine) = started();
    machine.write(INITRAMFS, "broken by hand");
    start(&machine, "commit");
    exhaust(&machine);
    let outcome = start(&machine, "exhausted");
    assert_eq!(outcome, Outcome::KernelFailed(Slot::Back, OLD.into()));
    for _ in 0..2 {
        assert_eq!(start(&machine, "commit"), Outcome::Ordinary);
        assert_eq!(state(&machine).unwrap().kernel_trial(), None);
        let told = drift(&machine);
        assert!(told.contains("did not come up"), "{told}");
    }
    machine.write(INITRAMFS, "mended by hand");
    start(&machine, "commit");
    assert!(state(&machine).unwrap().kernel_trial().is_some());
}

#[test]
fn what_the_other_slot_may_have_made_is_not_tried() {
    let (_dir, machine) = started();
    machine.boot("root", "other");
    machine.with_appliance(after_boot).unwrap();
    machine.write(INITRAMFS, "made while slot root ran");
    assert_eq!(drift(&machine), "null");
    assert_eq!(start(&machine, "commit"), Outcome::Ordinary);
    assert_eq!(drift(&machine), "null");
    assert_eq!(state(&machine).unwrap().kernel_trial(), None);
}

#[test]
fn what_lay_there_before_and_a_file_that_is_only_touched_are_nothing_new() {
    let (_dir, machine) = committed();
    machine.write(INITRAMFS, "left by an older release");
    start(&machine, "commit");
    assert_eq!(drift(&machine), "null");
    let aside = machine.at("/boot/copy");
    fs::copy(machine.at(INITRAMFS), &aside).unwrap();
    fs::rename(&aside, machine.at(INITRAMFS)).unwrap();
    assert_eq!(drift(&machine), "null");
    fs::remove_file(machine.at(INITRAMFS)).unwrap();
    assert_eq!(drift(&machine), "null");
    assert_eq!(start(&machine, "commit"), Outcome::Ordinary);
}

#[test]
fn a_newer_kernel_goes_before_an_initramfs_that_was_made_anew() {
    let (_dir, machine) = started();
    machine.write(INITRAMFS, "made by hand");
    bring(&machine, NEW, "package's initramfs");
    assert!(drift(&machine).contains("is installed"));
}

#[test]
fn a_record_that_cannot_be_read_or_written_ends_no_start() {
    let (_dir, machine) = started();
    machine.write("/boot/va/initramfs.yaml", "\0");
    assert_eq!(start(&machine, "commit"), Outcome::Ordinary);
    fs::remove_file(machine.at("/boot/va/initramfs.yaml")).unwrap();
    fs::create_dir(machine.at("/boot/va/initramfs.yaml")).unwrap();
    assert_eq!(start(&machine, "commit"), Outcome::Ordinary);
    assert_eq!(drift(&machine), "null");
    rollback::fill_root(&machine);
    assert_eq!(rollback::run(&machine).unwrap().next, Slot::Root);
    assert!(!history(&machine).is_empty());
}
