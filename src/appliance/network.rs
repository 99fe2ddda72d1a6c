//! The network as it was, and whether it is there again.
//!
//! Cards are known by their hardware address: names and order change between
//! systems.

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::context::Appliance;
use crate::system::Cmd;

/// The record's name in a slot's directory on `/boot`.
pub const FILE: &str = "network.yaml";

/// What stands for an address that a server gives and may change.
const LEASED: &str = "by DHCP";

/// What a healthy system reaches the network with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// The global addresses with prefix length, by hardware address of the card;
    /// a leased one has no number.
    pub cards: BTreeMap<String, Vec<String>>,
    /// The gateways of the default routes.
    pub gateways: Vec<String>,
}

impl Network {
    /// Looks at the running system.
    ///
    /// # Errors
    /// When `ip` fails or the kernel's tables cannot be read.
    pub fn look(appliance: &Appliance) -> Result<Network> {
        let interfaces = interfaces(&appliance.at("/sys/class/net"))?;
        let out = appliance
            .sys
            .run(&Cmd::new("ip").args(["-o", "addr", "show", "scope", "global"]))?;
        let mut cards: BTreeMap<String, Vec<String>> = interfaces
            .iter()
            .filter(|interface| interface.is_card)
            .map(|interface| (interface.hardware_address.clone(), Vec::new()))
            .collect();
        for (name, address) in out.lines().filter_map(parse_address) {
            let interface = interfaces.iter().find(|interface| interface.name == name);
            if let Some(list) = interface.and_then(|i| cards.get_mut(&i.hardware_address)) {
                list.push(address.to_owned());
            }
        }
        for list in cards.values_mut() {
            leave_out_shared(list);
            list.sort();
            list.dedup();
        }
        let path = appliance.at("/proc/net/route");
        let routes =
            fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let mut gateways: Vec<String> = routes.lines().filter_map(parse_gateway).collect();
        gateways.sort();
        gateways.dedup();
        Ok(Network { cards, gateways })
    }

    /// Returns what this network had that `now` lacks.
    pub fn missing_in(&self, now: &Network) -> Vec<String> {
        let mut missing = Vec::new();
        for (mac, addresses) in &self.cards {
            let Some(present) = now.cards.get(mac) else {
                missing.push(format!("network card {mac}"));
                continue;
            };
            let is_there = |address: &str| match address {
                LEASED => present.iter().any(|other| !other.contains(':')),
                _ => present.iter().any(|other| other == address),
            };
            let lost = addresses.iter().filter(|address| !is_there(address));
            missing.extend(lost.map(|address| format!("address {address} on {mac}")));
        }
        // Whoever leases addresses also names the gateway.
        let is_leased = self.cards.values().flatten().any(|it| it == LEASED);
        let is_there = |gateway: &String| match is_leased {
            true => !now.gateways.is_empty(),
            false => now.gateways.contains(gateway),
        };
        let lost = self.gateways.iter().filter(|gateway| !is_there(gateway));
        missing.extend(lost.map(|gateway| format!("gateway {gateway}")));
        missing
    }
}

/// Leaves out addresses of a single host beside others: several machines share
/// them (VRRP, RFC 9568), and the one that has it now need not have it later.
fn leave_out_shared(addresses: &mut Vec<String>) {
    let is_shared = |address: &str| address.ends_with("/32") || address.ends_with("/128");
    if !addresses.iter().all(|address| is_shared(address)) {
        addresses.retain(|address| !is_shared(address));
    }
}

/// An interface of the kernel.
struct Interface {
    name: String,
    hardware_address: String,
    /// Whether a device stands behind it; a bond, bridge or VLAN has none, but
    /// the hardware address of a card below it.
    is_card: bool,
}

fn interfaces(class_net: &Path) -> Result<Vec<Interface>> {
    let mut found = Vec::new();
    let listed =
        fs::read_dir(class_net).with_context(|| format!("listing {}", class_net.display()))?;
    for entry in listed {
        let entry = entry?;
        let dir = entry.path();
        let address = fs::read_to_string(dir.join("address")).unwrap_or_default();
        found.push(Interface {
            name: entry.file_name().to_string_lossy().into_owned(),
            hardware_address: address.trim().to_owned(),
            is_card: dir.join("device").exists(),
        });
    }
    Ok(found)
}

