//! What a new slot takes over from the old system, on the fake machine.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use va_upgrade::appliance::Appliance;
use va_upgrade::appliance::machine::Machine as Look;
use va_upgrade::progress::{Recorder, Silent};
use va_upgrade::report::Verdict;
use va_upgrade::upgrade::apply::{Input, Options, apply};
use va_upgrade::upgrade::preflight;

use crate::apply::run;
use crate::machine::{Machine, scratch};
use crate::release::make_bundle;

/// Applies a bundle; returns what was told in lines of their own.
pub fn notes_of_apply(machine: &Machine, bundle: &Path) -> Vec<String> {
    let recorder = Recorder::new(&Silent);
    machine.with_appliance(|appliance| {
        let appliance = Appliance {
            progress: &recorder,
            ..*appliance
        };
        let options = Options {
            input: Input::File(bundle.to_owned()),
            allow_unsigned: true,
            allow_downgrade: false,
            dry_run: false,
            stage: false,
            threads: 1,
        };
        apply(&appliance, options).unwrap();
    });
    recorder
        .into_notes()
        .iter()
        .map(ToString::to_string)
        .collect()
}

/// Makes udev's link `link` lead to the volume `volume` of the group VA.
fn link_to_volume(machine: &Machine, link: &str, node: &str, volume: &str) {
    machine.write(&format!("/dev/{node}"), "");
    let name = format!("/sys/class/block/{node}/dm/name");
    machine.write(&name, &format!("{volume}\n"));
    let link = machine.at(link);
    fs::create_dir_all(link.parent().unwrap()).unwrap();
    symlink(machine.at(&format!("/dev/{node}")), link).unwrap();
}

#[test]
fn the_appliances_own_volumes_stay_required_however_they_are_spelled() {
    let dir = scratch();
    let machine = Machine::fresh();
    link_to_volume(&machine, "/dev/disk/by-uuid/d-1", "dm-2", "VA-data");
    link_to_volume(
        &machine,
        "/dev/disk/by-label/my\\x20images",
        "dm-3",
        "VA-image",
    );
    link_to_volume(&machine, "/dev/disk/by-uuid/o-1", "dm-4", "VA--old-data");
    machine.write(
        "/etc/fstab",
        "/dev/mapper/VA-root / ext4 defaults 0 1\nUUID=d-1 /data ext4 defaults 0 2\n\
         LABEL=my\\040images /image ext4 defaults 0 2\nUUID=o-1 /srv ext4 defaults 0 2\n\
         UUID=gone /mnt ext4 defaults 0 2\n",
    );
    run(&machine, &make_bundle(dir.path(), "9.4.1")).unwrap();
    let optional = "defaults,nofail,x-systemd.before=local-fs.target";
    assert!(
        machine
            .read("/devices/VA-back/etc/fstab")
            .ends_with(&format!(
                "UUID=d-1 /data ext4 defaults 0 2\nLABEL=my\\040images /image ext4 defaults 0 2\n\
             UUID=o-1 /srv ext4 {optional} 0 2\nUUID=gone /mnt ext4 {optional} 0 2\n"
            )),
        "{}",
        machine.read("/devices/VA-back/etc/fstab")
    );
}

#[test]
fn a_line_of_fstab_that_is_left_out_is_named_before_and_while_it_is() {
    let dir = scratch();
    let machine = Machine::fresh();
    let bundle = make_bundle(dir.path(), "9.4.1");
    let checked = || {
        machine.with_appliance(|appliance| {
            let look = Look::look(appliance).unwrap();
            let checks = preflight::check(appliance, &look, None).0.checks;
            let warned = checks.into_iter().filter(|c| c.verdict == Verdict::Warn);
            warned.map(|check| check.message()).collect::<Vec<_>>()
        })
    };
    assert!(checked().is_empty());
    let line = "/dev/sdb1 /opt ext4 defaults 0 2";
    machine.write(
        "/etc/fstab",
        &format!("/dev/mapper/VA-root / ext4 defaults 0 1\n{line}\n"),
    );
    assert_eq!(
        checked(),
        [format!(
            "not mounted in the new system, which brings what is there: {line}"
        )]
    );
    let notes = notes_of_apply(&machine, &bundle);
    assert_eq!(notes, [format!("left out of the new fstab: {line}")]);
}

