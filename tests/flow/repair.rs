//! `repair` on the fake machine.

use std::fs;

use anyhow::Result;
use va_upgrade::appliance::machine::Machine as Facts;
use va_upgrade::failure::{Class, class_of};
use va_upgrade::upgrade::repair::{Repaired, repair};

use crate::machine::Machine;
use crate::rollback::upgraded;
use crate::trial::shown;

pub fn run(machine: &Machine) -> Result<Repaired> {
    machine.with_appliance(|appliance| {
        let lock = appliance.lock()?;
        repair(appliance, &Facts::look(appliance)?, &lock)
    })
}

#[test]
fn a_boot_sector_that_was_taken_starts_our_grub_again() {
    let (_dir, machine) = upgraded();
    assert_eq!(run(&machine).unwrap(), Repaired::default());
    machine.install_foreign_grub();
    fs::remove_file(machine.at("/boot/va/default.cfg")).unwrap();
    assert_eq!(shown(&machine)["boot_sector"], "other");
    let both = Repaired {
        boot_state: true,
        boot_sector: true,
    };
    assert_eq!(run(&machine).unwrap(), both);
    assert_eq!(shown(&machine)["boot_sector"], "ours");
    let history = machine.read("/data/va-upgrade/history.jsonl");
    assert!(history.contains("\"operation\":\"repair\""), "{history}");
    machine.be_watched();
    crate::rollback::run(&machine).unwrap();
}

#[test]
fn a_repair_that_fails_leaves_the_boot_sector_as_it_was() {
    let (_dir, machine) = upgraded();
    machine.install_foreign_grub();
    let area = machine.boot_area();
    machine.fail_on("fsfreeze");
    let error = run(&machine).unwrap_err();
    assert_eq!(class_of(&error), Class::Undone, "{error:#}");
    assert!(machine.boot_area() == area);
    run(&machine).unwrap();
    assert_eq!(shown(&machine)["boot_sector"], "ours");
}

#[test]
fn without_a_whole_grub_of_ours_there_is_nothing_to_go_back_to() {
    let (_dir, machine) = upgraded();
    machine.install_foreign_grub();
    let area = machine.boot_area();
    fs::remove_file(machine.at("/boot/va/grub-1/grub/i386-pc/normal.mod")).unwrap();
    let error = run(&machine).unwrap_err();
    assert_eq!(class_of(&error), Class::Refused, "{error:#}");
    assert!(machine.boot_area() == area);

    let error = run(&Machine::fresh()).unwrap_err();
    assert_eq!(class_of(&error), Class::Refused, "{error:#}");
}

/// Lets the distribution's GRUB have started kernel `release` in `back`.
fn start_by_foreign_grub(machine: &Machine, release: &str) {
    machine.install_foreign_grub();
    machine.write("/proc/cmdline", "root=/dev/mapper/VA-back ro quiet\n");
    machine.write("/proc/sys/kernel/osrelease", &format!("{release}\n"));
}

#[test]
fn the_running_kernel_is_adopted_before_our_menu_starts_the_system_again() {
    let (_dir, machine) = upgraded();
    start_by_foreign_grub(&machine, "6.1.0-9");
    let area = machine.boot_area();
    let error = run(&machine).unwrap_err();
    assert_eq!(class_of(&error), Class::Refused, "{error:#}");
    assert!(
        format!("{error:#}").contains("vmlinuz-6.1.0-9"),
        "{error:#}"
    );
    assert!(machine.boot_area() == area);
    machine.write("/boot/vmlinuz-6.1.0-9", "newer kernel");
    machine.write("/boot/initrd.img-6.1.0-9", "newer initramfs");
    run(&machine).unwrap();
    assert_eq!(
        machine.read("/boot/va/back/vmlinuz-6.1.0-9"),
        "newer kernel"
    );
    assert!(!machine.at("/boot/va/back/vmlinuz-6.1.0-2").exists());
    let entry = machine.read("/boot/va/back/entry.cfg");
    assert!(
        entry.contains("vmlinuz-6.1.0-9 root=/dev/mapper/VA-back ro quiet"),
        "{entry}"
    );
    machine.be_watched();
    crate::rollback::run(&machine).unwrap();
}

#[test]
fn a_boot_state_that_nothing_can_read_starts_anew_where_another_menu_started_the_system() {
    let (dir, machine) = upgraded();
    start_by_foreign_grub(&machine, "6.1.0-2");
    for copy in ["env1", "env2"] {
        machine.write(&format!("/boot/va/{copy}"), "bad sectors");
    }
    let error = run(&machine).unwrap_err();
    assert_eq!(class_of(&error), Class::Refused, "{error:#}");
    let bundle = crate::release::make_bundle(dir.path(), "9.4.2");
    crate::apply::run(&machine, &bundle).unwrap();
    assert_eq!(shown(&machine)["committed"], "back");
}
