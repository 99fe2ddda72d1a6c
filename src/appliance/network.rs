//! The network as it was, and whether it is there again.
//!
//! An address belongs to the cards that its interface stands on, each known by its
//! permanent hardware address: names and order change between systems.

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::cards::Interfaces;
use super::context::Appliance;
use super::gateways::{self, Gateway};
use super::routes;
use crate::system::Cmd;

/// The record's name in a slot's directory on `/boot`.
pub const FILE: &str = "network.yaml";

/// What stands for an address that a server gives and may change; its subnet
/// follows, but in records of earlier versions.
const LEASED: &str = "by DHCP";

/// What a healthy system reaches the network with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// The global addresses with prefix length, by hardware address of the card;
    /// a leased one has no number.
    pub cards: BTreeMap<String, Vec<String>>,
    /// Those of `cards` that came to a subnet after its first one: of a cluster, which
    /// has them elsewhere now and then, or of the configuration.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secondary: BTreeMap<String, Vec<String>>,
    /// The gateways of the default routes that somebody has configured or leased.
    pub gateways: Vec<String>,
    /// The gateways that routers have announced themselves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub announced: Vec<String>,
    /// The gateways that answered when they were asked for their hardware address.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub answering: Vec<String>,
    /// The name servers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub name_servers: Vec<String>,
    /// The routes that somebody configured, but on cards with a lease, whose server may
    /// name some.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<String>,
    /// The permanent address of each card that uses another one, by that: earlier
    /// records name cards by it.
    #[serde(skip)]
    borrowed: BTreeMap<String, String>,
    /// The gateways that were asked and gave no answer.
    #[serde(skip)]
    silent: Vec<String>,
}

/// What a network lacks of an earlier one.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Lacks {
    /// What a healthy system has.
    pub missing: Vec<String>,
    /// What another machine of a cluster may have now.
    pub moved: Vec<String>,
    /// What is not as it was configured, with its subject in a report.
    pub settings: Vec<(&'static str, String)>,
}

impl Network {
    /// Looks at the running system, and asks its gateways whether they are there.
    ///
    /// # Errors
    /// When `ip` fails or the kernel's tables cannot be read.
    pub fn look(appliance: &Appliance) -> Result<Network> {
        let interfaces = Interfaces::look(appliance)?;
        let mut network = Network {
            borrowed: interfaces.borrowed(),
            name_servers: name_servers(appliance),
            ..Network::default()
        };
        for card in &interfaces.cards {
            network.cards.insert(card.mac.clone(), Vec::new());
        }
        let show = Cmd::new("ip").args(["-o", "addr", "show", "scope", "global"]);
        let out = appliance.sys.run(&show)?;
        for found in out.lines().filter_map(parse_address) {
            for card in interfaces.cards_under(found.interface) {
                let list = network.cards.entry(card.mac.clone()).or_default();
                list.push(found.text.clone());
                if found.is_secondary {
                    let list = network.secondary.entry(card.mac.clone()).or_default();
                    list.push(found.text.clone());
                }
            }
        }
        network.cards.values_mut().for_each(leave_out_shared);
        for list in network
            .cards
            .values_mut()
            .chain(network.secondary.values_mut())
        {
            list.sort();
            list.dedup();
        }
        network.note_routes(appliance, &interfaces)?;
        let found = gateways::look(appliance)?;
        for gateway in &found {
            network.sort_in(gateway);
        }
        for (gateway, answers) in gateways::ask(appliance, &found)? {
            let list = match answers {
                true => &mut network.answering,
                false => &mut network.silent,
            };
            list.push(gateway);
        }
        Ok(network)
    }

    fn note_routes(&mut self, appliance: &Appliance, interfaces: &Interfaces) -> Result<()> {
        const MOST: usize = 200;
        for route in routes::look(appliance)? {
            let cards = interfaces.cards_under(&route.interface);
            let is_leased = |mac: &str| {
                let mut addresses = self.cards.get(mac).into_iter().flatten();
                addresses.any(|address| address.starts_with(LEASED))
            };
            if !cards.is_empty() && !cards.iter().any(|card| is_leased(&card.mac)) {
                self.routes.push(route.text);
            }
        }
        self.routes.sort();
        self.routes.dedup();
        self.routes.truncate(MOST);
        Ok(())
    }

    fn sort_in(&mut self, gateway: &Gateway) {
        let list = match gateway.is_announced {
            true => &mut self.announced,
            false => &mut self.gateways,
        };
        if !list.contains(&gateway.address) {
            list.push(gateway.address.clone());
            list.sort();
        }
    }

