//! Network cards on the fake machine: which are told apart, and how each gets its
//! name back.

use std::fs;

use va_upgrade::appliance::cards::naming::{self, Move};
use va_upgrade::appliance::cards::{Card, Interfaces, Record};
use va_upgrade::appliance::network::Network;
use va_upgrade::upgrade::name_cards;

use crate::machine::Machine;
use crate::network::{Plug, link, pull_eth0};

pub const FIRST: &str = "00:50:56:00:00:01";
pub const SECOND: &str = "00:50:56:00:00:02";
pub const THIRD: &str = "00:50:56:00:00:03";

/// A machine without cards.
pub fn bare() -> Machine {
    let machine = Machine::fresh();
    pull_eth0(&machine);
    machine
}

pub fn plug(machine: &Machine, name: &str, mac: &str, driver: &str, slot: u32) {
    let device = &format!("pci0000:00/0000:00:{slot:02x}.0");
    Plug {
        name,
        mac,
        driver,
        device,
    }
    .plug_into(machine);
}

/// An interface without a device.
fn stack(machine: &Machine, name: &str, mac: &str) {
    machine.write(
        &format!("/sys/class/net/{name}/address"),
        &format!("{mac}\n"),
    );
}

pub fn look(machine: &Machine) -> Interfaces {
    machine.with_appliance(Interfaces::look).unwrap()
}

fn network(machine: &Machine) -> Network {
    machine.with_appliance(Network::look).unwrap()
}

pub fn names(cards: &[Card]) -> Vec<&str> {
    cards.iter().map(|card| card.name.as_str()).collect()
}

pub fn name_of(machine: &Machine, mac: &str) -> String {
    let all = look(machine);
    let mut cards = all.cards.iter().filter(|card| card.mac == mac);
    cards.next().unwrap().name.clone()
}

#[test]
fn a_card_is_described_as_ethtool_does() {
    let machine = bare();
    plug(&machine, "ens192", FIRST, "vmxnet3", 11);
    Plug {
        name: "ens3",
        mac: SECOND,
        driver: "virtio_net",
        device: "pci0000:00/0000:00:03.0/virtio0",
    }
    .plug_into(&machine);
    machine.write("/sys/class/net/ens3/flags", "0x1002\n");
    stack(&machine, "lo", "00:00:00:00:00:00");
    stack(&machine, "docker0", "02:42:00:00:00:01");
    stack(&machine, "veth12ab", "02:42:00:00:00:02");
    machine.write("/sys/class/net/bonding_masters", "bond0\n");
    let cards = look(&machine).cards;
    assert_eq!(names(&cards), ["ens192", "ens3"]);
    let expected = Card {
        name: "ens192".into(),
        mac: FIRST.into(),
        driver: Some("vmxnet3".into()),
        bus: Some("0000:00:0b.0".into()),
        mtu: Some(1500),
        is_up: true,
        master: None,
    };
    assert_eq!(cards[0], expected);
    assert_eq!(cards[1].bus.as_deref(), Some("0000:00:03.0"));
    assert!(!cards[1].is_up);
}

#[test]
fn a_card_of_azure_is_one_card_whatever_hangs_below_it() {
    for is_linked in [true, false] {
        let machine = bare();
        Plug {
            name: "eth0",
            mac: FIRST,
            driver: "hv_netvsc",
            device: "VMBUS:00/000d3a00-0000-0000-0000-000000000001",
        }
        .plug_into(&machine);
        plug(&machine, "enP1p0s2", FIRST, "mlx5_core", 2);
        if is_linked {
            link(
                &machine,
                "/sys/class/net/enP1p0s2/master",
                "/sys/class/net/eth0",
            );
        }
        let all = look(&machine);
        assert_eq!(names(&all.cards), ["eth0"]);
        assert_eq!(names(&all.parts), ["enP1p0s2"]);
        let bus = all.cards[0].bus.as_deref();
        assert_eq!(bus, Some("000d3a00-0000-0000-0000-000000000001"));
        assert!(all.is_told_apart(&all.cards[0]) && all.has_twin(&all.cards[0]));
        machine.answer(
            "ip",
            "3: enP1p0s2    inet 10.0.0.5/24 scope global enP1p0s2\n",
        );
        assert_eq!(network(&machine).cards[FIRST], ["10.0.0.5/24"]);
    }
}

