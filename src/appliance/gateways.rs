//! The gateways of the default routes, and whether they answer.

use std::collections::BTreeSet;
use std::fs;
use std::net::Ipv4Addr;

use anyhow::{Context, Result};

use super::context::Appliance;
use crate::system::Cmd;

/// The gateway of a default route.
#[derive(Debug, PartialEq, Eq)]
pub struct Gateway {
    /// Its address.
    pub address: String,
    /// The interface on its way.
    pub interface: String,
    /// Whether it announced itself as a router.
    pub is_announced: bool,
}

/// Looks at the routes of the running system.
///
/// # Errors
/// When the kernel's tables cannot be read.
pub fn look(appliance: &Appliance) -> Result<Vec<Gateway>> {
    let path = appliance.at("/proc/net/route");
    let routes =
        fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let mut found: Vec<Gateway> = routes.lines().filter_map(parse_v4).collect();
    // A kernel without IPv6 has no such file, and `ip` would fail.
    if appliance.at("/proc/net/if_inet6").exists() {
        let show = Cmd::new("ip").args(["-o", "-6", "route", "show", "default"]);
        let routes = appliance.sys.run(&show)?;
        found.extend(routes.lines().flat_map(parse_v6));
    }
    Ok(found)
}

/// Asks for the hardware address of each gateway (ARP, neighbour discovery); returns
/// whether it came, where the kernel knows. What does not answer a ping, as many do
/// not, answers that all the same.
///
/// # Errors
/// When the kernel's neighbours cannot be read.
pub fn ask(appliance: &Appliance, gateways: &[Gateway]) -> Result<Vec<(String, bool)>> {
    if gateways.is_empty() {
        return Ok(Vec::new());
    }
    for gateway in gateways {
        let target = match gateway.address.starts_with("fe80:") {
            true => format!("{}%{}", gateway.address, gateway.interface),
            false => gateway.address.clone(),
        };
        // The answer is read below; without the program there is none.
        let _ = appliance
            .sys
            .run(&Cmd::new("ping").args(["-c", "1", "-W", "1", &target]));
    }
    let show = Cmd::new("ip").args(["-o", "neigh", "show"]);
    let neighbours = appliance.sys.run(&show)?;
    let addresses: BTreeSet<&String> = gateways.iter().map(|it| &it.address).collect();
    let known = addresses.into_iter().filter_map(|address| {
        let states: Vec<bool> = neighbours
            .lines()
            .filter_map(|line| parse_neighbour(line, address))
            .collect();
        (!states.is_empty()).then(|| (address.clone(), states.contains(&true)))
    });
    Ok(known.collect())
}

/// Reads the gateway of a default route in `/proc/net/route` (proc(5)).
fn parse_v4(line: &str) -> Option<Gateway> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [interface, destination, gateway, ..] = fields[..] else {
        return None;
    };
    let gateway = u32::from_str_radix(gateway, 16).ok().filter(|g| *g != 0)?;
    (destination == "00000000").then(|| Gateway {
        address: Ipv4Addr::from(gateway.to_le_bytes()).to_string(),
        interface: interface.to_owned(),
        is_announced: false,
    })
}

/// Reads `default via fe80::1 dev eth0 proto ra metric 100 ...`, where several ways
/// may follow each other as `nexthop via fe80::1 dev eth0 ...`.
fn parse_v6(line: &str) -> Vec<Gateway> {
    let words: Vec<&str> = line.split([' ', '\t', '\\']).collect();
    let is_announced = words.windows(2).any(|pair| pair == ["proto", "ra"])
        // Kernels before 4.16 do not say who made the routes of their own.
        || words.windows(2).any(|pair| pair == ["proto", "kernel"])
        || words.contains(&"expires");
    let ways = words.windows(4).filter_map(|way| match way {
        ["via", address, "dev", interface] => Some(Gateway {
            address: (*address).to_owned(),
            interface: (*interface).to_owned(),
            is_announced,
        }),
        _ => None,
    });
    ways.collect()
}

/// Reads `10.0.2.2 dev eth0 lladdr 52:55:0a:00:02:02 REACHABLE` where it is about
/// `address`; tells whether that answers, where it has been asked.
fn parse_neighbour(line: &str, address: &str) -> Option<bool> {
    let mut words = line.split_whitespace();
    if words.next() != Some(address) {
        return None;
    }
    match words.next_back() {
        Some("FAILED" | "INCOMPLETE") => Some(false),
        Some("NONE") | None => None,
        Some(_) => Some(true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_routes_are_read() {
        let gateway = |address: &str, is_announced| Gateway {
            address: address.into(),
            interface: "eth0".into(),
            is_announced,
        };
        let line = "eth0\t00000000\t0202000A\t0003\t0\t0\t0\t0";
        assert_eq!(parse_v4(line), Some(gateway("10.0.2.2", false)));
        for line in [
            "eth0\t0002000A\t00000000\t0001\t0\t0\t0\t0",
            "Iface\tDestination\tGateway",
            "",
        ] {
            assert_eq!(parse_v4(line), None);
        }
        let line = "default via 2001:db8::1 dev eth0 proto static metric 100 pref medium";
        assert_eq!(parse_v6(line), [gateway("2001:db8::1", false)]);
        for line in [
            "default via fe80::1 dev eth0 proto ra metric 1024 expires 1789sec hoplimit 64",
            "default via fe80::1 dev eth0  proto kernel  metric 1024",
            "default proto ra metric 100\\\tnexthop via fe80::1 dev eth0 weight 1",
        ] {
            assert_eq!(parse_v6(line), [gateway("fe80::1", true)], "{line}");
        }
        assert_eq!(parse_v6("default dev tun0 metric 50"), []);
    }

    #[test]
    fn a_neighbour_answers_or_not_or_nobody_knows() {
        let said = |line: &str| parse_neighbour(line, "10.0.2.2");
        for state in ["REACHABLE", "STALE", "DELAY", "PROBE", "PERMANENT", "NOARP"] {
            let line = format!("10.0.2.2 dev eth0 lladdr 52:55:0a:00:02:02 {state} ");
            assert_eq!(said(&line), Some(true), "{line}");
        }
        assert_eq!(said("10.0.2.2 dev eth0  FAILED"), Some(false));
        assert_eq!(said("10.0.2.2 dev eth0 INCOMPLETE"), Some(false));
        for line in ["10.0.2.20 dev eth0 FAILED", "10.0.2.2 dev eth0 NONE", ""] {
            assert_eq!(said(line), None, "{line}");
        }
    }
}
