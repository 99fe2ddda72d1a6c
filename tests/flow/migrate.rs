//! `migrate` in place on the fake machine.

use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use va_upgrade::appliance::Appliance;
use va_upgrade::boot::state::Phase;
use va_upgrade::config::Config;
use va_upgrade::failure::{Class, class_of};
use va_upgrade::migrate::in_place::cancel;
use va_upgrade::migrate::ladder::Rung;
use va_upgrade::migrate::{Extent, Migrated, Options, migrate};
use va_upgrade::progress::Silent;
use va_upgrade::slot::Slot;
use va_upgrade::system::System;
use va_upgrade::upgrade::trial::confirm;

use crate::apply::state;
use crate::boots;
use crate::dying::Dying;
use crate::machine::{Fault, Machine, scratch};
use crate::release::make_bundle;
use crate::volumes;

/// A system with one root, in a volume group of another name, and no room to spare:
/// the second root needs some of the swap.
fn tight() -> Machine {
    let machine = old();
    volumes::make(&machine, 150, &[("root", 100), ("swap", 40)]);
    volumes::swap_to(&machine, 0);
    machine
}

/// The same with room for everything.
fn roomy() -> Machine {
    let machine = old();
    volumes::make(&machine, 400, &[("root", 100), ("swap", 40)]);
    machine
}

fn old() -> Machine {
    let machine = Machine::fresh();
    for path in ["/dev/VA", "/devices"] {
        fs::remove_dir_all(machine.at(path)).unwrap();
    }
    machine.write(
        "/proc/cmdline",
        "root=/dev/mapper/vg0-root ro console=ttyS0\n",
    );
    machine.write("/etc/fstab", "/dev/mapper/vg0-root / ext4 defaults 0 1\n");
    machine.write("/var/lib/acme/state", "");
    fs::create_dir_all(machine.at("/devices")).unwrap();
    run_from(&machine, "root", 10);
    machine
}

/// Makes the kernel say which volume is `/`.
fn run_from(machine: &Machine, volume: &str, minor: u32) {
    machine.write(
        "/proc/self/mountinfo",
        &format!(
            "1 0 253:{minor} / / rw - ext4 /dev/mapper/vg0-{volume} rw\n\
             2 1 252:2 / /boot rw - ext4 /dev/vda2 rw\n4 1 0:99 / /devices rw - tmpfs none rw\n"
        ),
    );
    let name = format!("/sys/dev/block/253:{minor}/dm/name");
    machine.write(&name, &format!("vg0-{volume}\n"));
}

fn options(bundle: &Path, extent: Extent) -> Options {
    Options {
        bundle: bundle.to_owned(),
        allow_unsigned: true,
        allow_downgrade: false,
        extent,
        threads: 1,
    }
}

fn see<T>(sys: &dyn System, work: impl FnOnce(&Appliance) -> T) -> T {
    let text = fs::read_to_string(sys.at("/etc/va-upgrade/config.yaml")).unwrap_or_default();
    work(&Appliance {
        sys,
        config: &Config::parse(&text).unwrap(),
        progress: &Silent,
    })
}

fn run(sys: &dyn System, bundle: &Path) -> Result<Migrated> {
    see(sys, |appliance| {
        migrate(appliance, &options(bundle, Extent::Whole))
    })
}

fn undo(sys: &dyn System) -> Result<()> {
    match see(sys, cancel::cancel)? {
        Some(_) => Ok(()),
        None => bail!("nothing to cancel"),
    }
}

/// Everything that outlives a start: each file and link with its content, each
/// directory, the boot area and the volumes.
fn everything(machine: &Machine) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut todo = ["boot", "etc", "usr", "var", "data", "lvm"]
        .map(PathBuf::from)
        .to_vec();
    todo.push("dev/vda".into());
    while let Some(inside) = todo.pop() {
        let path = machine.at("/").join(&inside);
        let Ok(meta) = path.symlink_metadata() else {
            continue;
        };
        let content = if meta.is_symlink() {
            fs::read_link(&path)
                .unwrap()
                .into_os_string()
                .into_encoded_bytes()
        } else if meta.is_dir() {
            let entries = fs::read_dir(&path).unwrap();
            todo.extend(entries.map(|entry| inside.join(entry.unwrap().file_name())));
            Vec::new()
        } else {
            fs::read(&path).unwrap()
        };
        found.insert(inside, content);
    }
    found
}

