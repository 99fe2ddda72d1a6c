//! Kernels that packages bring into a committed slot, on the fake machine.

use std::fs;

use anyhow::Result;
use va_upgrade::appliance::machine::Machine as Facts;
use va_upgrade::boot::next;
use va_upgrade::boot::state::Phase;
use va_upgrade::failure::{Class, class_of};
use va_upgrade::slot::Slot;
use va_upgrade::system::Lock;
use va_upgrade::upgrade::deadline;
use va_upgrade::upgrade::kernel_update::{self, Adopted, Change};
use va_upgrade::upgrade::rollback::rollback;
use va_upgrade::upgrade::trial::{Outcome, after_boot};

use crate::apply::{run, state};
use crate::boots;
use crate::machine::{Fault, Machine};
use crate::release::make_bundle;
use crate::trial::{degrade, exhaust, shown, trial_running};

const OLD: &str = "6.1.0-2";
const NEW: &str = "6.1.0-10";

/// A machine that runs 9.4.1 from slot `back`, committed.
fn committed() -> (tempfile::TempDir, Machine) {
    let (dir, machine) = trial_running();
    machine.confirm().unwrap();
    restart(&machine, "commit");
    machine.write("/proc/sys/kernel/osrelease", &format!("{OLD}\n"));
    machine.write(&format!("/lib/modules/{OLD}/modules.dep"), "");
    fs::remove_file(machine.at("/lib/modules/5.10.0-1/modules.dep")).unwrap();
    (dir, machine)
}

/// Starts slot `back` as the menu would; everything in `/run` is gone.
fn restart(machine: &Machine, why: &str) {
    machine.boot("back", why);
    let _ = fs::remove_file(machine.at("/run/va-upgrade.over"));
}

/// Starts what is on trial, as the menu would.
fn start_trial(machine: &Machine) {
    let entry = machine.read("/boot/va/back/next.cfg");
    let mut words = entry.split_whitespace();
    let id = words.find(|word| word.starts_with("va.kernel=")).unwrap();
    restart(machine, "trial");
    let line = machine.read("/proc/cmdline");
    machine.write("/proc/cmdline", &format!("{id} {line}"));
    machine.write("/proc/sys/kernel/osrelease", &format!("{NEW}\n"));
}

/// Puts there what a package of the kernel `release` does.
fn bring(machine: &Machine, release: &str, initramfs: &str) {
    machine.write(&format!("/boot/vmlinuz-{release}"), "package's kernel");
    machine.write(&format!("/boot/initrd.img-{release}"), initramfs);
    let modules = format!("/lib/modules/{release}");
    machine.write(&format!("{modules}/modules.dep"), "kernel/a.ko:\n");
    machine.write(&format!("{modules}/kernel/a.ko"), "");
}

fn adopt(machine: &Machine, change: Change) -> Result<Adopted> {
    machine.with_appliance(|appliance| {
        let facts = Facts::look(appliance)?;
        kernel_update::adopt(appliance, &facts, change, &appliance.lock()?)
    })
}

fn made(release: &str) -> Change<'_> {
    Change {
        release: Some(release),
        is_removal: false,
    }
}

fn removed(release: &str) -> Change<'_> {
    Change {
        release: Some(release),
        is_removal: true,
    }
}

/// A committed machine with the kernel [`NEW`] on trial.
fn on_trial() -> (tempfile::TempDir, Machine) {
    let (dir, machine) = committed();
    bring(&machine, NEW, "package's initramfs");
    let adopted = adopt(&machine, made(NEW)).unwrap();
    assert_eq!(adopted, Adopted::OnTrial(NEW.into()));
    (dir, machine)
}

fn lock(machine: &Machine) -> Lock {
    machine
        .with_appliance(|appliance| appliance.lock())
        .unwrap()
}

/// Lists the kernels on `/boot` that the slot has.
fn kernels(machine: &Machine) -> Vec<String> {
    let files = machine.snapshot("/boot/va/back");
    let names = files.keys().filter_map(|path| path.file_name()?.to_str());
    let mut kernels: Vec<String> = names
        .filter_map(|name| name.strip_prefix("vmlinuz-"))
        .map(str::to_owned)
        .collect();
    kernels.sort();
    kernels
}