#[test]
fn the_cards_of_a_bond_keep_the_addresses_they_were_made_with() {
    let words: [fn(&Machine); 3] = [
        |m| m.write("/sys/class/net/ens2/bonding_slave/perm_hwaddr", SECOND),
        |m| {
            m.answer(
                "ip link",
                &format!("3: ens2: link/ether {FIRST} permaddr {SECOND}\n"),
            )
        },
        |m| {
            m.answer(
                "ethtool",
                &format!("Permanent address: {}\n", SECOND.to_uppercase()),
            )
        },
    ];
    for told in words {
        let machine = bare();
        plug(&machine, "ens1", FIRST, "e1000", 1);
        plug(&machine, "ens2", FIRST, "e1000", 2);
        machine.write("/sys/class/net/ens2/addr_assign_type", "3\n");
        told(&machine);
        stack(&machine, "bond0", FIRST);
        machine.write("/sys/class/net/bond0/bonding/slaves", "ens1 ens2\n");
        stack(&machine, "bond0.5", FIRST);
        machine.write("/sys/class/net/bond0.5/lower_bond0", "");
        let all = look(&machine);
        let macs: Vec<&str> = all.cards.iter().map(|card| card.mac.as_str()).collect();
        assert_eq!(macs, [FIRST, SECOND]);
        machine.answer(
            "ip",
            "9: bond0.5@bond0    inet 10.0.0.5/24 scope global bond0.5\n",
        );
        let network = network(&machine);
        for mac in [FIRST, SECOND] {
            assert_eq!(network.cards[mac], ["10.0.0.5/24"]);
        }
    }
}

#[test]
fn an_address_counts_for_the_cards_that_its_interface_stands_on() {
    let machine = bare();
    plug(&machine, "eth0", FIRST, "e1000", 1);
    plug(&machine, "eth1", SECOND, "e1000", 2);
    machine.write("/sys/class/net/eth0/ifindex", "2\n");
    stack(&machine, "lan.7", THIRD);
    machine.write(
        "/sys/class/net/lan.7/uevent",
        "DEVTYPE=vlan\nINTERFACE=lan.7\n",
    );
    machine.write("/sys/class/net/lan.7/iflink", "2\n");
    stack(&machine, "br0", THIRD);
    fs::create_dir_all(machine.at("/sys/class/net/br0/brif/eth1")).unwrap();
    stack(&machine, "docker0", "02:42:00:00:00:01");
    link(
        &machine,
        "/sys/class/net/veth1/master",
        "/sys/class/net/docker0",
    );
    stack(&machine, "veth1", "02:42:00:00:00:02");
    // Its other end is in another name space, where 2 is something else.
    machine.write("/sys/class/net/veth1/iflink", "2\n");
    machine.answer(
        "ip",
        "5: lan.7@eth0    inet 10.7.0.5/24 scope global lan.7\n\
         6: br0    inet 10.8.0.5/24 scope global br0\n\
         6: br0    inet6 2001:db8::5/64 scope global\n\
         7: docker0    inet 172.17.0.1/16 scope global docker0\n",
    );
    let network = network(&machine);
    assert_eq!(network.cards.len(), 2);
    assert_eq!(network.cards[FIRST], ["10.7.0.5/24"]);
    assert_eq!(network.cards[SECOND], ["10.8.0.5/24", "2001:db8::5/64"]);
}

/// Writes down where our early service finds them which names cards are to have.
fn want(machine: &Machine, wanted: &[(&str, &str)]) {
    let card = |(name, mac): &(&str, &str)| Card {
        name: (*name).into(),
        mac: (*mac).into(),
        ..Card::default()
    };
    let cards = wanted.iter().map(card).collect();
    let text = serde_yaml::to_string(&Record { cards }).unwrap();
    machine.write("/etc/va-upgrade/cards.yaml", &text);
}

#[test]
fn cards_that_came_up_the_other_way_round_change_their_names() {
    let machine = bare();
    plug(&machine, "eth0", SECOND, "e1000", 1);
    plug(&machine, "eth1", THIRD, "e1000", 2);
    plug(&machine, "eth2", FIRST, "e1000", 3);
    want(
        &machine,
        &[("eth0", FIRST), ("eth1", SECOND), ("eth2", THIRD)],
    );
    machine.with_appliance(name_cards::run).unwrap();
    for (name, mac) in [("eth0", FIRST), ("eth1", SECOND), ("eth2", THIRD)] {
        assert_eq!(name_of(&machine, mac), name);
    }
    assert!(look(&machine).cards.iter().all(|card| card.is_up));
    let log = machine.log();
    let settled = log.find("udevadm settle").unwrap();
    assert!(settled < log.find("ip link set").unwrap(), "{log}");

    let before = machine.log();
    machine.with_appliance(name_cards::run).unwrap();
    let after = machine.log();
    assert!(!after[before.len()..].contains("link set"), "{after}");
}

#[test]
fn three_cards_of_four_get_whatever_names_they_are_to_have() {
    let machine = bare();
    let macs = [FIRST, SECOND, THIRD];
    let all = [FIRST, SECOND, THIRD, "00:50:56:00:00:04"];
    for (number, mac) in (0..).zip(all) {
        plug(&machine, &format!("eth{number}"), mac, "e1000", number);
    }
    let number = |code: usize, place: u32| code / 4_usize.pow(place) % 4;
    for code in 0..64 {
        let numbers = [number(code, 0), number(code, 1), number(code, 2)];
        let [a, b, c] = numbers;
        if a == b || b == c || a == c {
            continue;
        }
        let wanted = numbers.map(|number| format!("eth{number}"));
        let pairs: Vec<(&str, &str)> = wanted.iter().map(String::as_str).zip(macs).collect();
        want(&machine, &pairs);
        machine.with_appliance(name_cards::run).unwrap();
        assert_eq!(macs.map(|mac| name_of(&machine, mac)), wanted);
        let all = look(&machine).cards;
        assert!(all.len() == 4 && all.iter().all(|card| card.name.starts_with("eth")));
    }
}

