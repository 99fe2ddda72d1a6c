//! How a new system is to name network cards, and what a trial makes of cards that
//! came up otherwise.

use std::fs;

use va_upgrade::appliance::Appliance;
use va_upgrade::appliance::cards::Record;
use va_upgrade::appliance::machine::Machine as Facts;
use va_upgrade::progress::{Recorder, Silent};
use va_upgrade::report::Verdict;
use va_upgrade::upgrade::trial::{Outcome, after_boot};
use va_upgrade::upgrade::{name_cards, preflight};

use crate::apply::run;
use crate::cards::{FIRST, SECOND, THIRD, bare, name_of, names, plug};
use crate::machine::{Machine, scratch};
use crate::network::pull_eth0;
use crate::release::make_bundle;

#[test]
fn apply_pins_udevs_names_by_a_file_and_the_kernels_by_our_service() {
    let dir = scratch();
    let library = dir
        .path()
        .join("tree-9.4.1/usr/lib/systemd/libsystemd-shared-252.so");
    fs::create_dir_all(library.parent().unwrap()).unwrap();
    fs::write(library, "").unwrap();
    let machine = bare();
    plug(&machine, "ens192", FIRST, "vmxnet3", 1);
    plug(&machine, "eth0", SECOND, "e1000", 2);
    // What an earlier upgrade has left in the running system.
    let stale = "cards:\n- name: eth7\n  mac: 00:50:56:00:00:77\n";
    machine.write("/etc/va-upgrade/cards.yaml", stale);
    run(&machine, &make_bundle(dir.path(), "9.4.1")).unwrap();
    let slot = "/devices/VA-back";
    let file = "etc/systemd/network/10-va-ens192.link";
    let text = machine.read(&format!("{slot}/{file}"));
    let settings = format!("[Match]\nPermanentMACAddress={FIRST}\n\n[Link]\nName=ens192\n");
    assert!(text.ends_with(&settings), "{text}");
    let links = fs::read_dir(machine.at(&format!("{slot}/etc/systemd/network"))).unwrap();
    assert_eq!(links.count(), 1);
    let initramfs = machine.read("/boot/va/back/initrd");
    assert!(initramfs.contains(file) && initramfs.contains(&text));
    let record: Record =
        serde_yaml::from_str(&machine.read(&format!("{slot}/etc/va-upgrade/cards.yaml"))).unwrap();
    assert_eq!(names(&record.cards), ["eth0"]);
    let record: Record = serde_yaml::from_str(&machine.read("/boot/va/back/cards.yaml")).unwrap();
    assert_eq!(names(&record.cards), ["ens192", "eth0"]);
    let unit = format!("{slot}/etc/systemd/system/sysinit.target.wants/va-upgrade-cards.service");
    assert!(machine.at(&unit).is_symlink());

    pull_eth0(&machine);
    fs::remove_dir_all(machine.at(slot)).unwrap();
    fs::create_dir_all(machine.at(slot)).unwrap();
    run(&machine, &make_bundle(dir.path(), "9.4.2")).unwrap();
    assert!(
        !machine
            .at(&format!("{slot}/etc/va-upgrade/cards.yaml"))
            .exists()
    );
    assert_eq!(machine.read("/etc/va-upgrade/cards.yaml"), stale);
}

#[test]
fn the_check_tells_how_names_are_kept_and_which_cannot_be() {
    let machine = bare();
    plug(&machine, "ens192", FIRST, "vmxnet3", 1);
    plug(&machine, "eth0", SECOND, "e1000", 2);
    plug(&machine, "ens5", THIRD, "e1000", 3);
    plug(&machine, "ens6", THIRD, "e1000", 4);
    let checks = machine.with_appliance(|appliance| {
        let facts = Facts::look(appliance).unwrap();
        preflight::check(appliance, &facts, None).0.checks
    });
    let said = |name: &str| {
        let check = checks.iter().find(|check| check.name == name).unwrap();
        (check.verdict, check.message())
    };
    let kept = format!(
        "names are kept: ens192 ({FIRST}) by a file for udev; eth0 ({SECOND}) by our service \
         at each start"
    );
    assert_eq!(said("network cards"), (Verdict::Ok, kept));
    let not = |name| {
        format!(
            "the name {name} is not pinned to its network card: {THIRD} is not an address of \
             that card alone"
        )
    };
    let both = format!("{}; {}", not("ens5"), not("ens6"));
    assert_eq!(said("names of network cards"), (Verdict::Warn, both));
}