fn history(machine: &Machine) -> String {
    machine.read("/data/va-upgrade/history.jsonl")
}

#[test]
fn a_packages_kernel_is_tried_beside_the_old_one_and_kept_once_it_is_healthy() {
    let (_dir, machine) = on_trial();
    assert_eq!(kernels(&machine), [NEW, OLD]);
    let status = shown(&machine);
    assert_eq!(status["slots"][1]["kernel"], OLD);
    assert_eq!(status["slots"][1]["state"], "committed");
    assert_eq!(
        status["kernel_trial"],
        serde_json::json!({"kernel": NEW, "tries_left": 3})
    );
    let entry = machine.read("/boot/va/back/entry.cfg");
    assert!(
        entry.contains(&format!("linux /va/back/vmlinuz-{OLD} ")),
        "{entry}"
    );
    let next = machine.read("/boot/va/back/next.cfg");
    assert!(next.contains(&format!(
        "/vmlinuz-{NEW} root=/dev/mapper/VA-back rd.lvm.lv=VA/back ro"
    )));
    // Nothing has started it, so a person who confirms confirms nothing.
    assert!(!machine.confirm().unwrap());
    assert_eq!(
        machine.with_appliance(after_boot).unwrap(),
        Outcome::Ordinary
    );
    assert!(state(&machine).unwrap().kernel_trial().is_some());

    start_trial(&machine);
    let outcome = machine.with_appliance(after_boot).unwrap();
    assert_eq!(outcome, Outcome::KernelKept(Slot::Back, NEW.into()));
    assert_eq!(kernels(&machine), [NEW]);
    assert_eq!(boots::fault(&machine), None);
    let kept = state(&machine).unwrap();
    assert_eq!((kept.committed(), kept.kernel_trial()), (Slot::Back, None));
    assert_eq!(kept.phase(Slot::Root), Phase::Good);
    assert_eq!(shown(&machine)["slots"][1]["kernel"], NEW);
    let entry = machine.read("/boot/va/back/entry.cfg");
    assert!(entry.contains(&format!("/vmlinuz-{NEW} ")), "{entry}");
    assert!(history(&machine).contains("came up and is the slot's own"));

    // The next package finds all as the first did.
    assert_eq!(adopt(&machine, made(NEW)).unwrap(), Adopted::Nothing);
    bring(&machine, "6.1.0-11", "next initramfs");
    let adopted = adopt(&machine, made("6.1.0-11")).unwrap();
    assert_eq!(adopted, Adopted::OnTrial("6.1.0-11".into()));
    assert_eq!(kernels(&machine), [NEW, "6.1.0-11"]);
    assert!(!machine.confirm().unwrap(), "the boot of the one before");
}

#[test]
fn a_kernel_that_does_not_come_up_leaves_the_old_one_and_is_not_tried_again() {
    let (_dir, machine) = on_trial();
    exhaust(&machine);
    restart(&machine, "exhausted");
    assert_eq!(shown(&machine)["failed"], serde_json::json!(null));
    let outcome = machine.with_appliance(after_boot).unwrap();
    assert_eq!(outcome, Outcome::KernelFailed(Slot::Back, NEW.into()));
    assert_eq!(kernels(&machine), [OLD]);
    assert_eq!(boots::fault(&machine), None);
    assert!(history(&machine).contains("did not come up (exhausted)"));
    let told = shown(&machine)["kernel_drift"].to_string();
    assert!(told.contains("kernel 6.1.0-10 was tried"), "{told}");
    assert_eq!(shown(&machine)["slots"][1]["state"], "committed");

    let error = adopt(&machine, made(NEW)).unwrap_err();
    assert_eq!(class_of(&error), Class::Refused);
    assert_eq!(kernels(&machine), [OLD]);
    restart(&machine, "commit");
    assert_eq!(
        machine.with_appliance(after_boot).unwrap(),
        Outcome::Ordinary
    );
    bring(&machine, NEW, "mended initramfs");
    let adopted = adopt(&machine, made(NEW)).unwrap();
    assert_eq!(adopted, Adopted::OnTrial(NEW.into()));
}

