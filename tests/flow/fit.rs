//! Systems that do not fit the machine they were unpacked on.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use va_upgrade::failure::{Class, class_of};

use crate::apply::run;
use crate::machine::{Machine, scratch};
use crate::release::make_bundle;

const VIRTIO_DISK: &str = "virtio:d00000002v00001AF4";

/// Gives the machine a device at `place` below `/sys/devices`, which `link` leads to.
fn add_device(machine: &Machine, place: &str, modalias: &str, driver: &str, link: &str) {
    let dir = format!("/sys/devices/{place}");
    machine.write(&format!("{dir}/modalias"), &format!("{modalias}\n"));
    let drivers = machine.at(&format!("/sys/bus/drivers/{driver}"));
    fs::create_dir_all(&drivers).unwrap();
    symlink(drivers, machine.at(&format!("{dir}/driver"))).unwrap();
    let link = machine.at(link);
    fs::create_dir_all(link.parent().unwrap()).unwrap();
    let _ = fs::remove_dir_all(&link);
    symlink(machine.at(&dir), link).unwrap();
}

/// A machine whose disk hangs on a virtio device.
fn machine_with_disk() -> Machine {
    let machine = Machine::fresh();
    let link = "/sys/class/block/vda/device";
    add_device(&machine, "pci0/virtio1", VIRTIO_DISK, "virtio_blk", link);
    machine
}

/// A bundle whose tree has these files besides.
fn bundle_with(dir: &Path, files: &[(&str, &str)]) -> PathBuf {
    for (path, text) in files {
        let path = dir.join("tree-9.4.1").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    make_bundle(dir, "9.4.1")
}

const ALIASES: (&str, &str) = (
    "usr/lib/modules/6.1.0-2/modules.alias",
    "alias virtio:d00000002v* virtio_blk\nalias virtio:d00000001v* virtio_net\n",
);
const LISTER: (&str, &str) = ("usr/bin/lsinitramfs", "");
const LOADER: (&str, &str) = ("usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2", "");

/// Applies; the upgrade must be refused before anything is written, and say `words`.
fn refused(machine: &Machine, bundle: &Path, words: &str) {
    fails(machine, bundle, Class::Refused, words);
    assert!(!machine.log().contains("mkfs.ext4 -q"), "{}", machine.log());
}

/// Applies; the upgrade must be undone, and say `words`.
fn undone(machine: &Machine, bundle: &Path, words: &str) {
    fails(machine, bundle, Class::Undone, words);
}

fn fails(machine: &Machine, bundle: &Path, class: Class, words: &str) {
    let error = run(machine, bundle).err().expect("applied all the same");
    assert_eq!(class_of(&error), class, "{error:#}");
    let text = format!("{error:#}");
    assert!(text.contains(words), "{text}");
    assert!(!machine.at("/boot/va").exists());
}

#[test]
fn a_disk_controller_without_a_driver_in_kernel_or_initramfs_is_refused() {
    let dir = scratch();
    let bundle = bundle_with(dir.path(), &[LISTER]);
    refused(
        &machine_with_disk(),
        &bundle,
        "no driver for the disk controller",
    );

    let dir = scratch();
    let bundle = bundle_with(dir.path(), &[LISTER, ALIASES]);
    let machine = machine_with_disk();
    machine.answer("initramfs", "usr/lib/modules/6.1.0-2/kernel/fs/ext4.ko\n");
    undone(
        &machine,
        &bundle,
        "initramfs of kernel 6.1.0-2 has no driver",
    );
    machine.answer(
        "initramfs",
        "usr/lib/modules/6.1.0-2/kernel/virtio_blk.ko.xz\n",
    );
    run(&machine, &bundle).unwrap();
}

#[test]
fn a_network_card_without_a_driver_is_refused_only_while_it_is_in_use() {
    let dir = scratch();
    let bundle = bundle_with(dir.path(), &[ALIASES]);
    let machine = Machine::fresh();
    let link = "/sys/class/net/eth0/device";
    add_device(
        &machine,
        "pci0/virtio0",
        "pci:v00008086d0000100E",
        "e1000",
        link,
    );
    run(&machine, &bundle).unwrap();

    let machine = Machine::fresh();
    add_device(
        &machine,
        "pci0/virtio0",
        "pci:v00008086d0000100E",
        "e1000",
        link,
    );
    machine.write("/sys/class/net/eth0/operstate", "up\n");
    refused(&machine, &bundle, "no driver for network card eth0");
}

#[test]
fn a_loader_that_does_not_run_here_stops_the_upgrade() {
    let dir = scratch();
    let bundle = bundle_with(dir.path(), &[LOADER]);
    let machine = Machine::fresh();
    machine.answer("loader", "  x86-64-v3\n  x86-64-v2 (supported, searched)\n");
    run(&machine, &bundle).unwrap();
    for (answer, words) in [
        ("  x86-64-v3\n  x86-64-v2\n", "finds no x86-64-v2 here"),
        (
            "Fatal glibc error: CPU does not support x86-64-v2",
            "do not run on this processor",
        ),
    ] {
        let machine = Machine::fresh();
        machine.answer("loader", answer);
        refused(&machine, &bundle, words);
    }
}

#[test]
fn a_kernel_without_its_sum_does_not_replace_one_in_fips_mode() {
    let dir = scratch();
    let machine = Machine::fresh();
    machine.write("/proc/cmdline", "root=/dev/mapper/VA-root ro fips=1\n");
    let bundle = bundle_with(dir.path(), &[]);
    undone(&machine, &bundle, "boot/.vmlinuz-6.1.0-2.hmac");
    let dir = scratch();
    let bundle = bundle_with(dir.path(), &[("boot/.vmlinuz-6.1.0-2.hmac", "0 x\n")]);
    run(&machine, &bundle).unwrap();
}