#[test]
fn a_card_that_nobody_wrote_down_makes_way_and_what_is_no_card_does_not() {
    let machine = bare();
    plug(&machine, "eth0", SECOND, "e1000", 1);
    plug(&machine, "ens7", FIRST, "e1000", 2);
    plug(&machine, "ens8", THIRD, "e1000", 3);
    stack(&machine, "eth1", "02:42:00:00:00:01");
    want(&machine, &[("eth0", FIRST), ("eth1", THIRD)]);
    let error = machine.with_appliance(name_cards::run).unwrap_err();
    let blocked = "naming the network cards: ens8 cannot become eth1, a name that is taken";
    assert_eq!(format!("{error:#}"), blocked);
    assert_eq!(name_of(&machine, FIRST), "eth0");
    assert_eq!(name_of(&machine, SECOND), "eth2");
    assert_eq!(name_of(&machine, THIRD), "ens8");
}

#[test]
fn a_card_in_the_place_of_one_that_is_gone_gets_its_name() {
    let machine = bare();
    plug(&machine, "eth0", SECOND, "e1000", 1);
    plug(&machine, "eth1", THIRD, "e1000", 2);
    want(&machine, &[("eth0", FIRST), ("eth1", SECOND)]);
    machine.with_appliance(name_cards::run).unwrap();
    assert_eq!(name_of(&machine, SECOND), "eth1");
    assert_eq!(name_of(&machine, THIRD), "eth0");
}

#[test]
fn a_card_that_cannot_be_renamed_keeps_a_name_of_its_own() {
    for words in ["eth0 name", "eth1 name", "va-tmp0 name", "va-tmp1 name"] {
        let machine = bare();
        plug(&machine, "eth0", SECOND, "e1000", 1);
        plug(&machine, "eth1", FIRST, "e1000", 2);
        want(&machine, &[("eth0", FIRST), ("eth1", SECOND)]);
        machine.fail_on(words);
        let error = machine.with_appliance(name_cards::run).unwrap_err();
        assert!(format!("{error:#}").contains("made to fail"), "{error:#}");
        let all = look(&machine);
        assert_eq!(names(&all.cards).len(), 2);
        assert!(all.cards.iter().all(|card| card.is_up), "{words}: {all:?}");
        machine.with_appliance(name_cards::run).unwrap();
        assert_eq!(name_of(&machine, FIRST), "eth0", "{words}");
        assert_eq!(name_of(&machine, SECOND), "eth1", "{words}");
    }
}

#[test]
fn cards_that_are_late_are_waited_for_and_gone_ones_not_for_ever() {
    let machine = bare();
    plug(&machine, "eth0", SECOND, "e1000", 1);
    want(
        &machine,
        &[("eth0", FIRST), ("eth1", SECOND), ("eth2", THIRD)],
    );
    machine.meanwhile("wait", |m| plug(m, "eth1", FIRST, "e1000", 2));
    machine.with_appliance(name_cards::run).unwrap();
    assert_eq!(name_of(&machine, FIRST), "eth0");
    assert_eq!(name_of(&machine, SECOND), "eth1");
}

#[test]
fn cards_of_one_address_are_told_apart_by_driver_and_bus_or_left_alone() {
    let machine = bare();
    plug(&machine, "eth0", FIRST, "e1000", 1);
    plug(&machine, "eth1", FIRST, "vmxnet3", 2);
    let mut wanted = look(&machine).cards;
    let swap = |cards: &mut Vec<Card>| {
        cards[0].name = "eth1".into();
        cards[1].name = "eth0".into();
    };
    swap(&mut wanted);
    let now = look(&machine);
    let moves = naming::plan(&wanted, &now).moves;
    let step = |from: &str, by_way_of: &str, to: &str| Move {
        from: from.into(),
        by_way_of: by_way_of.into(),
        to: to.into(),
        is_up: true,
    };
    let crosswise = [
        step("eth0", "va-tmp0", "eth1"),
        step("eth1", "va-tmp1", "eth0"),
    ];
    assert_eq!(moves, crosswise);
    for card in &mut wanted {
        card.driver = None;
    }
    assert_eq!(naming::plan(&wanted, &now).moves, crosswise);
    for card in &mut wanted {
        card.bus = None;
    }
    assert_eq!(naming::plan(&wanted, &now), naming::Plan::default());
}
