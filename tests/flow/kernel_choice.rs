//! Which kernel of the running system is the one to try, on the fake machine.

use std::fs;

use va_upgrade::failure::{Class, class_of};
use va_upgrade::slot::Slot;
use va_upgrade::upgrade::kernel_update::{Adopted, Change};
use va_upgrade::upgrade::trial::{Outcome, after_boot};

use crate::apply::{run, state};
use crate::boots;
use crate::kernel::{
    NEW, OLD, adopt, bring, committed, kernels, made, on_trial, removed, restart, start_trial,
};
use crate::machine::Machine;
use crate::release::make_bundle;
use crate::trial::{exhaust, shown};

#[test]
fn an_initramfs_that_was_made_anew_is_tried_and_the_other_slots_is_not() {
    let (_dir, machine) = committed();
    bring(&machine, OLD, "made by the other slot, or here");
    assert_eq!(
        adopt(&machine, Change::default()).unwrap(),
        Adopted::Nothing
    );
    assert_eq!(adopt(&machine, made("5.10.0-1")).unwrap(), Adopted::Nothing);
    let adopted = adopt(&machine, made(OLD)).unwrap();
    assert_eq!(adopted, Adopted::OnTrial(OLD.into()));
    start_trial(&machine);
    let outcome = machine.with_appliance(after_boot).unwrap();
    assert_eq!(outcome, Outcome::KernelKept(Slot::Back, OLD.into()));
    assert_eq!(boots::fault(&machine), None);
}

#[test]
fn a_kernel_without_initramfs_or_modules_is_no_kernel_to_adopt() {
    for missing in [
        format!("/boot/initrd.img-{NEW}"),
        format!("/lib/modules/{NEW}/modules.dep"),
        format!("/lib/modules/{NEW}/kernel/a.ko"),
    ] {
        let (_dir, machine) = committed();
        bring(&machine, NEW, "package's initramfs");
        fs::remove_file(machine.at(&missing)).unwrap();
        assert_eq!(adopt(&machine, made(NEW)).unwrap(), Adopted::Nothing);
    }
}

#[test]
fn a_kernel_that_is_removed_before_it_was_tried_is_not_tried() {
    let (_dir, machine) = on_trial();
    assert_eq!(adopt(&machine, removed(NEW)).unwrap(), Adopted::Nothing);
    assert_eq!(state(&machine).unwrap().kernel_trial(), None);
    assert_eq!(kernels(&machine), [OLD]);
}

#[test]
fn a_kernel_that_is_only_installed_again_is_neither_gone_nor_given_up() {
    let (_dir, machine) = on_trial();
    exhaust(&machine);
    restart(&machine, "exhausted");
    machine.with_appliance(after_boot).unwrap();
    bring(&machine, OLD, "made by the package");
    let started = kernels(&machine);
    // kernel-install(8) takes its list of modules away meanwhile.
    fs::create_dir_all(machine.at(&format!("/lib/modules/{OLD}/kernel"))).unwrap();
    fs::remove_file(machine.at(&format!("/lib/modules/{OLD}/modules.dep"))).unwrap();
    let error = adopt(&machine, removed(OLD)).unwrap_err();
    assert!(format!("{error:#}").contains("was tried"), "{error:#}");
    assert_eq!(kernels(&machine), started);
    assert_eq!(state(&machine).unwrap().kernel_trial(), None);
}

/// Takes the modules of `release` away, as a removed package of Debian's does.
fn lose_modules(machine: &Machine, release: &str) {
    let modules = machine.at(&format!("/lib/modules/{release}/modules.dep"));
    fs::write(modules, "kernel/gone.ko:\n").unwrap();
}

#[test]
fn where_the_modules_of_the_kernel_that_starts_are_gone_another_is_tried_beside_it() {
    let (_dir, machine) = committed();
    bring(&machine, "6.1.0-1", "older initramfs");
    bring(&machine, NEW, "package's initramfs");
    lose_modules(&machine, OLD);
    let told = shown(&machine)["kernel_drift"].to_string();
    assert!(told.contains("no longer has"), "{told}");
    let outcome = machine.with_appliance(after_boot).unwrap();
    assert_eq!(outcome, Outcome::Ordinary);
    assert_eq!(kernels(&machine), [NEW, OLD]);
    assert!(state(&machine).unwrap().kernel_trial().is_some());

    // It does not come up: the next one is tried, and then none any more.
    exhaust(&machine);
    restart(&machine, "exhausted");
    let outcome = machine.with_appliance(after_boot).unwrap();
    assert_eq!(outcome, Outcome::KernelFailed(Slot::Back, NEW.into()));
    restart(&machine, "commit");
    machine.with_appliance(after_boot).unwrap();
    assert_eq!(kernels(&machine), ["6.1.0-1", OLD]);
    exhaust(&machine);
    restart(&machine, "exhausted");
    machine.with_appliance(after_boot).unwrap();
    restart(&machine, "commit");
    machine.with_appliance(after_boot).unwrap();
    assert_eq!(kernels(&machine), [OLD]);
    assert_eq!(state(&machine).unwrap().kernel_trial(), None);
    assert_eq!(boots::fault(&machine), None);
}

