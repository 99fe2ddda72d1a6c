//! The network cards of this machine, and how each keeps its name.
//!
//! - [`interfaces`]: which interfaces are cards, which stand on top of them
//! - [`naming`]: which cards have another one's name, and the way out as a plan
//! - [`rename`]: the plan carried out
//!
//! A card is known by the hardware address that it was made with. Order, driver
//! and bus path may be others in the next system.

pub mod interfaces;
pub mod naming;
pub mod rename;

use serde::{Deserialize, Serialize};

pub use interfaces::Interfaces;

/// The record's name in a slot's directory on `/boot`, and among a system's
/// settings where we are to name its cards.
pub const FILE: &str = "cards.yaml";

/// A card and what the kernel says of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Card {
    /// The name of its interface.
    pub name: String,
    /// Its permanent hardware address.
    pub mac: String,
    /// The kernel's driver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// Where it is plugged in, as `ethtool -i` tells: `0000:03:00.0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bus: Option<String>,
    /// The largest packet, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Whether the interface is switched on.
    #[serde(default)]
    pub is_up: bool,
    /// The bond, bridge or team it is part of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub master: Option<String>,
}

/// The cards of a machine as they are written down.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// All of them, by name.
    pub cards: Vec<Card>,
}

/// How a card gets its name in a system that has not run yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Means {
    /// A file that udev reads.
    Link,
    /// Our service, early in each start: udev does not rename into the kernel's
    /// own names, which may be taken by another card.
    Service,
    /// None: the address is shared, or not one of Ethernet.
    Nothing,
}

impl Card {
    /// Returns how this card is to get its name, beside `all` that the machine has.
    pub fn means(&self, all: &Interfaces) -> Means {
        if !is_plain(&self.name) || !is_mac(&self.mac) || !all.is_told_apart(self) {
            Means::Nothing
        } else if is_kernels(&self.name) {
            Means::Service
        } else {
            Means::Link
        }
    }
}

/// Tells whether `name` may stand in a file's name and in a command as it is; the
/// kernel takes up to 15 bytes of anything but blanks, slashes and colons.
pub fn is_plain(name: &str) -> bool {
    let is_fine = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    (1..=15).contains(&name.len())
        && name.chars().all(is_fine)
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
}

/// Tells whether the kernel itself gives names like `name`.
fn is_kernels(name: &str) -> bool {
    let number = name.strip_prefix("eth").unwrap_or_default();
    !number.is_empty() && number.chars().all(|c| c.is_ascii_digit())
}

/// Tells whether `text` is an address of Ethernet that belongs to somebody.
fn is_mac(text: &str) -> bool {
    let pairs: Vec<&str> = text.split(':').collect();
    let is_pair = |pair: &&str| pair.len() == 2 && pair.chars().all(|c| c.is_ascii_hexdigit());
    pairs.len() == 6 && pairs.iter().all(is_pair) && pairs.iter().any(|pair| *pair != "00")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_are_told_from_what_only_looks_like_them() {
        for name in ["eth0", "eth12"] {
            assert!(is_kernels(name) && is_plain(name), "{name}");
        }
        for name in ["eth", "ethx", "ens192", "lan0", "eth0.5"] {
            assert!(!is_kernels(name) && is_plain(name), "{name}");
        }
        for name in [
            "",
            ".",
            "..",
            "-a",
            "a b",
            "a/b",
            "\x1b[2J",
            "more-than-15-is",
        ] {
            let fits = name == "more-than-15-is";
            assert_eq!(is_plain(name), fits, "{name:?}");
        }
        assert!(!is_plain("more-than-15-is-"));
        assert!(is_mac("00:50:56:ab:CD:01"));
        for address in [
            "",
            "00:00:00:00:00:00",
            "00:50:56:ab:cd",
            "80:00:00:48:fe:80:00:00:00",
        ] {
            assert!(!is_mac(address), "{address}");
        }
    }
}