#[test]
fn an_unhealthy_start_of_a_kernel_restarts_and_says_why_on_the_old_one() {
    let (_dir, machine) = on_trial();
    start_trial(&machine);
    degrade(&machine, "broken.service");
    let outcome = machine.with_appliance(after_boot).unwrap();
    assert!(matches!(outcome, Outcome::Restarting(_)), "{outcome:?}");
    assert_eq!(machine.reboots().len(), 1);
    exhaust(&machine);
    restart(&machine, "exhausted");
    machine.with_appliance(after_boot).unwrap();
    assert_eq!(kernels(&machine), [OLD]);
    assert!(history(&machine).contains("did not come up (health)"));
}

#[test]
fn a_unit_that_had_failed_on_the_old_kernel_is_no_reason_to_leave_the_new_one() {
    let (_dir, machine) = committed();
    degrade(&machine, "old.service");
    bring(&machine, NEW, "package's initramfs");
    adopt(&machine, made(NEW)).unwrap();
    start_trial(&machine);
    let outcome = machine.with_appliance(after_boot).unwrap();
    assert_eq!(outcome, Outcome::KernelKept(Slot::Back, NEW.into()));
}

/// Says that the baseline of the kernel on trial is an hour older than this moment,
/// or newer.
fn date_baseline(machine: &Machine, is_older: bool) {
    let hour = std::time::Duration::from_secs(3600);
    let now = std::time::SystemTime::now();
    let time = if is_older { now - hour } else { now + hour };
    let files = machine.snapshot("/boot/va/back");
    let is_it = |path: &&std::path::PathBuf| {
        path.ends_with("failed-units.yaml") && path.to_string_lossy().contains("/k-")
    };
    let path = files.keys().find(is_it).unwrap();
    let file = fs::File::options().append(true).open(path).unwrap();
    file.set_modified(time).unwrap();
}

#[test]
fn what_a_person_changed_since_a_kernel_came_is_no_reason_to_leave_it() {
    let (_dir, machine) = on_trial();
    date_baseline(&machine, true);
    start_trial(&machine);
    machine.answer("ip", "2: eth0    inet 192.0.2.77/24 scope global eth0\n");
    machine.write("/proc/net/route", "Iface\tDestination\tGateway\n");
    machine.write("/etc/systemd/system/new.service", "[Service]\n");
    machine.answer("type", "FragmentPath=/etc/systemd/system/new.service\n");
    degrade(&machine, "new.service");
    let outcome = machine.with_appliance(after_boot).unwrap();
    assert_eq!(outcome, Outcome::KernelKept(Slot::Back, NEW.into()));
}

#[test]
fn a_kernel_under_which_a_card_has_no_address_or_an_old_unit_fails_is_left() {
    let (_dir, machine) = on_trial();
    start_trial(&machine);
    machine.answer("ip", "");
    let outcome = machine.with_appliance(after_boot).unwrap();
    assert!(matches!(&outcome, Outcome::Restarting(why) if why.contains("any address")));

    // Units that are generated at each start are as old as what they come from.
    const GENERATED: &str = "FragmentPath=/run/systemd/generator/old.service\nSourcePath=/etc/it\n";
    for (shown, is_older) in [
        (
            "FragmentPath=/etc/systemd/system/old.service\nDropInPaths=\n",
            false,
        ),
        (GENERATED, true),
        ("FragmentPath=\n", true),
    ] {
        let (_dir, machine) = on_trial();
        machine.write("/etc/systemd/system/old.service", "[Service]\n");
        machine.write("/run/systemd/generator/old.service", "[Service]\n");
        date_baseline(&machine, is_older);
        start_trial(&machine);
        machine.answer("type", shown);
        degrade(&machine, "old.service");
        let outcome = machine.with_appliance(after_boot).unwrap();
        assert!(matches!(outcome, Outcome::Restarting(_)), "{shown}");
    }
}

