//! `grow` on the fake machine.

use std::fs;
use std::os::unix::fs::symlink;

use anyhow::Result;
use va_upgrade::failure::{Class, class_of};
use va_upgrade::grow::{Extent, Grown, Occasion, grow};

use crate::machine::{Fault, Machine};
use crate::volumes::{self, EXTENT};

const MIB: u64 = 1 << 20;

/// An appliance of `vg0` whose disk of 64 MiB was enlarged to 256, with a partition for
/// LVM from 2 MiB on.
fn enlarged() -> Machine {
    let machine = Machine::fresh();
    machine.be_damaged();
    let disk = machine.at("/dev/vda");
    let file = fs::File::create(&disk).unwrap();
    file.set_len(64 * MIB).unwrap();
    let mut table = gpt::GptConfig::new()
        .writable(true)
        .logical_block_size(gpt::disk::LogicalBlockSize::Lb512)
        .create(&disk)
        .unwrap();
    table
        .add_partition("grub", MIB, gpt::partition_types::BIOS, 0, Some(2048))
        .unwrap();
    table
        .add_partition(
            "lvm",
            60 * MIB,
            gpt::partition_types::LINUX_LVM,
            0,
            Some(2048),
        )
        .unwrap();
    table.write().unwrap();
    file.set_len(256 * MIB).unwrap();
    let sectors = (60 * MIB / 512).to_string();
    machine.write("/sys/devices/vda/vda3/size", &sectors);
    machine.write("/sys/devices/vda/vda3/partition", "2\n");
    let _ = symlink(
        machine.at("/sys/devices/vda"),
        machine.at("/sys/class/block/vda"),
    );
    machine.write(
        "/etc/va-upgrade/config.yaml",
        "vg: vg0\ngrow: {data: 50%, root: 40M}\n",
    );
    machine.write("/sys/dev/block/253:0/dm/name", "vg0-root\n");
    volumes::make(&machine, 15, &[("data", 2), ("root", 8)]);
    let data = machine.device_dir(std::path::Path::new("/dev/mapper/vg0-data"));
    fs::create_dir_all(data.join("lost+found")).unwrap();
    let root = machine.device_dir(std::path::Path::new("/dev/mapper/vg0-root"));
    fs::create_dir_all(root.join("lost+found")).unwrap();
    machine
}

fn run(machine: &Machine, occasion: Occasion, extent: Extent) -> Result<Grown> {
    machine.with_appliance(|appliance| grow(appliance, occasion, extent))
}

fn whole(machine: &Machine) -> Result<Grown> {
    run(machine, Occasion::Asked, Extent::Whole)
}

/// What is there after all of it: 253 MiB of partition are 63 extents, 53 of them free:
/// half of these for the data, two for the root.
fn assert_grown(machine: &Machine, what: &str) {
    let sizes = volumes::sizes(machine);
    assert_eq!(sizes[0].0, "data");
    assert!(sizes[0].1 >= 28, "{what}: {sizes:?}");
    assert_eq!(sizes[1], ("root".to_owned(), 10), "{what}");
    assert!(machine.mounts().is_empty(), "{what}");
}

#[test]
fn free_disk_space_goes_to_the_volumes_that_are_named() {
    let machine = enlarged();
    let before = (machine.boot_area(), volumes::sizes(&machine));
    let planned = run(&machine, Occasion::Asked, Extent::DryRun).unwrap();
    assert!((machine.boot_area(), volumes::sizes(&machine)) == before);
    let grown = whole(&machine).unwrap();
    assert_eq!(planned.partition, grown.partition);
    let (_, from, to) = grown.partition.clone().unwrap();
    assert_eq!((from, to), (60 * MIB, 253 * MIB));
    let wanted = [
        ("data".to_owned(), 2 * EXTENT, 28 * EXTENT),
        ("root".to_owned(), 8 * EXTENT, 10 * EXTENT),
    ];
    assert_eq!(grown.volumes, wanted);
    assert_eq!(grown.free_bytes, 25 * EXTENT);
    assert_grown(&machine, "once");
    let log = machine.log();
    // The one that is mounted grows where it is, the other for a moment elsewhere.
    assert!(log.contains("mount /dev/mapper/vg0-data"), "{log}");
    assert!(!log.contains("mount /dev/mapper/vg0-root"), "{log}");
}

#[test]
fn it_can_be_run_again_and_takes_sizes_once() {
    let machine = enlarged();
    machine.write(
        "/etc/va-upgrade/config.yaml",
        "vg: vg0\ngrow: {root: 40M}\n",
    );
    whole(&machine).unwrap();
    let again = whole(&machine).unwrap();
    assert_eq!((again.partition, again.volumes), (None, Vec::new()));
}

#[test]
fn the_first_start_does_it_once() {
    let machine = enlarged();
    run(&machine, Occasion::FirstStart, Extent::Whole).unwrap();
    let calls = machine.log();
    assert!(machine.at("/etc/va-upgrade/grown").exists());
    let again = run(&machine, Occasion::FirstStart, Extent::Whole).unwrap();
    assert_eq!(again, Grown::default());
    assert_eq!(machine.log(), calls);

    let unasked = enlarged();
    unasked.write("/etc/va-upgrade/config.yaml", "vg: vg0\n");
    let before = unasked.boot_area();
    let nothing = run(&unasked, Occasion::FirstStart, Extent::Whole).unwrap();
    assert_eq!(nothing, Grown::default());
    assert!(unasked.boot_area() == before);
}

#[test]
fn a_failure_at_any_step_leaves_what_the_next_run_goes_on_with() {
    for fault in [Fault::Fails, Fault::FailsAfterItsWork] {
        for step in 0.. {
            let machine = enlarged();
            machine.fail_at(step, fault);
            let _ = whole(&machine);
            let Some(call) = machine.failed_call() else {
                break;
            };
            whole(&machine).unwrap_or_else(|error| panic!("{fault:?} {call}: {error:#}"));
            assert_grown(&machine, &format!("{fault:?} {call}"));
        }
    }
}

#[test]
fn a_volume_that_is_not_there_is_refused_before_anything_is_changed() {
    let machine = enlarged();
    machine.write(
        "/etc/va-upgrade/config.yaml",
        "vg: vg0\ngrow: {logs: 50%}\n",
    );
    let before = machine.boot_area();
    let error = whole(&machine).unwrap_err();
    assert_eq!(class_of(&error), Class::Refused, "{error:#}");
    assert!(format!("{error:#}").contains("vg0/logs"), "{error:#}");
    assert!(machine.boot_area() == before);
}
