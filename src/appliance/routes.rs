//! Routes that somebody has configured, beside the default ones.

use std::net::IpAddr;

use anyhow::Result;

use super::context::Appliance;
use crate::system::Cmd;

/// A route to a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The network, and behind `via` who knows the way, where it is not at hand.
    pub text: String,
    /// The interface.
    pub interface: String,
}

/// Lists those that configuration or a script made; not the kernel's own, a routing
/// daemon's, or a router's.
///
/// # Errors
/// When `ip` fails.
pub fn look(appliance: &Appliance) -> Result<Vec<Route>> {
    let show = |family: &str| {
        let show = Cmd::new("ip").args(["-o", family, "route", "show"]);
        appliance.sys.run(&show)
    };
    let mut text = show("-4")?;
    // A kernel without IPv6 has no such file, and `ip` would fail.
    if appliance.at("/proc/net/if_inet6").exists() {
        text += &show("-6")?;
    }
    Ok(text.lines().filter_map(parse).collect())
}

/// Reads `10.1.0.0/16 via 10.0.0.1 dev eth0 proto static metric 100`; what a script
/// made with `ip route add` has no `proto`.
fn parse(line: &str) -> Option<Route> {
    let words: Vec<&str> = line
        .split([' ', '\t', '\\'])
        .filter(|word| !word.is_empty())
        .collect();
    let behind = |word: &str| {
        let pairs = words.windows(2).filter(|pair| pair[0] == word);
        pairs.map(|pair| pair[1]).collect::<Vec<_>>()
    };
    if !matches!(behind("proto")[..], [] | ["static" | "boot"]) {
        return None;
    }
    let to = *words.first()?;
    let address: IpAddr = to.split('/').next()?.parse().ok()?;
    // Made by scripts of RHEL 7 for each card, and by kernels.
    let is_local = match address {
        IpAddr::V4(address) => address.is_link_local() || address.is_multicast(),
        IpAddr::V6(address) => address.is_unicast_link_local() || address.is_multicast(),
    };
    if is_local {
        return None;
    }
    let via = behind("via");
    let text = match via.is_empty() {
        true => to.to_owned(),
        false => format!("{to} via {}", via.join(", ")),
    };
    let interface = (*behind("dev").first()?).to_owned();
    Some(Route { text, interface })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_that_somebody_configured_are_told_from_all_others() {
        for (line, wanted) in [
            (
                "10.1.0.0/16 via 10.0.0.1 dev eth0 proto static metric 100 ",
                Some("10.1.0.0/16 via 10.0.0.1"),
            ),
            (
                "10.2.0.0/16 via 10.0.0.2 dev eth0 ",
                Some("10.2.0.0/16 via 10.0.0.2"),
            ),
            ("10.9.9.9 dev eth0 scope link", Some("10.9.9.9")),
            (
                "10.3.0.0/16 proto static \\\tnexthop via 10.0.0.1 dev eth0 weight 1 \
                 \\\tnexthop via 10.0.0.2 dev eth0 weight 1",
                Some("10.3.0.0/16 via 10.0.0.1, 10.0.0.2"),
            ),
            (
                "2001:db8:1::/48 via fe80::1 dev eth0 proto static pref medium",
                Some("2001:db8:1::/48 via fe80::1"),
            ),
            (
                "10.0.0.0/24 dev eth0 proto kernel scope link src 10.0.0.5",
                None,
            ),
            ("10.4.0.0/16 via 10.0.0.1 dev eth0 proto bird", None),
            ("10.5.0.0/16 via 10.0.0.1 dev eth0 proto dhcp", None),
            ("default via 10.0.0.1 dev eth0 proto static", None),
            ("169.254.0.0/16 dev eth0 scope link metric 1002", None),
            ("fe80::/64 dev eth0 metric 256", None),
            ("unreachable 10.6.0.0/16 dev lo", None),
            ("", None),
        ] {
            let found = parse(line);
            assert_eq!(found.as_ref().map(|it| &it.text[..]), wanted, "{line}");
            assert!(found.is_none_or(|it| it.interface == "eth0"));
        }
    }
}