    /// Returns the addresses of a card by its hardware address, perhaps a borrowed
    /// one.
    fn card(&self, mac: &str) -> Option<&Vec<String>> {
        let own = || self.cards.get(self.borrowed.get(mac)?);
        self.cards.get(mac).or_else(own)
    }

    /// Returns what this network had that `now` lacks.
    pub fn lacking_in(&self, now: &Network) -> Lacks {
        let mut lacks = Lacks::default();
        for (mac, addresses) in &self.cards {
            let Some(present) = now.card(mac) else {
                lacks.missing.push(format!("network card {mac}"));
                continue;
            };
            for address in addresses.iter().filter(|it| !is_among(it, present)) {
                let may_move = self
                    .secondary
                    .get(mac)
                    .is_some_and(|it| it.contains(address))
                    && present.iter().any(|other| is_same_subnet(address, other));
                let list = match may_move {
                    true => &mut lacks.moved,
                    false => &mut lacks.missing,
                };
                list.push(format!("address {address} on {mac}"));
            }
        }
        let gateways = self.gateways.iter().filter_map(|it| self.fault_of(it, now));
        lacks.missing.extend(gateways);
        let routes = self.routes.iter().filter(|it| !now.routes.contains(it));
        let routes = routes.map(|it| ("route", format!("route {it}")));
        lacks.settings.extend(routes);
        if now.name_servers.is_empty() && !self.name_servers.is_empty() {
            let text = format!("any name server, such as {}", self.name_servers.join(", "));
            lacks.settings.push(("name server", text));
        }
        lacks
    }

    /// Returns which cards `now` lacks, and which have no address there although
    /// they had one: what still counts once somebody may have changed the others.
    pub fn cards_lacking_in(&self, now: &Network) -> Lacks {
        let mut lacks = Lacks::default();
        for (mac, addresses) in &self.cards {
            match now.card(mac) {
                None => lacks.missing.push(format!("network card {mac}")),
                Some(present) if present.is_empty() && !addresses.is_empty() => {
                    lacks.missing.push(format!("any address on {mac}"));
                }
                Some(_) => {}
            }
        }
        lacks
    }

    /// Tells what is wrong in `now` with a gateway of this network.
    fn fault_of(&self, gateway: &str, now: &Network) -> Option<String> {
        let is_v6 = gateway.contains(':');
        let mut all = now.gateways.iter().chain(&now.announced);
        // Whoever leases addresses also names the gateway.
        let mut addresses = self.cards.values().flatten();
        if !is_v6 && addresses.any(|it| it.starts_with(LEASED)) {
            let is_there = all.any(|other| !other.contains(':'));
            return (!is_there).then(|| format!("gateway {gateway}"));
        }
        if !all.any(|other| other == gateway) {
            return Some(format!("gateway {gateway}"));
        }
        let holds = |list: &[String]| list.iter().any(|it| it == gateway);
        let is_silent = holds(&self.answering) && holds(&now.silent);
        is_silent.then(|| format!("an answer of gateway {gateway}"))
    }
}

/// Tells whether `address`, or for a leased one any of its subnet, is there.
fn is_among(address: &str, present: &[String]) -> bool {
    let is_there = |other: &String| match address.strip_prefix(LEASED) {
        Some("") => !other.contains(':'),
        Some(_) => is_same_subnet(address, other),
        None => other == address,
    };
    present.iter().any(is_there)
}

/// Tells whether two addresses of IPv4, either perhaps leased, are of one subnet.
fn is_same_subnet(one: &str, other: &str) -> bool {
    let pair = subnet(one).zip(subnet(other));
    pair.is_some_and(|(one, other)| one == other)
}

/// Reads the subnet out of `10.0.2.15/24` or `by DHCP in 10.0.2.0/24`.
fn subnet(address: &str) -> Option<(u32, u32)> {
    let (address, length) = address.rsplit(' ').next()?.split_once('/')?;
    let address = u32::from(address.parse::<Ipv4Addr>().ok()?);
    let length: u32 = length.parse().ok().filter(|length| *length <= 32)?;
    let mask = u32::MAX.checked_shl(32 - length).unwrap_or_default();
    Some((address & mask, length))
}

/// Leaves out addresses of a single host beside others: several machines share
/// them (VRRP, RFC 9568), and the one that has it now need not have it later.
fn leave_out_shared(addresses: &mut Vec<String>) {
    let is_shared = |address: &str| address.ends_with("/32") || address.ends_with("/128");
    if !addresses.iter().all(|address| is_shared(address)) {
        addresses.retain(|address| !is_shared(address));
    }
}

