//! `repair` on the fake machine.

use std::fs;

use anyhow::Result;
use va_upgrade::appliance::machine::Machine as Facts;
use va_upgrade::failure::{Class, class_of};
use va_upgrade::upgrade::repair::{Repaired, repair};

use crate::machine::Machine;
use crate::rollback::upgraded;
use crate::trial::shown;

fn run(machine: &Machine) -> Result<Repaired> {
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