fn assert_as_before(machine: &Machine, before: &BTreeMap<PathBuf, Vec<u8>>, what: &str) {
    let after = everything(machine);
    let changed: Vec<&PathBuf> = before
        .keys()
        .chain(after.keys())
        .filter(|path| before.get(*path) != after.get(*path))
        .collect();
    assert!(changed.is_empty(), "{what}: {changed:?}\n{}", machine.log());
    assert!(
        machine.mounts().is_empty(),
        "{what}: {:?}",
        machine.mounts()
    );
}

fn assert_armed(machine: &Machine, what: &str) {
    let state = state(machine).unwrap();
    assert_eq!(state.committed(), Slot::Root, "{what}");
    assert_eq!(state.phase(Slot::Back), Phase::Trial, "{what}");
    assert_eq!(boots::fault(machine), None, "{what}");
    for slot in [Slot::Root, Slot::Back] {
        assert_eq!(boots::slot_fault(machine, slot), None, "{what}");
    }
    let entry = machine.read("/boot/va/back/entry.cfg");
    assert!(
        entry.contains("root=/dev/mapper/vg0-back rd.lvm.lv=vg0/back"),
        "{entry}"
    );
}

#[test]
fn a_system_with_one_root_gets_a_second_and_both_boot() {
    let dir = scratch();
    let machine = roomy();
    let migrated = run(&machine, &make_bundle(dir.path(), "9.4.1")).unwrap();
    assert!(matches!(migrated.choice.rung, Rung::InPlace(_)));
    assert_armed(&machine, "migrated");
    let sizes = volumes::sizes(&machine);
    let sizes: Vec<(&str, u64)> = sizes
        .iter()
        .map(|(name, size)| (&name[..], *size))
        .collect();
    assert_eq!(
        sizes,
        [("back", 100), ("data", 128), ("root", 100), ("swap", 40)]
    );
    let config = machine.read("/etc/va-upgrade/config.yaml");
    assert!(
        config.starts_with("product: acme\nvg: \"vg0\"\nvolumes: {root: \"root\""),
        "{config}"
    );
    let line = "/dev/mapper/vg0-data /data ext4 defaults,nofail 0 2\n";
    assert!(machine.read("/etc/fstab").ends_with(line));
    // The new system has the same names and the same data.
    let slot = "/devices/VA-back";
    assert_eq!(
        machine.read(&format!("{slot}/etc/va-upgrade/config.yaml")),
        config
    );
    let fstab = machine.read(&format!("{slot}/etc/fstab"));
    assert!(
        fstab.contains("/dev/mapper/vg0-back / ext4") && fstab.contains(line),
        "{fstab}"
    );
    let root_entry = machine.read("/boot/va/root/entry.cfg");
    assert!(
        root_entry.contains("root=/dev/mapper/vg0-root ro console=ttyS0"),
        "{root_entry}"
    );
    assert_eq!(machine.read("/boot/grub/grub.cfg"), "menu of the installer");
}

#[test]
fn swap_gives_the_room_that_is_missing_and_keeps_its_name() {
    let dir = scratch();
    let machine = tight();
    run(&machine, &make_bundle(dir.path(), "9.4.1")).unwrap();
    assert_armed(&machine, "migrated");
    let back = volumes::sizes(&machine)[0].1;
    let swap = volumes::sizes(&machine)[2].1;
    assert_eq!(back + swap, 50);
    let area = format!("{} swap-uuid", swap * volumes::EXTENT);
    assert_eq!(volumes::swap(&machine), (area, true));
}

#[test]
fn only_the_checks_change_nothing() {
    let dir = scratch();
    let bundle = make_bundle(dir.path(), "9.4.1");
    for machine in [tight(), roomy()] {
        let before = everything(&machine);
        let migrated = see(&machine, |appliance| {
            migrate(appliance, &options(&bundle, Extent::DryRun))
        });
        let migrated = migrated.unwrap();
        migrated.require().unwrap();
        assert!(migrated.applied.is_none());
        assert_as_before(&machine, &before, "a dry run");
    }
}