/// Reads `2: eth0    inet 10.0.2.15/24 brd ...`; temporary IPv6 addresses change
/// by design and are passed over.
fn parse_address(line: &str) -> Option<(&str, &str)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [_, name, family, address, ..] = fields[..] else {
        return None;
    };
    // A VLAN is shown as `eth0.5@eth0`.
    let name = name.split('@').next().unwrap_or(name);
    let stable = family == "inet"
        || (family == "inet6" && !line.contains("temporary") && !line.contains("dynamic"));
    let is_leased = family == "inet" && fields.contains(&"dynamic");
    stable.then_some((name, if is_leased { LEASED } else { address }))
}

/// Reads the gateway of a default route in `/proc/net/route` (proc(5)).
fn parse_gateway(line: &str) -> Option<String> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [_, destination, gateway, ..] = fields[..] else {
        return None;
    };
    let gateway = u32::from_str_radix(gateway, 16).ok().filter(|g| *g != 0)?;
    (destination == "00000000").then(|| Ipv4Addr::from(gateway.to_le_bytes()).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_tables_are_read() {
        let line = "2: enp1s0    inet 10.0.2.15/24 brd 10.0.2.255 scope global dynamic enp1s0\\ valid_lft 86387sec";
        assert_eq!(parse_address(line), Some(("enp1s0", LEASED)));
        let line = "2: bond0.5@bond0    inet 10.0.2.15/24 brd 10.0.2.255 scope global bond0.5";
        assert_eq!(parse_address(line), Some(("bond0.5", "10.0.2.15/24")));
        assert_eq!(
            parse_address("2: e inet6 2001:db8::1/64 scope global dynamic mngtmpaddr"),
            None
        );
        assert_eq!(
            parse_gateway("eth0\t00000000\t0202000A\t0003\t0\t0\t0\t0").as_deref(),
            Some("10.0.2.2")
        );
        assert_eq!(
            parse_gateway("eth0\t0002000A\t00000000\t0001\t0\t0\t0\t0"),
            None
        );
    }

    #[test]
    fn a_lease_and_a_shared_address_may_change() {
        let network = |addresses: &[&str], gateway: &str| Network {
            cards: BTreeMap::from([(
                "52:54:00:00:00:01".into(),
                addresses.iter().map(|it| (*it).to_owned()).collect(),
            )]),
            gateways: vec![gateway.into()],
        };
        let before = network(&[LEASED], "10.0.2.2");
        for now in [
            network(&[LEASED], "10.9.9.9"),
            network(&["10.9.9.1/8"], "10.9.9.9"),
        ] {
            assert!(before.missing_in(&now).is_empty(), "{now:?}");
        }
        let lost = before.missing_in(&network(&["fd00::1/64"], "10.9.9.9"));
        assert_eq!(lost, ["address by DHCP on 52:54:00:00:00:01"]);

        let mut addresses = ["10.0.0.5/24", "10.0.0.9/32"].map(String::from).to_vec();
        leave_out_shared(&mut addresses);
        assert_eq!(addresses, ["10.0.0.5/24"]);
        let mut alone = vec!["203.0.113.7/32".to_owned()];
        leave_out_shared(&mut alone);
        assert_eq!(alone, ["203.0.113.7/32"]);
    }

    #[test]
    fn a_renamed_card_is_the_same_card_and_a_lost_address_is_named() {
        let before = Network {
            cards: BTreeMap::from([("52:54:00:00:00:01".into(), vec!["10.0.2.15/24".into()])]),
            gateways: vec!["10.0.2.2".into()],
        };
        assert!(before.missing_in(&before).is_empty());
        let mut now = before.clone();
        now.cards.get_mut("52:54:00:00:00:01").unwrap().clear();
        now.gateways.clear();
        assert_eq!(
            before.missing_in(&now),
            [
                "address 10.0.2.15/24 on 52:54:00:00:00:01",
                "gateway 10.0.2.2"
            ]
        );
        assert_eq!(
            before.missing_in(&Network::default())[0],
            "network card 52:54:00:00:00:01"
        );
    }
}