#[test]
fn a_kernel_whose_count_cannot_be_stored_is_not_tried_and_not_refused_for_that() {
    let (_dir, machine) = on_trial();
    restart(&machine, "nowrite");
    let outcome = machine.with_appliance(after_boot).unwrap();
    assert_eq!(outcome, Outcome::KernelNotTried(Slot::Back, NEW.into()));
    assert_eq!(state(&machine).unwrap().kernel_trial(), None);
    assert_eq!(kernels(&machine), [OLD]);
    assert!(history(&machine).contains("was not started"));
    restart(&machine, "commit");
    machine.with_appliance(after_boot).unwrap();
    let adopted = adopt(&machine, made(NEW)).unwrap();
    assert_eq!(adopted, Adopted::OnTrial(NEW.into()));
}

#[test]
fn a_kernel_that_did_not_come_up_goes_also_where_that_cannot_be_written_down() {
    let (_dir, machine) = on_trial();
    fs::create_dir(machine.at("/boot/va/back/refused.yaml")).unwrap();
    exhaust(&machine);
    restart(&machine, "exhausted");
    let outcome = machine.with_appliance(after_boot).unwrap();
    assert_eq!(outcome, Outcome::KernelFailed(Slot::Back, NEW.into()));
    assert_eq!(kernels(&machine), [OLD]);
    assert_eq!(state(&machine).unwrap().kernel_failed(), None);
}

#[test]
fn whichever_program_goes_wrong_a_kernel_is_adopted_or_not_and_the_slot_boots() {
    for fault in Fault::ALL {
        for step in 0.. {
            let (_dir, machine) = committed();
            bring(&machine, NEW, "package's initramfs");
            machine.fail_at(step, fault);
            let adopted = adopt(&machine, made(NEW));
            let failed = machine.failed_call();
            assert_eq!(boots::fault(&machine), None, "{failed:?}");
            let is_armed = state(&machine).unwrap().kernel_trial().is_some();
            assert_eq!(adopted.is_ok(), is_armed, "{failed:?}: {adopted:?}");
            let kernels = kernels(&machine);
            assert_eq!(kernels.len(), if is_armed { 2 } else { 1 }, "{failed:?}");
            if failed.is_none() {
                break;
            }
        }
    }
}

#[test]
fn whichever_program_goes_wrong_a_healthy_kernel_is_kept_or_its_trial_is_over() {
    for fault in Fault::ALL {
        for step in 0.. {
            let (_dir, machine) = on_trial();
            start_trial(&machine);
            machine.fail_at(step, fault);
            let outcome = machine.with_appliance(after_boot);
            let failed = machine.failed_call();
            assert_eq!(boots::fault(&machine), None, "{failed:?}");
            let is_ended = state(&machine).unwrap().kernel_trial().is_none();
            let is_over = machine.at("/run/va-upgrade.over").exists();
            assert_eq!(is_ended, is_over, "{failed:?}: {outcome:?}");
            let is_kept = matches!(outcome, Ok(Outcome::KernelKept(..)));
            let told = outcome.map_or_else(|error| format!("{error:#}"), |it| format!("{it:?}"));
            let is_left = told.contains("is healthy, but could not be kept");
            assert_eq!(is_over, is_kept || is_left, "{failed:?}: {told}");
            if failed.is_none() {
                assert!(is_kept);
                break;
            }
        }
    }
}

#[test]
fn a_healthy_kernel_is_kept_by_renaming_what_was_written_before() {
    use std::os::unix::fs::MetadataExt;
    let (_dir, machine) = on_trial();
    let files = machine.snapshot("/boot/va/back");
    let prepared = |name: &str| {
        let found = files.keys().find(|path| {
            path.ends_with(name) && path.parent().unwrap() != machine.at("/boot/va/back")
        });
        found.unwrap().metadata().unwrap().ino()
    };
    let prepared = ["entry.cfg", "slot.yaml"].map(|name| (name, prepared(name)));
    next::promote(&machine, Slot::Back, &lock(&machine)).unwrap();
    for (name, inode) in prepared {
        let kept = machine.at(&format!("/boot/va/back/{name}"));
        assert_eq!(kept.metadata().unwrap().ino(), inode, "{name}");
    }
    assert_eq!(boots::fault(&machine), None);
}

