//! The interfaces of the kernel, read from sysfs (Linux,
//! Documentation/ABI/testing/sysfs-class-net).
//!
//! A card is an interface with a device behind it. Bonds, bridges, teams, VLANs
//! and the ends of containers have none. Two interfaces with devices may be one
//! card: on Azure a virtual function hangs below the `hv_netvsc` interface with the
//! same address, and comes and goes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::card::{Card, Record, is_mac};
use crate::appliance::context::Appliance;
use crate::system::Cmd;

/// The driver whose interface stands for a card of Azure.
const AZURE: &str = "hv_netvsc";

/// Every interface of the machine.
#[derive(Clone, Debug, Default)]
pub struct Interfaces {
    /// The cards, by name.
    pub cards: Vec<Card>,
    /// Interfaces with a device that are part of a card in `cards`.
    pub parts: Vec<Card>,
    /// The current address of every interface, by name.
    addresses: BTreeMap<String, String>,
    /// The interfaces that each one stands on.
    below: BTreeMap<String, BTreeSet<String>>,
}

impl Interfaces {
    /// Looks at the running system.
    ///
    /// # Errors
    /// When the kernel's list cannot be read.
    pub fn look(appliance: &Appliance) -> Result<Interfaces> {
        let dir = appliance.at("/sys/class/net");
        let listed = fs::read_dir(&dir).with_context(|| format!("listing {}", dir.display()))?;
        let mut found = Interfaces::default();
        let mut by_index = BTreeMap::new();
        for entry in listed {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = entry.path();
            // The bonding driver keeps a file of its own there.
            let Some(address) = value(&path, "address") else {
                continue;
            };
            if path.join("device").exists() {
                let mac = permanent(appliance, &name, &path, &address);
                found.cards.push(card(&name, mac, &path));
            }
            if let Some(index) = value(&path, "ifindex") {
                by_index.insert(index, name.clone());
            }
            found.addresses.insert(name, address);
        }
        found.cards.sort_by(|a, b| a.name.cmp(&b.name));
        let names: Vec<String> = found.addresses.keys().cloned().collect();
        for name in &names {
            found.relate(&dir, name, &by_index);
        }
        found.set_parts_aside();
        Ok(found)
    }

    /// Returns interfaces of which only the cards were written down.
    pub fn recorded(record: Record) -> Interfaces {
        let addresses = record
            .cards
            .iter()
            .map(|card| (card.name.clone(), card.mac.clone()));
        Interfaces {
            addresses: addresses.collect(),
            cards: record.cards,
            ..Interfaces::default()
        }
    }

    /// Returns the cards as they are written down.
    pub fn record(&self) -> Record {
        Record {
            cards: self.cards.clone(),
        }
    }

    /// Tells whether an interface is called `name`.
    pub fn has(&self, name: &str) -> bool {
        self.addresses.contains_key(name)
    }

    /// Returns the card `name`, or those that the interface of that name stands on.
    pub fn cards_under(&self, name: &str) -> Vec<&Card> {
        let mut names = BTreeSet::from([name]);
        let mut todo = vec![name];
        while let Some(next) = todo.pop() {
            let below = self.below.get(next).into_iter().flatten();
            todo.extend(
                below
                    .filter(|lower| names.insert(lower.as_str()))
                    .map(String::as_str),
            );
        }
        let is_under = |card: &&Card| names.contains(card.name.as_str());
        let found: Vec<&Card> = self.cards.iter().filter(is_under).collect();
        if !found.is_empty() {
            return found;
        }
        let address = self.addresses.get(name);
        let has_address = |card: &&Card| Some(&card.mac) == address;
        self.cards.iter().filter(has_address).collect()
    }

    /// Returns the permanent address of each card that uses another one now, by that.
    pub fn borrowed(&self) -> BTreeMap<String, String> {
        let pairs = self.cards.iter().map(|card| {
            let now = self.addresses.get(&card.name).cloned().unwrap_or_default();
            (now, card.mac.clone())
        });
        pairs.filter(|(now, mac)| now != mac).collect()
    }

    /// Tells whether nothing else has the address and the driver of `card`.
    pub fn is_told_apart(&self, card: &Card) -> bool {
        let all = || self.cards.iter().chain(&self.parts);
        let mut alike = all().filter(|it| it.mac == card.mac && it.driver == card.driver);
        alike.all(|it| it.name == card.name)
    }

    /// Tells whether something with another driver has the address of `card`.
    pub fn has_twin(&self, card: &Card) -> bool {
        let mut all = self.cards.iter().chain(&self.parts);
        all.any(|it| it.mac == card.mac && it.name != card.name)
    }

