//! `apply` on the fake machine.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::Result;
use va_upgrade::boot::state::{Phase, State};
use va_upgrade::failure::{Class, class_of};
use va_upgrade::slot::Slot;
use va_upgrade::upgrade::apply::{Applied, Input, Options, apply};

use crate::boots;
use crate::machine::{Fault, Machine, scratch};
use crate::release::make_bundle;

pub fn run(machine: &Machine, bundle: &Path) -> Result<Applied> {
    machine.with_appliance(|appliance| apply(appliance, options(bundle)))
}

pub fn options(bundle: &Path) -> Options {
    Options {
        input: Input::File(bundle.to_owned()),
        allow_unsigned: true,
        allow_downgrade: false,
        dry_run: false,
        stage: false,
        threads: 1,
    }
}

pub fn state(machine: &Machine) -> Option<State> {
    State::load(&machine.at("/boot/va")).unwrap()
}

/// An appliance on which 9.4.1 in slot `back` is on trial.
pub fn armed(bundles: &Path) -> Machine {
    let machine = Machine::fresh();
    run(&machine, &make_bundle(bundles, "9.4.1")).unwrap();
    machine
}

#[test]
fn the_first_apply_adopts_the_running_system_and_puts_the_other_slot_on_trial() {
    let dir = scratch();
    let machine = armed(dir.path());
    let state = state(&machine).unwrap();
    assert_eq!(state.committed(), Slot::Root);
    assert_eq!(state.phase(Slot::Back), Phase::Trial);
    assert_eq!(state.trial().unwrap().tries_left, 3);
    assert_eq!(machine.read("/boot/va/root/vmlinuz-5.10.0-1"), "old kernel");
    assert!(
        machine
            .read("/boot/va/root/entry.cfg")
            .contains("vmlinuz-5.10.0-1 root=/dev/mapper/VA-root ro console=ttyS0 va.slot=root")
    );
    let entry = machine.read("/boot/va/back/entry.cfg");
    assert!(
        entry.contains(
            "vmlinuz-6.1.0-2 root=/dev/mapper/VA-back rd.lvm.lv=VA/back ro console=ttyS0 va.slot=back"
        ),
        "{entry}"
    );
    assert!(
        machine
            .read("/boot/va/grub-1/grub/grub.cfg")
            .contains("set va_slot=root\n")
    );
    assert!(machine.mounts().is_empty());
    let slot = "/devices/VA-back";
    assert!(
        machine
            .read(&format!("{slot}/etc/fstab"))
            .contains("/dev/mapper/VA-back / ext4")
    );
    assert_eq!(
        machine.read(&format!("{slot}/etc/va-upgrade/release.yaml")),
        "product: acme\nversion: 9.4.1\n"
    );
    assert_eq!(
        machine.read(&format!("{slot}/etc/va-upgrade/config.yaml")),
        "product: acme\n"
    );
    // The running system too, for when it starts again after a failed trial.
    for root in [slot, ""] {
        let program = machine.read(&format!("{root}/usr/sbin/va-upgrade"));
        assert_eq!(program, "the program");
        for unit in [
            "multi-user.target.wants/va-upgrade-boot.service",
            "sysinit.target.wants/va-upgrade-deadline.service",
            "sysinit.target.wants/va-upgrade-cards.service",
        ] {
            let link = machine.at(&format!("{root}/etc/systemd/system/{unit}"));
            assert!(link.is_symlink(), "{root} {unit}");
        }
    }
    assert!(!machine.at(&format!("{slot}/.va-upgrade-saved")).exists());
    // The installer's own menu is untouched.
    assert_eq!(machine.read("/boot/grub/grub.cfg"), "menu of the installer");
}

