//! What is written down of a network card.

use serde::{Deserialize, Serialize};

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

/// Tells whether `name` may stand in a file's name and in a command as it is; the
/// kernel takes up to 15 bytes of anything but blanks, slashes and colons.
pub fn is_plain(name: &str) -> bool {
    let is_fine = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    (1..=15).contains(&name.len())
        && name.chars().all(is_fine)
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
}

/// Tells whether `text` is an address of Ethernet that belongs to somebody.
pub fn is_mac(text: &str) -> bool {
    let pairs: Vec<&str> = text.split(':').collect();
    let is_pair = |pair: &&str| pair.len() == 2 && pair.chars().all(|c| c.is_ascii_hexdigit());
    pairs.len() == 6 && pairs.iter().all(is_pair) && pairs.iter().any(|pair| *pair != "00")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_are_told_from_what_only_looks_like_them() {
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