#[test]
fn what_does_not_fit_is_refused_with_every_reason_and_nothing_is_changed() {
    let dir = scratch();
    let bundle = make_bundle(dir.path(), "9.4.1");
    let no_room = old();
    volumes::make(&no_room, 105, &[("root", 100)]);
    let no_lvm = old();
    no_lvm.write(
        "/proc/self/mountinfo",
        "1 0 252:3 / / rw - ext4 /dev/vda3 rw\n2 1 252:2 / /boot rw - ext4 /dev/vda2 rw\n",
    );
    let no_boot = roomy();
    no_boot.write(
        "/proc/self/mountinfo",
        "1 0 253:10 / / rw - ext4 /dev/mapper/vg0-root rw\n",
    );
    let other_names = roomy();
    other_names.write("/etc/va-upgrade/config.yaml", "product: acme\nvg: VA2\n");
    let busy = roomy();
    busy.write("/sys/firmware/efi/x", "");
    for (machine, word) in [
        (no_room, "20 MiB are free"),
        (no_lvm, "no logical volume"),
        (no_boot, "no /boot of its own"),
        (other_names, "names other volumes than vg0/root"),
        (busy, "UEFI"),
    ] {
        let before = everything(&machine);
        let error = run(&machine, &bundle).err().unwrap();
        assert_eq!(class_of(&error), Class::Refused, "{error:#}");
        assert!(format!("{error:#}").contains(word), "{error:#}");
        assert_as_before(&machine, &before, word);
    }
}

#[test]
fn a_damaged_bundle_is_found_out_before_anything_is_changed() {
    let dir = scratch();
    let bundle = make_bundle(dir.path(), "9.4.1");
    let mut bytes = fs::read(&bundle).unwrap();
    let middle = bytes.len() * 3 / 4;
    bytes[middle] ^= 0xff;
    fs::write(&bundle, bytes).unwrap();
    let machine = roomy();
    let before = everything(&machine);
    let error = run(&machine, &bundle).err().unwrap();
    assert_eq!(class_of(&error), Class::BadBundle, "{error:#}");
    assert_as_before(&machine, &before, "a damaged bundle");
}

#[test]
fn a_failure_at_any_step_puts_everything_back() {
    let dir = scratch();
    let bundle = make_bundle(dir.path(), "9.4.1");
    for fault in Fault::ALL {
        for step in 0.. {
            let machine = tight();
            let before = everything(&machine);
            machine.fail_at(step, fault);
            let outcome = run(&machine, &bundle);
            let Some(call) = machine.failed_call() else {
                break;
            };
            let what = format!("{fault:?} in step {step}, {call}");
            match outcome {
                Ok(_) => assert_armed(&machine, &what),
                Err(error) => {
                    let class = class_of(&error);
                    let is_undone =
                        matches!(class, Class::Undone | Class::Refused | Class::Unexpected);
                    assert!(is_undone, "{what}: {class:?}: {error:#}");
                    assert_as_before(&machine, &before, &format!("{what}: {error:#}"));
                }
            }
        }
    }
}

#[test]
fn a_power_cut_before_any_step_leaves_the_old_system_and_the_next_run_or_a_cancel_ends_it() {
    let dir = scratch();
    let bundle = make_bundle(dir.path(), "9.4.1");
    for step in 0.. {
        let mut is_cut = true;
        for end in [run_again, undo_if_begun] {
            let machine = tight();
            let before = everything(&machine);
            let dying = Dying::after(&machine, step);
            let outcome = catch_unwind(AssertUnwindSafe(|| run(&dying, &bundle).map(drop)));
            is_cut = outcome.is_err();
            let root = machine.at("/");
            lose_mounts(&machine);
            let machine = Machine::found(&root);
            let what = format!("cut before step {step}");
            assert_eq!(boots::fault(&machine), None, "{what}");
            let sizes = volumes::sizes(&machine);
            assert!(
                sizes.contains(&("root".to_owned(), 100)),
                "{what}: {sizes:?}"
            );
            // What a start makes of it.
            let size = sizes.iter().find(|(name, _)| name == "swap").unwrap().1;
            let area = volumes::swap(&machine).0;
            let bytes: u64 = area.split_once(' ').unwrap().0.parse().unwrap();
            assert!(
                bytes <= size * volumes::EXTENT,
                "{what}: no whole swap area"
            );
            volumes::turn_on(&machine, 0);
            end(&machine, &bundle, &before, &what);
        }
        if !is_cut {
            break;
        }
    }
}