#[test]
fn words_of_a_repair_end_with_the_boot_they_were_typed_for() {
    let dir = scratch();
    let bundle = make_bundle(dir.path(), "9.4.1");
    let typed = "single 1 systemd.unit=rescue.target init=/bin/bash";
    for (configured, own_words) in [
        ("linux /vmlinuz ro single init=/sbin/own", ""),
        ("linux /vmlinuz ro init=/bin/bash", " init=/bin/bash"),
    ] {
        let machine = Machine::fresh();
        machine.write("/boot/grub/grub.cfg", configured);
        let line = format!("root=/dev/mapper/VA-root ro {typed} systemd.unit=own.target\n");
        machine.write("/proc/cmdline", &line);
        run(&machine, &bundle).unwrap();
        let own = machine.read("/boot/va/root/entry.cfg");
        let args = format!(" ro{own_words} systemd.unit=own.target va.slot=root");
        assert!(own.contains(&args), "{own}");
        let new = machine.read("/boot/va/back/entry.cfg");
        let args = "rd.lvm.lv=VA/back ro systemd.unit=own.target va.slot=back";
        assert!(new.contains(args), "{new}");
    }
}

#[test]
fn the_image_says_what_its_kernel_needs_and_how_much_memory_kdump_gets() {
    let dir = scratch();
    let grub = dir.path().join("tree-9.4.1/etc/default/grub");
    fs::create_dir_all(grub.parent().unwrap()).unwrap();
    fs::write(
        grub,
        "GRUB_CMDLINE_LINUX=\"crashkernel=512M quiet audit=1 root=x\"\n",
    )
    .unwrap();
    let machine = Machine::fresh();
    machine.write(
        "/proc/cmdline",
        "root=/dev/mapper/VA-root ro crashkernel=auto quiet\n",
    );
    let notes = notes_of_apply(&machine, &make_bundle(dir.path(), "9.4.1"));
    let note = "crashkernel=auto becomes crashkernel=512M; kernel 6.1.0-2 does not know auto";
    assert_eq!(
        notes,
        [note, "kernel arguments of the new release: audit=1"]
    );
    let own = machine.read("/boot/va/root/entry.cfg");
    assert!(own.contains(" ro crashkernel=auto quiet va.slot"), "{own}");
    let new = machine.read("/boot/va/back/entry.cfg");
    let args = " ro crashkernel=512M quiet audit=1 va.slot";
    assert!(new.contains(args), "{new}");
}

#[test]
fn a_file_that_is_mounted_over_a_file_needs_no_directory() {
    let dir = scratch();
    let machine = Machine::fresh();
    machine.write("/data/own/app.conf", "the customer's");
    machine.write(
        "/etc/fstab",
        "/dev/mapper/VA-root / ext4 defaults 0 1\n\
         /data/own/app.conf /etc/os-release none bind 0 0\n\
         /data/own/app.conf /etc/app.conf none bind 0 0\n\
         /data/own /srv/own none bind 0 0\n",
    );
    run(&machine, &make_bundle(dir.path(), "9.4.1")).unwrap();
    let slot = machine.at("/devices/VA-back");
    assert!(slot.join("etc/os-release").metadata().unwrap().len() > 0);
    assert!(slot.join("etc/app.conf").is_file() && slot.join("srv/own").is_dir());
}

#[test]
fn the_images_own_boot_configuration_names_the_slot_it_is_in() {
    let dir = scratch();
    let tree = dir.path().join("tree-9.4.1");
    let put = |path: &str, text: &str| {
        fs::create_dir_all(tree.join(path).parent().unwrap()).unwrap();
        fs::write(tree.join(path), text).unwrap();
    };
    put(
        "etc/default/grub",
        "GRUB_CMDLINE_LINUX=\"rd.lvm.lv=VA/root rd.lvm.lv=VA/swap quiet\"\n",
    );
    put("etc/kernel/cmdline", "root=/dev/mapper/VA-root ro quiet\n");
    let machine = Machine::fresh();
    run(&machine, &make_bundle(dir.path(), "9.4.1")).unwrap();
    let slot = "/devices/VA-back/etc";
    assert_eq!(
        machine.read(&format!("{slot}/default/grub")),
        "GRUB_CMDLINE_LINUX=\"rd.lvm.lv=VA/back rd.lvm.lv=VA/swap quiet\"\n"
    );
    assert_eq!(
        machine.read(&format!("{slot}/kernel/cmdline")),
        "root=/dev/mapper/VA-back ro quiet\n"
    );
}