/// An address as `ip` shows it.
#[derive(Debug, PartialEq, Eq)]
struct Address<'a> {
    interface: &'a str,
    /// With prefix length, or how it came.
    text: String,
    /// Whether its subnet had another one before.
    is_secondary: bool,
}

/// Reads `2: eth0    inet 10.0.2.15/24 brd ...`; temporary IPv6 addresses change
/// by design and are passed over.
fn parse_address(line: &str) -> Option<Address<'_>> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [_, name, family, address, ..] = fields[..] else {
        return None;
    };
    let has = |word: &str| fields.contains(&word);
    let stable = family == "inet" || (family == "inet6" && !has("temporary") && !has("dynamic"));
    let is_leased = family == "inet" && has("dynamic");
    let text = match subnet(address).filter(|_| is_leased) {
        Some((net, length)) => format!("{LEASED} in {}/{length}", Ipv4Addr::from(net)),
        None if is_leased => LEASED.to_owned(),
        None => address.to_owned(),
    };
    stable.then(|| Address {
        // A VLAN is shown as `eth0.5@eth0`.
        interface: name.split('@').next().unwrap_or(name),
        text,
        is_secondary: family == "inet" && has("secondary"),
    })
}

/// Reads resolv.conf(5), of which only a few lines count.
fn name_servers(appliance: &Appliance) -> Vec<String> {
    const MOST: usize = 16;
    let text = fs::read_to_string(appliance.at("/etc/resolv.conf")).unwrap_or_default();
    let server = |line: &str| {
        let mut words = line.split_whitespace();
        let is_one = words.next() == Some("nameserver");
        words.next().filter(|_| is_one).map(str::to_owned)
    };
    text.lines().filter_map(server).take(MOST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: &str = "52:54:00:00:00:01";

    fn network(addresses: &[&str], gateway: &str) -> Network {
        let list = addresses.iter().map(|it| (*it).to_owned()).collect();
        Network {
            cards: BTreeMap::from([(MAC.into(), list)]),
            gateways: vec![gateway.into()],
            ..Network::default()
        }
    }

    fn missing(before: &Network, now: &Network) -> Vec<String> {
        let lacks = before.lacking_in(now);
        assert!(lacks.moved.is_empty(), "{lacks:?}");
        lacks.missing
    }

    #[test]
    fn the_kernels_addresses_are_read() {
        let read = |line| {
            let found: Option<Address> = parse_address(line);
            found.map(|it| (it.interface.to_owned(), it.text, it.is_secondary))
        };
        let found = |name: &str, text: &str, is_secondary| {
            Some((name.to_owned(), text.to_owned(), is_secondary))
        };
        let line = "2: enp1s0    inet 10.0.2.15/24 brd 10.0.2.255 scope global dynamic enp1s0\\ valid_lft 86387sec";
        assert_eq!(read(line), found("enp1s0", "by DHCP in 10.0.2.0/24", false));
        let line = "2: bond0.5@bond0    inet 10.0.2.15/24 brd 10.0.2.255 scope global bond0.5";
        assert_eq!(read(line), found("bond0.5", "10.0.2.15/24", false));
        let line = "2: eth0    inet 10.0.2.9/24 scope global secondary eth0\\ valid_lft forever";
        assert_eq!(read(line), found("eth0", "10.0.2.9/24", true));
        let line = "2: e inet6 2001:db8::1/64 scope global dynamic mngtmpaddr";
        assert_eq!(read(line), None);
    }

    #[test]
    fn a_lease_may_change_within_its_subnet_and_in_old_records_everywhere() {
        let old = network(&["by DHCP"], "10.0.2.2");
        let new = network(&["by DHCP in 10.0.2.0/24"], "10.0.2.2");
        for now in [
            network(&["by DHCP in 10.0.2.0/24"], "10.0.2.3"),
            network(&["10.0.2.77/24"], "10.0.2.3"),
        ] {
            assert_eq!(missing(&old, &now), [""; 0]);
            assert_eq!(missing(&new, &now), [""; 0]);
        }
        let elsewhere = network(&["by DHCP in 10.9.0.0/16"], "10.9.9.9");
        assert_eq!(missing(&old, &elsewhere), [""; 0]);
        let lost = [format!("address by DHCP in 10.0.2.0/24 on {MAC}")];
        assert_eq!(missing(&new, &elsewhere), lost);
        let lost = missing(&old, &network(&["fd00::1/64"], "10.9.9.9"));
        assert_eq!(lost, [format!("address by DHCP on {MAC}")]);
        let lost = missing(&new, &network(&["10.0.2.77/24"], "fe80::1"));
        assert_eq!(lost, ["gateway 10.0.2.2"]);
    }

    #[test]
    fn a_shared_address_is_none_of_this_machines() {
        let mut addresses = ["10.0.0.5/24", "10.0.0.9/32"].map(String::from).to_vec();
        leave_out_shared(&mut addresses);
        assert_eq!(addresses, ["10.0.0.5/24"]);
        let mut alone = vec!["203.0.113.7/32".to_owned()];
        leave_out_shared(&mut alone);
        assert_eq!(alone, ["203.0.113.7/32"]);
    }

    #[test]
    fn only_a_second_address_of_a_subnet_may_be_another_machines_now() {
        let mut before = network(&["10.0.0.5/24", "10.0.0.9/24"], "10.0.0.1");
        before.secondary = BTreeMap::from([(MAC.into(), vec!["10.0.0.9/24".into()])]);
        let lost = |now: &[&str]| before.lacking_in(&network(now, "10.0.0.1"));
        let moved = lost(&["10.0.0.5/24"]);
        assert_eq!(moved.moved, [format!("address 10.0.0.9/24 on {MAC}")]);
        assert!(moved.missing.is_empty());
        assert_eq!(
            lost(&["10.0.0.9/24"]).missing,
            [format!("address 10.0.0.5/24 on {MAC}")]
        );
        assert_eq!(lost(&[]).missing.len(), 2);
    }

    #[test]
    fn a_gateway_that_answered_is_to_answer_again() {
        let mut before = network(&["10.0.0.5/24"], "10.0.0.1");
        let mut now = before.clone();
        now.silent = vec!["10.0.0.1".into()];
        assert_eq!(missing(&before, &now), [""; 0]);
        before.answering = vec!["10.0.0.1".into()];
        assert_eq!(missing(&before, &now), ["an answer of gateway 10.0.0.1"]);
        now.silent.clear();
        assert_eq!(missing(&before, &now), [""; 0]);
    }

    #[test]
    fn a_configured_gateway_of_ipv6_may_come_by_announcement_but_not_be_lost() {
        let before = network(&["2001:db8::5/64"], "fe80::1");
        let mut now = network(&["2001:db8::5/64"], "10.0.0.1");
        assert_eq!(missing(&before, &now), ["gateway fe80::1"]);
        now.announced = vec!["fe80::1".into()];
        assert_eq!(missing(&before, &now), [""; 0]);
    }

    #[test]
    fn a_route_and_all_name_servers_that_are_gone_are_told_apart_from_what_is_missing() {
        let mut before = network(&["10.0.0.5/24"], "10.0.0.1");
        before.routes = vec!["10.1.0.0/16 via 10.0.0.1".into()];
        before.name_servers = vec!["10.0.0.2".into(), "10.0.0.3".into()];
        let mut now = before.clone();
        now.name_servers = vec!["10.0.0.9".into()];
        assert_eq!(before.lacking_in(&now), Lacks::default());
        now.name_servers.clear();
        now.routes = vec!["10.1.0.0/16 via 10.0.0.9".into()];
        let lost = before.lacking_in(&now);
        assert_eq!(lost.missing, [""; 0]);
        let subjects: Vec<&str> = lost.settings.iter().map(|it| it.0).collect();
        assert_eq!(subjects, ["route", "name server"]);
    }

    #[test]
    fn a_record_of_an_earlier_version_is_read() {
        let text = "cards:\n  52:54:00:00:00:99:\n  - 10.0.2.15/24\ngateways:\n- 10.0.2.2\n";
        let before: Network = serde_yaml::from_str(text).unwrap();
        let mut now = network(&["10.0.2.15/24"], "10.0.2.2");
        assert_eq!(missing(&before, &now), ["network card 52:54:00:00:00:99"]);
        // It named the cards of a bond by the address that the bond gives them.
        now.borrowed = BTreeMap::from([("52:54:00:00:00:99".into(), MAC.into())]);
        assert_eq!(missing(&before, &now), [""; 0]);
    }

    #[test]
    fn a_renamed_card_is_the_same_card_and_a_lost_address_is_named() {
        let before = network(&["10.0.2.15/24"], "10.0.2.2");
        assert_eq!(missing(&before, &before), [""; 0]);
        let mut now = before.clone();
        now.cards.insert(MAC.into(), Vec::new());
        now.gateways.clear();
        let lost = [
            &format!("address 10.0.2.15/24 on {MAC}"),
            "gateway 10.0.2.2",
        ];
        assert_eq!(missing(&before, &now), lost);
        let lost = missing(&before, &Network::default());
        assert_eq!(lost[0], format!("network card {MAC}"));
    }
}
