//! What is left of an upgrade that was discarded: nothing, wherever that is possible.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use va_upgrade::boot::state::Phase;
use va_upgrade::slot::Slot;
use va_upgrade::upgrade::trial::{Outcome, after_boot};

use crate::apply::{armed, run, state};
use crate::boots;
use crate::machine::{Machine, scratch};
use crate::release::make_bundle;
use crate::rollback::upgraded;
use crate::stage::{activate, discard, staged, write_only};

fn boot(machine: &Machine) -> BTreeMap<PathBuf, Vec<u8>> {
    machine.snapshot("/boot")
}

#[test]
fn after_the_first_apply_boot_and_the_boot_area_are_what_they_were_byte_for_byte() {
    for is_armed in [true, false] {
        let dir = scratch();
        let machine = Machine::fresh();
        let before = (boot(&machine), machine.boot_area());
        write_only(&machine, &make_bundle(dir.path(), "9.4.1")).unwrap();
        if is_armed {
            activate(&machine).unwrap();
        }
        assert!(machine.boot_area() != before.1);
        assert!(discard(&machine).unwrap().unwrap().is_grub_back);
        assert!((boot(&machine), machine.boot_area()) == before);
        assert!(!machine.at("/boot/va").exists());
        assert_eq!(discard(&machine).unwrap(), None);

        // Nor do the next boots change anything.
        let outcome = machine.with_appliance(after_boot).unwrap();
        assert_eq!(outcome, Outcome::Ordinary);
        assert!((boot(&machine), machine.boot_area()) == before);
        run(&machine, &make_bundle(dir.path(), "9.4.2")).unwrap();
        assert_eq!(state(&machine).unwrap().next(), Slot::Back);
    }
}

#[test]
fn after_a_later_apply_all_but_the_slot_that_was_written_over_is_what_it_was() {
    for is_armed in [true, false] {
        let (dir, machine) = upgraded();
        let others = || {
            let mut files = boot(&machine);
            let slot = machine.at("/boot/va/root");
            let states = ["env1", "env2"].map(|copy| machine.at("/boot/va").join(copy));
            files.retain(|path, _| !path.starts_with(&slot) && !states.contains(path));
            files
        };
        let before = (others(), machine.boot_area());
        write_only(&machine, &make_bundle(dir.path(), "9.5.0")).unwrap();
        if is_armed {
            activate(&machine).unwrap();
        }
        assert!(discard(&machine).unwrap().unwrap().is_grub_back);
        assert!((others(), machine.boot_area()) == before);
        assert!(!machine.at("/boot/va/root").exists());
        let state = state(&machine).unwrap();
        assert_eq!((state.committed(), state.trial()), (Slot::Back, None));
        assert_eq!(state.phase(Slot::Root), Phase::Empty);
        assert_eq!(boots::fault(&machine), None);
    }
}

#[test]
fn a_grub_that_is_not_what_it_was_is_not_started_again() {
    type Change = fn(&Machine);
    let changes: [(&str, Change); 5] = [
        ("a module", |m| {
            m.write("/boot/grub/i386-pc/normal.mod", "a newer module");
        }),
        ("another file", |m| m.write("/boot/grub/fonts/x", "")),
        ("the menu", |m| {
            fs::remove_file(m.at("/boot/grub/grub.cfg")).unwrap();
        }),
        ("its start is long ago", |m| m.boot("root", "commit")),
        ("what was kept", |m| {
            m.write("/boot/va/grub-1/before/sectors", "");
        }),
    ];
    for (what, change) in changes {
        let (_dir, machine) = staged();
        change(&machine);
        let area = machine.boot_area();
        assert!(!discard(&machine).unwrap().unwrap().is_grub_back, "{what}");
        assert!(machine.boot_area() == area, "{what}");
        assert_eq!(boots::fault(&machine), None, "{what}");
        assert!(!machine.at("/boot/va/back").exists(), "{what}");
        let state = state(&machine).unwrap();
        assert_eq!((state.next(), state.trial()), (Slot::Root, None), "{what}");
        assert_eq!(state.phase(Slot::Back), Phase::Empty, "{what}");
    }
}

#[test]
fn a_menu_that_a_package_wrote_meanwhile_is_started_again() {
    let (_dir, machine) = staged();
    machine.write("/boot/grub/grub.cfg", "menu with a newer kernel");
    assert!(discard(&machine).unwrap().unwrap().is_grub_back);
    assert_eq!(
        machine.read("/boot/grub/grub.cfg"),
        "menu with a newer kernel"
    );
}

#[test]
fn a_grub_of_another_program_that_has_a_core_is_started_again() {
    let dir = scratch();
    let machine = Machine::fresh();
    machine.install_foreign_grub();
    let before = (boot(&machine), machine.boot_area());
    let bundle = make_bundle(dir.path(), "9.4.1");
    run(&machine, &bundle).unwrap();
    assert!(discard(&machine).unwrap().unwrap().is_grub_back);
    assert!((boot(&machine), machine.boot_area()) == before);

    // Its core is gone.
    run(&machine, &bundle).unwrap();
    let mut area = machine.boot_area();
    let sector = u64::from_le_bytes(before.1[0x5c..0x64].try_into().unwrap());
    let start = usize::try_from(sector).unwrap() * 512;
    area[start + 600] ^= 1;
    fs::write(machine.at("/dev/vda"), &area).unwrap();
    assert!(!discard(&machine).unwrap().unwrap().is_grub_back);
    assert!(machine.boot_area() == area);
    assert_eq!(boots::fault(&machine), None);
}

#[test]
fn a_boot_sector_that_another_program_took_meanwhile_stays_its_own() {
    let (_dir, machine) = staged();
    machine.install_foreign_grub();
    let area = machine.boot_area();
    assert!(!discard(&machine).unwrap().unwrap().is_grub_back);
    assert!(machine.boot_area() == area);
}

#[test]
fn a_discard_that_was_cut_short_once_the_old_grub_was_back_is_finished_by_the_next() {
    let dir = scratch();
    let machine = Machine::fresh();
    let before = (boot(&machine), machine.boot_area());
    run(&machine, &make_bundle(dir.path(), "9.4.1")).unwrap();
    let copy = |from: &Path, to: &Path| {
        let copied = Command::new("cp").arg("-a").args([from, to]).status();
        assert!(copied.unwrap().success());
    };
    let (ours, aside) = (machine.at("/boot/va"), machine.at("/aside"));
    copy(&ours, &aside);
    discard(&machine).unwrap();
    copy(&aside, &ours);
    machine.be_damaged();
    let mut left = state(&machine).unwrap();
    left.cancel_trial().unwrap();
    left.clear(Slot::Back).unwrap();
    machine.with_appliance(|appliance| {
        appliance.save(&left, &appliance.lock().unwrap()).unwrap();
    });
    machine.be_watched();
    assert_eq!(discard(&machine).unwrap(), None);
    assert!((boot(&machine), machine.boot_area()) == before);
}

#[test]
fn what_was_started_before_is_forgotten_once_the_new_system_is_kept() {
    let dir = scratch();
    let machine = armed(dir.path());
    assert!(machine.at("/boot/va/grub-1/before").exists());
    machine.boot("back", "trial");
    machine.confirm().unwrap();
    assert!(!machine.at("/boot/va/grub-1/before").exists());
}