#[test]
fn a_kernel_keeps_its_name_its_sum_and_an_initramfs_its_mode() {
    let dir = scratch();
    let machine = Machine::fresh();
    machine.write(
        "/boot/.vmlinuz-5.10.0-1.hmac",
        "abc123  /boot/vmlinuz-5.10.0-1\n",
    );
    let initramfs = machine.at("/boot/initrd.img-5.10.0-1");
    fs::set_permissions(&initramfs, Permissions::from_mode(0o600)).unwrap();
    machine.write(
        "/boot/va/root/vmlinuz-4.19.0-1",
        "of an adoption that was cut off",
    );
    machine.write("/boot/va/root/stray/file", "");
    run(&machine, &make_bundle(dir.path(), "9.4.1")).unwrap();
    assert_eq!(
        machine.read("/boot/va/root/.vmlinuz-5.10.0-1.hmac"),
        "abc123  /boot/va/root/vmlinuz-5.10.0-1\n"
    );
    assert!(machine.read("/boot/va/root/slot.yaml").contains(".hmac"));
    for stray in ["vmlinuz-4.19.0-1", "stray"] {
        assert!(!machine.at(&format!("/boot/va/root/{stray}")).exists());
    }
    assert!(machine.at("/boot/va/back/vmlinuz-6.1.0-2").exists());
    assert!(!machine.at("/boot/va/back/.vmlinuz-6.1.0-2.hmac").exists());
    let copied = machine.at("/boot/va/root/initrd").metadata().unwrap();
    assert_eq!(copied.permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_failure_at_any_step_of_the_first_apply_puts_everything_back() {
    let dir = scratch();
    let bundle = make_bundle(dir.path(), "9.4.1");
    for fault in Fault::ALL {
        fail_everywhere_in_the_first_apply(fault, &bundle);
    }
}

/// Fails unless all is as before, or a whole system is on trial.
fn fail_everywhere_in_the_first_apply(fault: Fault, bundle: &Path) {
    for step in 0.. {
        let machine = Machine::fresh();
        let (boot, area) = (machine.snapshot("/boot"), machine.boot_area());
        machine.fail_at(step, fault);
        let outcome = run(&machine, bundle);
        assert!(machine.mounts().is_empty(), "step {step} left a mount");
        let Err(error) = outcome else {
            match machine.failed_call() {
                // Asking the target for its version may fail: it has none. Many a
                // gateway answers no ping, but for its hardware address. Whether the
                // clock is synchronized nobody may know.
                Some(call) if fault != Fault::Lies => {
                    let may_fail = call.contains("--version")
                        || ["busctl ", "ping "].iter().any(|it| call.starts_with(it));
                    assert!(may_fail, "{call} failed unnoticed");
                }
                Some(call) => assert_trial_is_whole(&machine, Slot::Back, &call),
                None => break,
            }
            continue;
        };
        let class = class_of(&error);
        let arming = state(&machine).is_some_and(|state| state.trial().is_some());
        let formatted = machine.log().contains("mkfs.ext4 -q");
        assert!(
            !formatted || class == Class::Undone,
            "step {step} ended with {class:?}: {error:#}"
        );
        if class == Class::Undone || class == Class::Refused || class == Class::Unexpected {
            assert!(!arming, "step {step}: {error:#}");
            assert_eq!(
                machine.boot_area(),
                area,
                "step {step} changed the boot area: {error:#}"
            );
            assert!(
                machine.snapshot("/boot") == boot,
                "step {step} changed /boot: {error:#}"
            );
        } else {
            panic!("step {step} ended with {class:?}: {error:#}");
        }
    }
}

/// Looks at what a trial starts from, after the program of `call` has lied.
pub fn assert_trial_is_whole(machine: &Machine, trial: Slot, call: &str) {
    let next = state(machine).map(|state| state.next());
    assert_eq!(next, Some(trial), "{call}");
    for slot in Slot::ALL {
        assert_eq!(boots::slot_fault(machine, slot), None, "{call}");
    }
    assert_eq!(boots::fault(machine), None, "{call}");
    let tree = machine.at(&format!("/devices/VA-{trial}"));
    assert!(!tree.join("of-the-old-system").exists(), "{call}");
    for path in [
        "etc/os-release",
        "usr/lib/systemd/systemd",
        "etc/va-upgrade/config.yaml",
    ] {
        assert!(tree.join(path).is_file(), "{call}: {path}");
    }
}

#[test]
fn a_failure_at_any_step_of_a_later_apply_keeps_the_running_slot_and_its_grub() {
    let dir = scratch();
    let bundles = ["9.4.1", "9.4.2"].map(|version| make_bundle(dir.path(), version));
    for fault in Fault::ALL {
        fail_everywhere_in_a_later_apply(fault, &bundles);
    }
}

fn fail_everywhere_in_a_later_apply(fault: Fault, [first, bundle]: &[PathBuf; 2]) {
    for step in 0.. {
        let machine = Machine::fresh();
        run(&machine, first).unwrap();
        machine.boot("back", "trial");
        machine.confirm().unwrap();
        machine.boot("back", "commit");
        machine.write("/devices/VA-root/of-the-old-system", "");
        let (running, grub) = (
            machine.snapshot("/boot/va/back"),
            machine.snapshot("/boot/va/grub-1"),
        );
        let area = machine.boot_area();
        machine.fail_at(step, fault);
        let outcome = run(&machine, bundle);
        assert!(machine.mounts().is_empty(), "step {step} left a mount");
        let after = state(&machine).unwrap();
        assert_eq!(after.committed(), Slot::Back, "step {step}");
        assert!(
            machine.snapshot("/boot/va/back") == running,
            "step {step} changed the running slot's boot files"
        );
        let Err(error) = outcome else {
            let failed = machine.failed_call();
            assert_trial_is_whole(&machine, Slot::Root, failed.as_deref().unwrap_or_default());
            if failed.is_none() {
                break;
            }
            continue;
        };
        assert_eq!(after.next(), Slot::Back, "step {step}: {error:#}");
        let is_kept = machine.at("/boot/va/root/slot.yaml").exists();
        let phase = if is_kept { Phase::Good } else { Phase::Empty };
        assert_eq!(after.phase(Slot::Root), phase, "step {step}: {error:#}");
        let is_formatted = machine.log().matches("mkfs.ext4 -q").count() == 2;
        assert!(!(is_kept && is_formatted), "step {step}: {error:#}");
        assert_eq!(machine.boot_area(), area, "step {step}: {error:#}");
        assert!(
            machine.snapshot("/boot/va/grub-1") == grub,
            "step {step} changed the GRUB in use"
        );
        // And the next try succeeds.
        run(&machine, bundle).unwrap();
    }
}

#[test]
fn a_refused_upgrade_has_changed_nothing() {
    let dir = scratch();
    let bundle = make_bundle(dir.path(), "9.4.1");
    type Setup = fn(&Machine);
    let cases: [(&str, Class, Setup); 12] = [
        ("lacks popcnt, sse4_1", Class::Refused, |m| {
            m.write("/proc/cpuinfo", "processor : 0\nflags : cx16 lahf_lm pni ssse3 sse4_2 fpu cx8 cmov mmx fxsr sse sse2 syscall\n");
        }),
        (
            "for product \"acme\"; needed: one for \"other\"",
            Class::BadBundle,
            |m| {
                m.write("/etc/va-upgrade/config.yaml", "product: other\n");
            },
        ),
        ("/dev/VA/back has 4 MiB; needed: ", Class::Refused, |m| {
            m.answer("lvs", "  root|2147483648|linear\n  back|4194304|linear\n")
        }),
        ("is thin", Class::Refused, |m| {
            m.answer("lvs", "  root|2147483648|linear\n  back|2147483648|thin\n")
        }),
        ("no volume /dev/VA/back", Class::Refused, |m| {
            m.answer("lvs", "  root|2147483648|linear\n")
        }),
        ("2 volume groups called VA", Class::Refused, |m| {
            m.answer("vgs", "  VA|a\n  VA|b\n")
        }),
        ("/boot has", Class::Refused, |m| {
            m.answer("stat", "4096 100 100000 90000\n")
        }),
        ("more files", Class::Refused, |m| {
            m.answer("stat", "4096 100000 100000 3\n")
        }),
        ("/boot is not mounted", Class::Refused, |m| {
            m.write(
                "/proc/self/mountinfo",
                "1 0 253:0 / / rw - ext4 /dev/mapper/VA-root rw\n",
            );
        }),
        ("neither from /dev/VA/root", Class::Refused, |m| {
            m.run_from("other", "253:0")
        }),
        ("programs are missing: fsfreeze", Class::Refused, |m| {
            m.answer("missing", "fsfreeze\n")
        }),
        ("vmlinuz-5.10.0-1", Class::Refused, |m| {
            fs::remove_file(m.at("/boot/vmlinuz-5.10.0-1")).unwrap()
        }),
    ];
    for (words, class, setup) in cases {
        let machine = Machine::fresh();
        setup(&machine);
        let (boot, area) = (machine.snapshot("/boot"), machine.boot_area());
        let error = run(&machine, &bundle).err().unwrap();
        let text = format!("{error:#}");
        assert!(text.contains(words), "{words}: {text}");
        assert_eq!(class_of(&error), class, "{text}");
        assert!(
            machine.snapshot("/boot") == boot && machine.boot_area() == area,
            "{words}"
        );
        assert!(!machine.log().contains("mkfs.ext4 -q"), "{words}");
    }
}

#[test]
fn a_system_that_is_not_the_default_is_not_upgraded() {
    let dir = scratch();
    let machine = armed(dir.path());
    machine.boot("back", "trial");
    machine.confirm().unwrap();
    machine.boot("root", "other");
    let boot = machine.snapshot("/boot");
    let error = run(&machine, &dir.path().join("9.4.1.vab")).err().unwrap();
    assert_eq!(class_of(&error), Class::Refused, "{error:#}");
    assert!(machine.snapshot("/boot") == boot);
}

#[test]
fn links_in_a_bundle_never_lead_to_the_running_system() {
    let dir = scratch();
    let tree = dir.path().join("tree-9.4.1");
    let victim = dir.path().join("victim");
    fs::write(&victim, "precious").unwrap();
    fs::create_dir_all(tree.join("etc/va-upgrade")).unwrap();
    for link in [
        "etc/fstab.new",
        "etc/va-upgrade/config.yaml",
        "etc/va-upgrade/release.yaml.new",
    ] {
        std::os::unix::fs::symlink(&victim, tree.join(link)).unwrap();
    }
    std::os::unix::fs::symlink(dir.path(), tree.join(".va-upgrade-saved")).unwrap();
    let machine = Machine::fresh();
    let outcome = run(&machine, &make_bundle(dir.path(), "9.4.1"));
    assert_eq!(class_of(&outcome.err().unwrap()), Class::Undone);
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    assert!(!dir.path().join("grub").exists());
}

#[test]
fn an_unsigned_or_damaged_bundle_is_refused_before_anything() {
    let dir = scratch();
    let bundle = make_bundle(dir.path(), "9.4.1");
    let machine = Machine::fresh();
    let options = Options {
        allow_unsigned: false,
        ..options(&bundle)
    };
    let error = machine
        .with_appliance(|appliance| apply(appliance, options))
        .err()
        .unwrap();
    assert_eq!(class_of(&error), Class::BadBundle);
    let mut bytes = fs::read(&bundle).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&bundle, bytes).unwrap();
    let error = run(&machine, &bundle).err().unwrap();
    assert_eq!(class_of(&error), Class::BadBundle, "{error:#}");
    assert!(!machine.at("/boot/va").exists());
}

#[test]
fn an_older_version_is_refused_unless_it_is_asked_for() {
    let dir = scratch();
    let machine = armed(dir.path());
    machine.boot("back", "trial");
    machine.confirm().unwrap();
    machine.boot("back", "commit");
    machine.write(
        "/etc/va-upgrade/release.yaml",
        "product: acme\nversion: 9.4.1\n",
    );
    let older = make_bundle(dir.path(), "9.4.0~rc1");
    let error = run(&machine, &older).err().unwrap();
    assert_eq!(class_of(&error), Class::Refused, "{error:#}");
    let text = format!("{error:#}");
    assert!(
        text.contains("a downgrade; ") && text.contains("--allow-downgrade takes"),
        "{text}"
    );
    let wanted = Options {
        allow_downgrade: true,
        ..options(&older)
    };
    let applied = machine.with_appliance(|appliance| apply(appliance, wanted));
    assert_eq!(applied.unwrap().version, "9.4.0~rc1");
}

#[test]
fn a_dry_run_changes_nothing() {
    let dir = scratch();
    let machine = Machine::fresh();
    let (boot, area) = (machine.snapshot("/boot"), machine.boot_area());
    let input = Input::File(make_bundle(dir.path(), "9.4.1"));
    let options = Options {
        input,
        allow_unsigned: true,
        allow_downgrade: false,
        dry_run: true,
        stage: false,
        threads: 1,
    };
    let outcome = machine
        .with_appliance(|appliance| apply(appliance, options))
        .unwrap();
    assert_eq!((outcome.slot, outcome.tries), (Slot::Back, 3));
    assert!(outcome.report.ok);
    assert!(machine.snapshot("/boot") == boot && machine.boot_area() == area);
}

#[test]
fn a_first_apply_that_cannot_adopt_is_undone() {
    let dir = scratch();
    let machine = Machine::fresh();
    let bundle = make_bundle(dir.path(), "9.4.1");
    symlink("nowhere/at/all", machine.at("/boot/va")).unwrap();
    let error = run(&machine, &bundle).err().unwrap();
    assert_eq!(class_of(&error), Class::Undone, "{error:#}");
    run(&machine, &bundle).unwrap();
}

#[test]
fn the_history_names_the_step_that_failed() {
    for (words, step) in [
        ("mkfs.ext4 -q", "format"),
        ("blockdev --flushbufs", "read-back"),
        ("grub-install", "grub"),
    ] {
        let dir = scratch();
        let machine = Machine::fresh();
        machine.fail_on(words);
        assert!(run(&machine, &make_bundle(dir.path(), "9.4.1")).is_err());
        let history = machine.read("/data/va-upgrade/history.jsonl");
        let event: serde_json::Value =
            serde_json::from_str(history.lines().last().unwrap()).unwrap();
        assert_eq!(event["step"], step, "{event}");
    }
}

#[test]
fn a_failure_before_the_slot_is_formatted_leaves_the_system_in_it() {
    for (words, is_kept) in [("fsfreeze --freeze", true), ("mkfs.ext4 -q", false)] {
        let dir = scratch();
        let machine = armed(dir.path());
        machine.boot("back", "trial");
        machine.confirm().unwrap();
        machine.boot("back", "commit");
        let (before, files) = (state(&machine), machine.snapshot("/boot/va/root"));
        machine.fail_on(words);
        let error = run(&machine, &make_bundle(dir.path(), "9.4.2"))
            .err()
            .unwrap();
        assert_eq!(class_of(&error), Class::Undone, "{error:#}");
        if is_kept {
            assert_eq!(state(&machine), before);
            assert!(machine.snapshot("/boot/va/root") == files);
        } else {
            assert_eq!(state(&machine).unwrap().phase(Slot::Root), Phase::Empty);
            assert!(!machine.at("/boot/va/root").exists());
        }
    }
}

#[test]
fn a_trial_that_has_not_started_stays_armed_until_its_slot_is_formatted() {
    let dir = scratch();
    let machine = armed(dir.path());
    let before = state(&machine);
    machine.fail_on("fsfreeze --freeze");
    assert!(run(&machine, &make_bundle(dir.path(), "9.4.2")).is_err());
    assert_eq!(state(&machine), before);
}