/// A trial of a system with two cards, of which it has the addresses.
fn trial_of_two() -> (tempfile::TempDir, Machine) {
    let dir = scratch();
    let machine = bare();
    plug(&machine, "ens1", FIRST, "e1000", 1);
    plug(&machine, "ens2", SECOND, "vmxnet3", 2);
    machine.answer(
        "ip",
        "2: ens1    inet 10.0.2.15/24 scope global ens1\n\
         2: ens1    inet 10.0.2.99/24 scope global secondary ens1\n\
         3: ens2    inet 10.0.3.15/24 scope global ens2\n",
    );
    run(&machine, &make_bundle(dir.path(), "9.4.1")).unwrap();
    machine.boot("back", "trial");
    (dir, machine)
}

/// Runs the trial; returns how it ended and what was warned of.
fn run_trial(machine: &Machine) -> (Outcome, String) {
    let recorder = Recorder::new(&Silent);
    let outcome = machine.with_appliance(|appliance| {
        after_boot(&Appliance {
            progress: &recorder,
            ..*appliance
        })
    });
    let notes: Vec<String> = recorder
        .into_notes()
        .iter()
        .map(ToString::to_string)
        .collect();
    (outcome.unwrap(), notes.join("\n"))
}

fn swap_cards(machine: &Machine) {
    for (from, to) in [("ens1", "x"), ("ens2", "ens1"), ("x", "ens2")] {
        let at = |name| machine.at(&format!("/sys/class/net/{name}"));
        fs::rename(at(from), at(to)).unwrap();
    }
}

#[test]
fn a_trial_gives_cards_their_names_back_and_every_later_start_too() {
    let (_dir, machine) = trial_of_two();
    swap_cards(&machine);
    let (outcome, notes) = run_trial(&machine);
    assert!(matches!(outcome, Outcome::Confirmed(_)), "{outcome:?}");
    let told = format!("network card {FIRST} (e1000) is ens2, it was ens1");
    assert!(notes.contains(&told), "{notes}");
    assert_eq!(name_of(&machine, FIRST), "ens1");
    assert_eq!(name_of(&machine, SECOND), "ens2");
    assert!(
        machine
            .log()
            .contains("systemctl try-restart NetworkManager.service")
    );
    swap_cards(&machine);
    machine.with_appliance(name_cards::run).unwrap();
    assert_eq!(name_of(&machine, FIRST), "ens1");
}

#[test]
fn a_trial_whose_cards_keep_wrong_names_is_unhealthy() {
    let (_dir, machine) = trial_of_two();
    swap_cards(&machine);
    machine.fail_on("name va-tmp0");
    let (outcome, _) = run_trial(&machine);
    let Outcome::Restarting(why) = outcome else {
        panic!("{outcome:?}")
    };
    let told = format!("network card {FIRST} (e1000) is ens2, it was ens1");
    assert!(why.contains(&told), "{why}");
}

#[test]
fn a_trial_whose_gateway_does_not_answer_any_more_is_unhealthy() {
    let (_dir, machine) = trial_of_two();
    machine.answer("ip neigh", "10.0.2.2 dev ens1 FAILED\n");
    let (outcome, _) = run_trial(&machine);
    let Outcome::Restarting(why) = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!(why, "the network lacks an answer of gateway 10.0.2.2");
}

#[test]
fn an_address_that_a_cluster_has_elsewhere_now_is_told_and_ends_no_trial() {
    let (_dir, machine) = trial_of_two();
    machine.answer(
        "ip",
        "2: ens1    inet 10.0.2.15/24 scope global ens1\n\
         3: ens2    inet 10.0.3.15/24 scope global ens2\n",
    );
    let (outcome, notes) = run_trial(&machine);
    assert!(matches!(outcome, Outcome::Confirmed(_)), "{outcome:?}");
    assert!(
        notes.contains(&format!("address 10.0.2.99/24 on {FIRST}")),
        "{notes}"
    );
}

#[test]
fn a_trial_prepared_by_an_earlier_version_asks_for_no_names() {
    let (_dir, machine) = trial_of_two();
    fs::remove_file(machine.at("/boot/va/back/cards.yaml")).unwrap();
    swap_cards(&machine);
    machine.answer(
        "ip",
        "2: ens2    inet 10.0.2.15/24 scope global ens2\n\
         2: ens2    inet 10.0.2.99/24 scope global secondary ens2\n\
         3: ens1    inet 10.0.3.15/24 scope global ens1\n",
    );
    let (outcome, _) = run_trial(&machine);
    assert!(matches!(outcome, Outcome::Confirmed(_)), "{outcome:?}");
    assert!(!machine.log().contains("link set"));
}
