//! Preparing a move in memory on the old system, and taking it back.

use std::fs;
use std::path::Path;

use anyhow::bail;
use va_upgrade::failure::{Class, class_of};
use va_upgrade::migrate::in_ram;
use va_upgrade::migrate::order::{Mode, Order};
use va_upgrade::sha::Sha;

use crate::single_root::{SingleRoot, Spoil, UUID, settings};

const DIR: &str = "/boot/grub/va-migrate";

fn cancel(machine: &SingleRoot) -> bool {
    machine.with_appliance(in_ram::cancel).unwrap()
}

#[test]
fn everything_that_the_environment_needs_is_where_grub_and_it_find_it() {
    let machine = SingleRoot::new();
    let prepared = machine.prepare(Mode::Rehearse).unwrap();
    assert_eq!(prepared.version, "9.4.1");
    let order = Order::load(&machine.at(&format!("{DIR}/order.json"))).unwrap();
    assert_eq!(order.bundle.file_system, UUID);
    assert_eq!(order.disk.id, "deadbeef");
    let collected = fs::read(machine.at("/root/new.vab.settings")).unwrap();
    assert_eq!(collected, settings());
    assert_eq!(machine.read(&format!("{DIR}/vmlinuz")), "new kernel");
    let initramfs = machine.read(&format!("{DIR}/initramfs.img"));
    assert!(
        initramfs.starts_with("environment\x00070701"),
        "{initramfs}"
    );
    assert!(initramfs.contains("etc/va-upgrade/trusted.d/key.pem"));
    assert!(initramfs.contains("product: acme"));
    assert!(
        machine
            .read(&format!("{DIR}/env"))
            .contains("va_migrate=armed\n")
    );
    let custom = machine.read("/boot/grub/custom.cfg");
    let words = format!("va.migrate={UUID}:{DIR}; then");
    assert!(
        custom.contains(&words) && custom.contains("console=ttyS0"),
        "{custom}"
    );
    assert!(!custom.contains("quiet"));
}

#[test]
fn cancelling_leaves_every_file_as_it_was() {
    for config in [
        include_str!("../data/grub-debian-11.cfg"),
        include_str!("../data/grub-centos-7.cfg"),
        include_str!("../data/grub-rocky-9.cfg"),
        "set default=0\n# made by hand, without a last line feed",
    ] {
        let machine = SingleRoot::new();
        machine.write("/boot/grub/grub.cfg", config);
        let before = machine.snapshot();
        assert!(!cancel(&machine));
        machine.prepare(Mode::Migrate).unwrap();
        assert_ne!(machine.snapshot(), before);
        // Preparing again begins anew.
        machine.prepare(Mode::Rehearse).unwrap();
        assert!(cancel(&machine));
        assert_eq!(machine.snapshot(), before);
        assert!(!cancel(&machine));
    }
}

#[test]
fn a_failure_at_any_call_leaves_every_file_as_it_was() {
    for call in 0.. {
        let machine = SingleRoot::new();
        let before = machine.snapshot();
        machine.fail_at(call);
        let Err(error) = machine.prepare(Mode::Rehearse) else {
            assert!(call > 5, "calls were made to fail");
            break;
        };
        // What fails while it is undone is no more than a flush.
        if class_of(&error) != Class::Stuck {
            assert_eq!(machine.snapshot(), before, "call {call}: {error:#}");
        }
    }
}