    /// Notes what the interface `name` stands on. Which of the kernel's words are
    /// there depends on its age.
    fn relate(&mut self, class_net: &Path, name: &str, by_index: &BTreeMap<String, String>) {
        let dir = class_net.join(name);
        let mut below = BTreeSet::new();
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let file = entry.file_name().to_string_lossy().into_owned();
            below.extend(file.strip_prefix("lower_").map(str::to_owned));
        }
        for port in fs::read_dir(dir.join("brif"))
            .into_iter()
            .flatten()
            .flatten()
        {
            below.insert(port.file_name().to_string_lossy().into_owned());
        }
        let slaves = value(&dir.join("bonding"), "slaves").unwrap_or_default();
        below.extend(slaves.split_whitespace().map(str::to_owned));
        let kind = value(&dir, "uevent").unwrap_or_default();
        if ["DEVTYPE=vlan", "DEVTYPE=macvlan"]
            .iter()
            .any(|it| kind.lines().any(|l| l == *it))
        {
            let lower = value(&dir, "iflink").and_then(|index| by_index.get(&index));
            below.extend(lower.cloned());
        }
        below.remove(name);
        self.below.entry(name.to_owned()).or_default().extend(below);
        if let Some(master) = link_name(&dir.join("master")) {
            self.below
                .entry(master)
                .or_default()
                .insert(name.to_owned());
        }
    }

    fn set_parts_aside(&mut self) {
        let all = self.cards.clone();
        let is_part = |card: &Card| {
            let hangs_below = |other: &Card| Some(&other.name) == card.master.as_ref();
            let is_of_azure = |other: &Card| {
                let driver = |card: &Card| card.driver.as_deref() == Some(AZURE);
                other.mac == card.mac && driver(other) && !driver(card)
            };
            all.iter()
                .any(|other| hangs_below(other) || is_of_azure(other))
        };
        (self.parts, self.cards) = self.cards.drain(..).partition(is_part);
    }
}

fn card(name: &str, mac: String, dir: &Path) -> Card {
    const IFF_UP: u32 = 1;
    let flags = value(dir, "flags").unwrap_or_default();
    let flags = u32::from_str_radix(flags.trim_start_matches("0x"), 16).unwrap_or_default();
    Card {
        name: name.to_owned(),
        mac,
        driver: link_name(&dir.join("device/driver")),
        bus: bus_path(&dir.join("device")),
        mtu: value(dir, "mtu").and_then(|mtu| mtu.parse().ok()),
        is_up: flags & IFF_UP != 0,
        master: link_name(&dir.join("master")),
    }
}

/// Returns the PCI address of a device, or of the one it is a function of, as
/// virtio's are; elsewhere its own name on its bus.
fn bus_path(device: &Path) -> Option<String> {
    let path = fs::canonicalize(device).ok()?;
    let name = |part: &std::ffi::OsStr| part.to_string_lossy().into_owned();
    let is_pci = |name: &String| {
        let parts: Vec<&str> = name.split([':', '.']).collect();
        let is_number = |part: &&str| u32::from_str_radix(part, 16).is_ok();
        parts.len() == 4 && name.len() >= 12 && parts.iter().all(is_number)
    };
    let pci = path.iter().rev().map(name).find(is_pci);
    pci.or_else(|| path.file_name().map(name))
}

/// Returns the address that a card was made with. Only kernels since 5.6 tell it of
/// every card that uses another one, and only through their newer tools.
fn permanent(appliance: &Appliance, name: &str, dir: &Path, address: &str) -> String {
    const AS_MADE: &str = "0";
    let assigned = value(dir, "addr_assign_type").unwrap_or_default();
    if assigned.is_empty() || assigned == AS_MADE {
        return address.to_owned();
    }
    let of_bond = value(&dir.join("bonding_slave"), "perm_hwaddr");
    let told = || {
        // An older tool or kernel does not say, or is not there.
        let link = Cmd::new("ip").args(["-o", "link", "show", "dev", name]);
        let link = appliance.sys.run(&link).unwrap_or_default();
        word_behind(&link, "permaddr").or_else(|| {
            let asked = Cmd::new("ethtool").args(["-P", name]);
            word_behind(&appliance.sys.run(&asked).unwrap_or_default(), "address:")
        })
    };
    let known = of_bond.or_else(told).map(|mac| mac.to_lowercase());
    known
        .filter(|mac| is_mac(mac))
        .unwrap_or_else(|| address.to_owned())
}

fn word_behind(text: &str, key: &str) -> Option<String> {
    let mut words = text.split_whitespace();
    words.find(|word| *word == key)?;
    words.next().map(str::to_owned)
}

fn value(dir: &Path, name: &str) -> Option<String> {
    let text = fs::read_to_string(dir.join(name)).ok()?;
    Some(text.trim().to_owned())
}

/// Returns the name of what a link leads to.
fn link_name(link: &Path) -> Option<String> {
    let end = fs::read_link(link).ok()?;
    Some(end.file_name()?.to_string_lossy().into_owned())
}