#[test]
fn a_healthy_kernel_that_cannot_be_kept_is_not_restarted_and_the_old_one_starts_again() {
    let (_dir, machine) = on_trial();
    start_trial(&machine);
    let entry = machine.at("/boot/va/back/entry.cfg");
    let text = fs::read(&entry).unwrap();
    // Nothing can take its place.
    machine.be_damaged();
    fs::remove_file(&entry).unwrap();
    fs::create_dir(&entry).unwrap();
    let error = machine.with_appliance(after_boot).unwrap_err();
    assert!(format!("{error:#}").contains("is healthy"), "{error:#}");
    assert_eq!(state(&machine).unwrap().kernel_trial(), None);
    machine.with_appliance(deadline::watch).unwrap();
    assert!(machine.reboots().is_empty());
    fs::remove_dir(&entry).unwrap();
    fs::write(&entry, text).unwrap();
    machine.be_watched();
    restart(&machine, "commit");
    machine.with_appliance(after_boot).unwrap();
    assert_eq!(kernels(&machine), [OLD]);
    let adopted = adopt(&machine, made(NEW)).unwrap();
    assert_eq!(adopted, Adopted::OnTrial(NEW.into()));
}

#[test]
fn a_power_cut_while_a_kernel_becomes_the_slots_own_costs_neither_kernel() {
    let cut = |machine: &Machine, with_record: bool| {
        let record = "/boot/va/back/slot.yaml";
        let old = machine.read(record);
        next::promote(machine, Slot::Back, &lock(machine)).unwrap();
        if !with_record {
            machine.be_damaged();
            let next = next::load(machine, Slot::Back).unwrap().unwrap();
            let place = next::dir(machine, Slot::Back, &next).unwrap();
            fs::rename(machine.at(record), place.join("slot.yaml")).unwrap();
            machine.write(record, &old);
        }
    };
    for with_record in [true, false] {
        let (_dir, machine) = on_trial();
        cut(&machine, with_record);
        start_trial(&machine);
        let outcome = machine.with_appliance(after_boot).unwrap();
        assert_eq!(outcome, Outcome::KernelKept(Slot::Back, NEW.into()));
        assert_eq!(kernels(&machine), [NEW]);
        assert_eq!(boots::fault(&machine), None);
        machine.be_watched();

        // Or it does not come up any more.
        let (_dir, machine) = on_trial();
        cut(&machine, with_record);
        exhaust(&machine);
        restart(&machine, "exhausted");
        machine.with_appliance(after_boot).unwrap();
        assert_eq!(boots::fault(&machine), None);
        let kept = if with_record { NEW } else { OLD };
        assert_eq!(kernels(&machine), [kept]);
        machine.be_watched();

        // Or its trial is ended by a person.
        let (_dir, machine) = on_trial();
        cut(&machine, with_record);
        let mut ended = state(&machine).unwrap();
        ended.end_kernel_trial();
        let saved = ended.save(&machine.at("/boot/va"), &lock(&machine));
        saved.unwrap().rest.unwrap();
        restart(&machine, "commit");
        machine.with_appliance(after_boot).unwrap();
        assert_eq!(boots::fault(&machine), None);
        assert_eq!(kernels(&machine), [kept]);
    }
}

#[test]
fn an_initramfs_that_was_made_anew_is_tried_and_the_other_slots_is_not() {
    let (_dir, machine) = committed();
    bring(&machine, OLD, "made by the other slot, or here");
    assert_eq!(
        adopt(&machine, Change::default()).unwrap(),
        Adopted::Nothing
    );
    assert_eq!(adopt(&machine, made("5.10.0-1")).unwrap(), Adopted::Nothing);
    let adopted = adopt(&machine, made(OLD)).unwrap();
    assert_eq!(adopted, Adopted::OnTrial(OLD.into()));
    start_trial(&machine);
    let outcome = machine.with_appliance(after_boot).unwrap();
    assert_eq!(outcome, Outcome::KernelKept(Slot::Back, OLD.into()));
    assert_eq!(boots::fault(&machine), None);
}