#[test]
fn a_lost_kernel_without_another_one_stays_and_the_way_out_is_told() {
    let (dir, machine) = committed();
    lose_modules(&machine, OLD);
    let error = adopt(&machine, removed(OLD)).unwrap_err();
    assert!(
        format!("{error:#}").contains("before a restart"),
        "{error:#}"
    );
    assert_eq!(kernels(&machine), [OLD]);

    // An upgrade replaces nothing that has started once.
    bring(&machine, "6.1.0-1", "older initramfs");
    run(&machine, &make_bundle(dir.path(), "9.4.2")).unwrap();
    assert_eq!(kernels(&machine), [OLD]);
    assert_eq!(state(&machine).unwrap().trial().unwrap().slot, Slot::Root);
}

#[test]
fn a_refused_kernel_keeps_no_other_one_out() {
    let (_dir, machine) = on_trial();
    exhaust(&machine);
    restart(&machine, "exhausted");
    machine.with_appliance(after_boot).unwrap();
    bring(&machine, OLD, "made anew");
    let adopted = adopt(&machine, made(OLD)).unwrap();
    assert_eq!(adopted, Adopted::OnTrial(OLD.into()));
    bring(&machine, "6.1.0-9", "between both");
    let adopted = adopt(&machine, made("6.1.0-9")).unwrap();
    assert_eq!(adopted, Adopted::OnTrial("6.1.0-9".into()));

    // Nor is the first one forgotten with the second.
    exhaust(&machine);
    restart(&machine, "exhausted");
    machine.with_appliance(after_boot).unwrap();
    let error = adopt(&machine, Change::default()).unwrap_err();
    assert_eq!(class_of(&error), Class::Refused);
    assert_eq!(kernels(&machine), [OLD]);
}

#[test]
fn a_record_of_one_refused_kernel_is_read_as_well() {
    let (_dir, machine) = on_trial();
    exhaust(&machine);
    restart(&machine, "exhausted");
    machine.with_appliance(after_boot).unwrap();
    let path = "/boot/va/back/refused.yaml";
    let one = machine.read(path).replace("- kernel", "  kernel");
    let one: Vec<&str> = one.lines().map(|line| &line[2..]).collect();
    machine.write(path, &one.join("\n"));
    assert!(adopt(&machine, made(NEW)).is_err());
    machine.write(path, "\0");
    let adopted = adopt(&machine, made(NEW)).unwrap();
    assert_eq!(adopted, Adopted::OnTrial(NEW.into()));
}

#[test]
fn a_kernel_of_another_flavour_is_not_newer_but_better_than_lost_modules() {
    let (_dir, machine) = committed();
    bring(&machine, "6.1.0-10-rt", "real time");
    assert_eq!(
        adopt(&machine, made("6.1.0-10-rt")).unwrap(),
        Adopted::Nothing
    );
    assert_eq!(shown(&machine)["kernel_drift"], serde_json::json!(null));
    lose_modules(&machine, OLD);
    let adopted = adopt(&machine, removed(OLD)).unwrap();
    assert_eq!(adopted, Adopted::OnTrial("6.1.0-10-rt".into()));
    bring(&machine, "6.1.0-1", "of the same flavour");
    let adopted = adopt(&machine, made("6.1.0-1")).unwrap();
    assert_eq!(adopted, Adopted::OnTrial("6.1.0-1".into()));
}

#[test]
fn a_full_boot_partition_keeps_a_kernel_out_and_names_the_way_out() {
    let (_dir, machine) = committed();
    bring(&machine, NEW, "package's initramfs");
    machine.answer("stat", "4096 10 100000 90000\n");
    let error = adopt(&machine, made(NEW)).unwrap_err();
    assert_eq!(class_of(&error), Class::Refused);
    assert!(format!("{error:#}").contains("remove old kernels"));
    assert_eq!(kernels(&machine), [OLD]);
}

#[test]
fn an_appliance_that_va_upgrade_does_not_start_is_left_alone() {
    let machine = Machine::fresh();
    bring(&machine, NEW, "package's initramfs");
    assert_eq!(adopt(&machine, made(NEW)).unwrap(), Adopted::Nothing);
    assert!(!machine.at("/boot/va").exists());
}