type Before = BTreeMap<PathBuf, Vec<u8>>;

fn run_again(machine: &Machine, bundle: &Path, _: &Before, what: &str) {
    if let Err(error) = run(machine, bundle) {
        panic!("{what}: the next run fails: {error:#}\n{}", machine.log());
    }
    assert_armed(machine, what);
}

fn undo_if_begun(machine: &Machine, _: &Path, before: &Before, what: &str) {
    let cancelled = see(machine, cancel::cancel);
    if let Err(error) = &cancelled {
        panic!("{what}: cancelling fails: {error:#}\n{}", machine.log());
    }
    // Copies of a record that was not written are left for the next run.
    if cancelled.unwrap().is_none() {
        let _ = fs::remove_dir_all(machine.at("/var/lib/va-upgrade"));
    }
    assert_as_before(machine, before, what);
}

#[test]
fn cancelling_undoes_everything_byte_for_byte() {
    let dir = scratch();
    let bundle = make_bundle(dir.path(), "9.4.1");
    for machine in [tight(), roomy()] {
        machine.write(
            "/usr/lib/systemd/system/va-upgrade-boot.service",
            "an older one",
        );
        let before = everything(&machine);
        run(&machine, &bundle).unwrap();
        assert!(everything(&machine) != before);
        undo(&machine).unwrap();
        assert_as_before(&machine, &before, "cancelled");
        assert!(undo(&machine).is_err());
        // It can be done once more, also over one that was armed already.
        for _ in 0..2 {
            run(&machine, &bundle).unwrap();
        }
        undo(&machine).unwrap();
        assert_as_before(&machine, &before, "cancelled again");
    }
}

#[test]
fn a_cancel_that_fails_at_any_step_can_be_run_again() {
    let dir = scratch();
    let bundle = make_bundle(dir.path(), "9.4.1");
    for step in 0.. {
        let machine = tight();
        let before = everything(&machine);
        run(&machine, &bundle).unwrap();
        machine.fail_at(step, Fault::Fails);
        let outcome = undo(&machine);
        let Some(call) = machine.failed_call() else {
            break;
        };
        if outcome.is_err() {
            undo(&machine).unwrap_or_else(|error| panic!("{call}: {error:#}\n{}", machine.log()));
        }
        assert_as_before(&machine, &before, &call);
    }
}

#[test]
fn a_new_system_that_was_kept_and_files_of_the_customer_are_not_cancelled() {
    let dir = scratch();
    let machine = roomy();
    run(&machine, &make_bundle(dir.path(), "9.4.1")).unwrap();
    let hers = machine.at("/devices/VA-vg0-data/hers");
    fs::write(&hers, "precious").unwrap();
    let error = undo(&machine).unwrap_err();
    assert_eq!(class_of(&error), Class::Refused, "{error:#}");
    assert!(format!("{error:#}").contains("hers"), "{error:#}");
    assert!(hers.exists());
    fs::remove_file(hers).unwrap();

    run_from(&machine, "back", 30);
    machine.write(
        "/proc/cmdline",
        "root=/dev/mapper/vg0-back ro va.slot=back va.why=trial va.left=2\n",
    );
    see(&machine, |appliance| confirm(appliance, &appliance.lock()?)).unwrap();
    assert_eq!(state(&machine).unwrap().committed(), Slot::Back);
    run_from(&machine, "root", 10);
    let error = undo(&machine).unwrap_err();
    assert_eq!(class_of(&error), Class::Refused, "{error:#}");
    assert!(
        format!("{error:#}").contains("was started and kept"),
        "{error:#}"
    );
}

/// Undoes the mounts, as the loss of power does.
fn lose_mounts(machine: &Machine) {
    for point in machine.mounts().into_iter().rev() {
        let _ = machine.unmount(&point);
    }
}