#[test]
fn a_kernel_without_initramfs_or_modules_is_no_kernel_to_adopt() {
    for missing in [
        format!("/boot/initrd.img-{NEW}"),
        format!("/lib/modules/{NEW}/modules.dep"),
        format!("/lib/modules/{NEW}/kernel/a.ko"),
    ] {
        let (_dir, machine) = committed();
        bring(&machine, NEW, "package's initramfs");
        fs::remove_file(machine.at(&missing)).unwrap();
        assert_eq!(adopt(&machine, made(NEW)).unwrap(), Adopted::Nothing);
    }
}

#[test]
fn a_kernel_that_is_removed_before_it_was_tried_is_not_tried() {
    let (_dir, machine) = on_trial();
    assert_eq!(adopt(&machine, removed(NEW)).unwrap(), Adopted::Nothing);
    assert_eq!(state(&machine).unwrap().kernel_trial(), None);
    assert_eq!(kernels(&machine), [OLD]);
}

#[test]
fn a_kernel_that_is_only_installed_again_is_neither_gone_nor_given_up() {
    let (_dir, machine) = on_trial();
    exhaust(&machine);
    restart(&machine, "exhausted");
    machine.with_appliance(after_boot).unwrap();
    bring(&machine, OLD, "made by the package");
    let started = kernels(&machine);
    // kernel-install(8) takes its list of modules away meanwhile.
    fs::create_dir_all(machine.at(&format!("/lib/modules/{OLD}/kernel"))).unwrap();
    fs::remove_file(machine.at(&format!("/lib/modules/{OLD}/modules.dep"))).unwrap();
    let error = adopt(&machine, removed(OLD)).unwrap_err();
    assert!(format!("{error:#}").contains("was tried"), "{error:#}");
    assert_eq!(kernels(&machine), started);
    assert_eq!(state(&machine).unwrap().kernel_trial(), None);
}

/// Takes the modules of `release` away, as a removed package of Debian's does.
fn lose_modules(machine: &Machine, release: &str) {
    let modules = machine.at(&format!("/lib/modules/{release}/modules.dep"));
    fs::write(modules, "kernel/gone.ko:\n").unwrap();
}

#[test]
fn where_the_modules_of_the_kernel_that_starts_are_gone_another_is_tried_beside_it() {
    let (_dir, machine) = committed();
    bring(&machine, "6.1.0-1", "older initramfs");
    bring(&machine, NEW, "package's initramfs");
    lose_modules(&machine, OLD);
    let told = shown(&machine)["kernel_drift"].to_string();
    assert!(told.contains("no longer has"), "{told}");
    let outcome = machine.with_appliance(after_boot).unwrap();
    assert_eq!(outcome, Outcome::Ordinary);
    assert_eq!(kernels(&machine), [NEW, OLD]);
    assert!(state(&machine).unwrap().kernel_trial().is_some());

    // It does not come up: the next one is tried, and then none any more.
    exhaust(&machine);
    restart(&machine, "exhausted");
    let outcome = machine.with_appliance(after_boot).unwrap();
    assert_eq!(outcome, Outcome::KernelFailed(Slot::Back, NEW.into()));
    restart(&machine, "commit");
    machine.with_appliance(after_boot).unwrap();
    assert_eq!(kernels(&machine), ["6.1.0-1", OLD]);
    exhaust(&machine);
    restart(&machine, "exhausted");
    machine.with_appliance(after_boot).unwrap();
    restart(&machine, "commit");
    machine.with_appliance(after_boot).unwrap();
    assert_eq!(kernels(&machine), [OLD]);
    assert_eq!(state(&machine).unwrap().kernel_trial(), None);
    assert_eq!(boots::fault(&machine), None);
}

