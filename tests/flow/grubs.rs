//! Which GRUB of ours stays and which goes, on the fake machine.

use std::fs;

use crate::apply::{armed, run};
use crate::machine::{Machine, scratch};
use crate::release::make_bundle;

#[test]
fn a_grub_that_nothing_tells_from_the_one_in_use_is_never_removed() {
    let dir = scratch();
    let machine = armed(dir.path());
    machine.boot("back", "trial");
    machine.confirm().unwrap();
    machine.boot("back", "commit");
    let menu = machine.read("/boot/va/grub-1/grub/grub.cfg");
    machine.be_damaged();
    machine.write("/boot/va/grub-1/core", "2048 of another time");
    machine.write("/boot/va/grub-1/grub/i386-pc/core.img", "damaged");
    let bundle = make_bundle(dir.path(), "9.4.2");
    machine.fail_on("mkfs.ext4 -q");
    assert!(run(&machine, &bundle).is_err());
    assert_eq!(machine.read("/boot/va/grub-1/grub/grub.cfg"), menu);
    run(&machine, &bundle).unwrap();
    assert_eq!(machine.read("/boot/va/grub-1/grub/grub.cfg"), menu);
    assert!(machine.at("/boot/va/grub-2/core").exists());
    // The next one knows again which is in use.
    machine.boot("root", "trial");
    machine.confirm().unwrap();
    machine.boot("root", "commit");
    run(&machine, &make_bundle(dir.path(), "9.4.3")).unwrap();
    assert!(machine.at("/boot/va/grub-2/core").exists());
    let note = machine.read("/boot/va/grub-1/core");
    assert_ne!(note, "2048 of another time");
    assert!(!machine.at("/boot/va/grub-3").exists());
}

#[test]
fn each_apply_takes_the_place_of_the_grub_before_the_one_in_use() {
    let dir = scratch();
    let machine = armed(dir.path());
    for (booted, version, new) in [("back", "9.4.2", "grub-2"), ("root", "9.4.3", "grub-1")] {
        machine.boot(booted, "trial");
        machine.confirm().unwrap();
        machine.boot(booted, "commit");
        let stray = format!("/boot/va/{new}/stray");
        machine.write(&stray, "of an apply that was cut off");
        run(&machine, &make_bundle(dir.path(), version)).unwrap();
        assert!(!machine.at(&stray).exists());
        assert!(machine.at(&format!("/boot/va/{new}/core")).exists());
        assert!(!machine.at("/boot/va/grub-3").exists());
    }
}

#[test]
fn a_grub_whose_note_is_lost_is_known_by_its_core() {
    let dir = scratch();
    let machine = armed(dir.path());
    machine.boot("back", "trial");
    machine.confirm().unwrap();
    machine.boot("back", "commit");
    machine.be_damaged();
    fs::remove_file(machine.at("/boot/va/grub-1/core")).unwrap();
    machine.write("/boot/va/grub-2/stray", "nobody needs it");
    let grub = machine.snapshot("/boot/va/grub-1");
    machine.fail_on("mkfs.ext4 -q");
    assert!(run(&machine, &make_bundle(dir.path(), "9.4.2")).is_err());
    assert!(machine.snapshot("/boot/va/grub-1") == grub);
    // What is not in use goes only where it is known what is.
    assert!(!machine.at("/boot/va/grub-2").exists());
}

/// A package updates its kernel and the menu while GRUB's tools do harm.
fn change_grub(machine: &Machine) {
    machine.write("/boot/vmlinuz-5.10.0-2", "a package's kernel");
    fs::remove_file(machine.at("/boot/grub/grub.cfg.new")).unwrap();
    machine.write("/boot/grub/grub.cfg", "a package's menu");
    machine.write("/boot/grub/i386-pc/normal.mod", "ruined");
    machine.write("/boot/grub/i386-pc/other.mod", "added");
    fs::remove_file(machine.at("/boot/grub/unicode.pf2")).unwrap();
}

#[test]
fn undoing_leaves_what_a_package_wrote_meanwhile_and_puts_back_what_grubs_tools_did() {
    let dir = scratch();
    let machine = Machine::fresh();
    machine.write("/boot/grub/grub.cfg.new", "a package is at it");
    machine.write("/boot/grub/unicode.pf2", "font");
    let bundle = make_bundle(dir.path(), "9.4.1");
    machine.meanwhile("grub-script-check", change_grub);
    machine.fail_on("grub-script-check");
    assert!(run(&machine, &bundle).is_err());
    let boot = machine.snapshot("/boot");
    let names: Vec<_> = boot
        .keys()
        .map(|path| path.strip_prefix(machine.at("/boot")).unwrap().to_owned())
        .collect();
    assert_eq!(
        names,
        [
            "grub/grub.cfg",
            "grub/i386-pc/normal.mod",
            "grub/unicode.pf2",
            "initrd.img-5.10.0-1",
            "vmlinuz-5.10.0-1",
            "vmlinuz-5.10.0-2"
        ]
        .map(std::path::PathBuf::from)
    );
    assert_eq!(machine.read("/boot/grub/grub.cfg"), "a package's menu");
    assert_eq!(machine.read("/boot/grub/i386-pc/normal.mod"), "old module");
    assert_eq!(machine.read("/boot/grub/unicode.pf2"), "font");
}

#[test]
fn a_menu_that_a_package_writes_meanwhile_ends_no_upgrade() {
    let dir = scratch();
    let machine = Machine::fresh();
    machine.meanwhile("grub-script-check", |machine| {
        machine.write("/boot/grub/grub.cfg", "a package's menu");
    });
    run(&machine, &make_bundle(dir.path(), "9.4.1")).unwrap();
    assert_eq!(machine.read("/boot/grub/grub.cfg"), "a package's menu");
}

#[test]
fn a_file_by_the_name_of_a_grub_stands_in_no_way() {
    let dir = scratch();
    let machine = armed(dir.path());
    machine.boot("back", "trial");
    machine.confirm().unwrap();
    machine.boot("back", "commit");
    machine.write("/boot/va/grub-9", "somebody's");
    run(&machine, &make_bundle(dir.path(), "9.4.2")).unwrap();
    assert!(!machine.at("/boot/va/grub-9").exists());
    assert!(machine.at("/boot/va/grub-1/core").exists());
}