#[test]
fn what_cannot_end_well_is_refused_and_nothing_is_written() {
    let refusals: [(Spoil, &str); 9] = [
        (|it| it.write("/sys/firmware/efi/x", ""), "UEFI"),
        (
            |it| it.write("/proc/meminfo", "MemTotal: 200000 kB\n"),
            "195 MiB",
        ),
        (|it| it.make_bundle(false), "--environment"),
        (
            |it| {
                it.write(
                    "/proc/self/mountinfo",
                    "1 0 8:1 / / rw - btrfs /dev/sda1 rw\n",
                )
            },
            "btrfs",
        ),
        (
            |it| it.write("/sys/devices/sda/sda1/dm/name", "x"),
            "mapped device",
        ),
        (
            |it| fs::remove_file(it.at("/boot/grub/grub.cfg")).unwrap(),
            "GRUB",
        ),
        (
            |it| {
                it.write("/boot/grub2/grub.cfg", "");
                it.write("/boot/grub2/i386-pc/normal.mod", "");
            },
            "each hold a GRUB",
        ),
        (
            |it| it.write("/root/new.vab.settings", "the customer's"),
            "is there already",
        ),
        (
            |it| {
                it.write(
                    "/proc/self/mountinfo",
                    "1 0 8:1 / / ro - ext4 /dev/sda1 ro\n",
                )
            },
            "read-only",
        ),
    ];
    for (spoil, word) in refusals {
        let machine = SingleRoot::new();
        spoil(&machine);
        let before = machine.snapshot();
        let error = machine.prepare(Mode::Rehearse).err().unwrap();
        assert!(format!("{error:#}").contains(word), "{word}: {error:#}");
        assert_eq!(class_of(&error), Class::Refused, "{error:#}");
        assert_eq!(machine.snapshot(), before, "{word}");
    }
}

#[test]
fn a_bundle_that_is_damaged_or_unknown_is_refused() {
    for spoil in ["damage", "distrust"] {
        let machine = SingleRoot::new();
        match spoil {
            "damage" => {
                let path = machine.at("/root/new.vab");
                let mut bytes = fs::read(&path).unwrap();
                let at = bytes.len() - 2000;
                bytes[at] ^= 1;
                fs::write(&path, bytes).unwrap();
            }
            _ => fs::remove_file(machine.at("/etc/va-upgrade/trusted.d/key.pem")).unwrap(),
        }
        let before = machine.snapshot();
        let error = machine.prepare(Mode::Rehearse).err().unwrap();
        assert_eq!(class_of(&error), Class::BadBundle, "{spoil}: {error:#}");
        assert_eq!(machine.snapshot(), before);
    }
}

#[test]
fn only_looking_tells_what_it_would_be_and_leaves_nothing() {
    let machine = SingleRoot::new();
    let before = machine.snapshot();
    let prospect = machine.check().unwrap();
    assert_eq!(prospect.version, "9.4.1");
    assert_eq!(prospect.settings_bytes, settings().len() as u64);
    assert_eq!(machine.snapshot(), before);
}

#[test]
fn what_was_set_before_the_restart_comes_over_too() {
    let machine = SingleRoot::new();
    let before = machine.snapshot();
    let again = |content: &'static str| {
        machine.with_appliance(|appliance| {
            in_ram::collect_once_more(appliance, &|_, to, left_out| {
                assert_eq!(left_out[0], Path::new("/root/new.vab"));
                Ok(fs::write(to, content)?)
            })
        })
    };
    assert!(!again("of nobody").unwrap());
    machine.prepare(Mode::Migrate).unwrap();
    let unit = machine.read("/run/systemd/system/va-upgrade-settings.service");
    assert!(unit.contains("/usr/sbin/va-upgrade boot --collect-settings"));
    // The system may be told to go down twice.
    for content in ["changed", "changed again"] {
        assert!(again(content).unwrap());
        let order = Order::load(&machine.at(&format!("{DIR}/order.json"))).unwrap();
        let path = order.settings.path.to_str().unwrap().to_owned();
        assert_eq!(machine.read(&path), content);
        assert_eq!(order.settings.sha256, Sha::of(content.as_bytes()));
        assert_eq!(order.settings.size_bytes, content.len() as u64);
    }
    assert!(cancel(&machine));
    assert_eq!(machine.snapshot(), before);
    assert!(
        !machine
            .at("/run/systemd/system/va-upgrade-settings.service")
            .exists()
    );
}

#[test]
fn settings_that_cannot_be_collected_when_the_system_goes_down_take_the_move_back() {
    let machine = SingleRoot::new();
    machine.prepare(Mode::Migrate).unwrap();
    let error = machine
        .with_appliance(|appliance| {
            in_ram::collect_once_more(appliance, &|_, _, _| bail!("the disk is full"))
        })
        .unwrap_err();
    assert!(format!("{error:#}").contains("taken back"), "{error:#}");
    assert!(!machine.at("/boot/grub/custom.cfg").exists());
    let last = machine.with_appliance(in_ram::last).unwrap().unwrap();
    assert!(last.to_string().contains("the disk is full"), "{last}");
}