#[test]
fn a_lost_kernel_without_another_one_stays_and_the_way_out_is_told() {
    let (dir, machine) = committed();
    lose_modules(&machine, OLD);
    let error = adopt(&machine, removed(OLD)).unwrap_err();
    assert!(
        format!("{error:#}").contains("before a restart"),
        "{error:#}"
    );
    assert_eq!(kernels(&machine), [OLD]);

    // An upgrade replaces nothing that has started once.
    bring(&machine, "6.1.0-1", "older initramfs");
    run(&machine, &make_bundle(dir.path(), "9.4.2")).unwrap();
    assert_eq!(kernels(&machine), [OLD]);
    assert_eq!(state(&machine).unwrap().trial().unwrap().slot, Slot::Root);
}

#[test]
fn a_refused_kernel_keeps_no_other_one_out() {
    let (_dir, machine) = on_trial();
    exhaust(&machine);
    restart(&machine, "exhausted");
    machine.with_appliance(after_boot).unwrap();
    bring(&machine, OLD, "made anew");
    let adopted = adopt(&machine, made(OLD)).unwrap();
    assert_eq!(adopted, Adopted::OnTrial(OLD.into()));
    bring(&machine, "6.1.0-9", "between both");
    let adopted = adopt(&machine, made("6.1.0-9")).unwrap();
    assert_eq!(adopted, Adopted::OnTrial("6.1.0-9".into()));

    // Nor is the first one forgotten with the second.
    exhaust(&machine);
    restart(&machine, "exhausted");
    machine.with_appliance(after_boot).unwrap();
    let error = adopt(&machine, Change::default()).unwrap_err();
    assert_eq!(class_of(&error), Class::Refused);
    assert_eq!(kernels(&machine), [OLD]);
}

#[test]
fn a_record_of_one_refused_kernel_is_read_as_well() {
    let (_dir, machine) = on_trial();
    exhaust(&machine);
    restart(&machine, "exhausted");
    machine.with_appliance(after_boot).unwrap();
    let path = "/boot/va/back/refused.yaml";
    let one = machine.read(path).replace("- kernel", "  kernel");
    let one: Vec<&str> = one.lines().map(|line| &line[2..]).collect();
    machine.write(path, &one.join("\n"));
    assert!(adopt(&machine, made(NEW)).is_err());
    machine.write(path, "\0");
    let adopted = adopt(&machine, made(NEW)).unwrap();
    assert_eq!(adopted, Adopted::OnTrial(NEW.into()));
}

#[test]
fn a_kernel_of_another_flavour_is_not_newer_but_better_than_lost_modules() {
    let (_dir, machine) = committed();
    bring(&machine, "6.1.0-10-rt", "real time");
    assert_eq!(
        adopt(&machine, made("6.1.0-10-rt")).unwrap(),
        Adopted::Nothing
    );
    assert_eq!(shown(&machine)["kernel_drift"], serde_json::json!(null));
    lose_modules(&machine, OLD);
    let adopted = adopt(&machine, removed(OLD)).unwrap();
    assert_eq!(adopted, Adopted::OnTrial("6.1.0-10-rt".into()));
    bring(&machine, "6.1.0-1", "of the same flavour");
    let adopted = adopt(&machine, made("6.1.0-1")).unwrap();
    assert_eq!(adopted, Adopted::OnTrial("6.1.0-1".into()));
}

#[test]
fn a_trial_of_a_slot_goes_before_that_of_a_kernel() {
    let (dir, machine) = on_trial();
    run(&machine, &make_bundle(dir.path(), "9.4.2")).unwrap();
    let armed = state(&machine).unwrap();
    assert_eq!(armed.trial().unwrap().slot, Slot::Root);
    let error = adopt(&machine, made(NEW)).unwrap_err();
    assert_eq!(class_of(&error), Class::Refused);

    // The upgrade fails, and what waited is given up.
    for copy in ["env1", "env2"] {
        let path = format!("/boot/va/{copy}");
        let text = machine
            .read(&path)
            .replace("va_trial=root\n", "va_trial=\n");
        let text = text.replace("va_failed=\n", "va_failed=root\n");
        machine.write(&path, &format!("{:#<1024}", &text[..text.len().min(1024)]));
    }
    restart(&machine, "exhausted");
    machine.with_appliance(after_boot).unwrap();
    assert_eq!(kernels(&machine), [OLD]);
    assert_eq!(state(&machine).unwrap().phase(Slot::Root), Phase::Failed);
    let told = shown(&machine)["kernel_drift"].to_string();
    assert!(told.contains("boot --adopt-kernel"), "{told}");
    let adopted = adopt(&machine, Change::default()).unwrap();
    assert_eq!(adopted, Adopted::OnTrial(NEW.into()));
    assert_eq!(state(&machine).unwrap().phase(Slot::Root), Phase::Failed);
}

#[test]
fn a_kernel_that_waits_gives_its_room_to_an_upgrade_before_that_needs_it() {
    let (dir, machine) = committed();
    bring(&machine, NEW, &"initramfs".repeat(300_000));
    adopt(&machine, made(NEW)).unwrap();
    // 15 MiB, and the upgrade needs 16 for GRUB alone.
    machine.answer("stat", "4096 3840 100000 90000\n");
    machine.meanwhile("mkfs.ext4 -q", |machine| {
        machine.write("/run/looked", "");
        assert_eq!(kernels(machine), [OLD]);
        assert_eq!(state(machine).unwrap().kernel_trial(), None);
    });
    run(&machine, &make_bundle(dir.path(), "9.4.2")).unwrap();
    assert!(machine.at("/run/looked").exists());
    assert_eq!(state(&machine).unwrap().trial().unwrap().slot, Slot::Root);
}

#[test]
fn a_rollback_ends_the_trial_of_a_kernel() {
    let (_dir, machine) = on_trial();
    // What `check_root` looks at in the old system.
    for path in [
        "/sbin/init",
        "/lib/modules/5.10.0-1/modules.dep",
        "/etc/fstab",
    ] {
        machine.write(&format!("/devices/VA-root{path}"), "");
    }
    machine.with_appliance(|appliance| {
        let facts = Facts::look(appliance).unwrap();
        rollback(appliance, &facts, &appliance.lock().unwrap()).unwrap();
    });
    let back = state(&machine).unwrap();
    assert_eq!((back.next(), back.trial()), (Slot::Root, None));
    assert_eq!(back.kernel_trial(), None);
    assert_eq!(back.phase(Slot::Back), Phase::Good);
}

#[test]
fn a_damaged_record_of_a_kernel_on_trial_ends_the_trial_and_the_next_one_goes_well() {
    let (_dir, machine) = on_trial();
    machine.write("/boot/va/back/next.yaml", "\0");
    restart(&machine, "trial");
    assert_eq!(
        machine.with_appliance(after_boot).unwrap(),
        Outcome::Ordinary
    );
    assert_eq!(state(&machine).unwrap().kernel_trial(), None);
    assert_eq!(kernels(&machine), [OLD]);
    let adopted = adopt(&machine, made(NEW)).unwrap();
    assert_eq!(adopted, Adopted::OnTrial(NEW.into()));
}

#[test]
fn a_full_boot_partition_keeps_a_kernel_out_and_names_the_way_out() {
    let (_dir, machine) = committed();
    bring(&machine, NEW, "package's initramfs");
    machine.answer("stat", "4096 10 100000 90000\n");
    let error = adopt(&machine, made(NEW)).unwrap_err();
    assert_eq!(class_of(&error), Class::Refused);
    assert!(format!("{error:#}").contains("remove old kernels"));
    assert_eq!(kernels(&machine), [OLD]);
}

#[test]
fn an_appliance_that_va_upgrade_does_not_start_is_left_alone() {
    let machine = Machine::fresh();
    bring(&machine, NEW, "package's initramfs");
    assert_eq!(adopt(&machine, made(NEW)).unwrap(), Adopted::Nothing);
    assert!(!machine.at("/boot/va").exists());
}
