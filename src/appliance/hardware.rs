//! The devices an appliance cannot do without, as sysfs shows them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::context::Appliance;

/// A bridge of the PCI bus (its class is 06), which needs no driver.
const BRIDGE: &str = "bc06";

/// A device that a driver has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// What it tells of itself, such as `pci:v00001AF4d00001000...`.
    pub modalias: String,
    /// The driver that has it in the running system.
    pub driver: String,
}

/// Lists the devices between `disk`, such as `/dev/sda`, and the processor.
///
/// # Errors
/// When sysfs cannot be read.
pub fn of_disk(appliance: &Appliance, disk: &Path) -> Result<Vec<Device>> {
    let name = disk.file_name().context("a disk without a name")?;
    let node = appliance.at("/sys/class/block").join(name);
    above(appliance, &node.join("device"))
}

/// A network card with the devices between it and the processor.
pub struct NetworkCard {
    /// Its name in the running system.
    pub name: String,
    /// Whether it is in use, and not only as a part of another interface, as the
    /// faster one of Azure's pairs is.
    pub is_up: bool,
    /// The devices.
    pub devices: Vec<Device>,
}

/// Lists the network cards.
///
/// # Errors
/// When sysfs cannot be read.
pub fn network_cards(appliance: &Appliance) -> Result<Vec<NetworkCard>> {
    let dir = appliance.at("/sys/class/net");
    let mut cards = Vec::new();
    let listed = fs::read_dir(&dir).with_context(|| format!("listing {}", dir.display()))?;
    for entry in listed {
        let entry = entry?;
        let node = entry.path();
        let state = fs::read_to_string(node.join("operstate")).unwrap_or_default();
        cards.push(NetworkCard {
            name: entry.file_name().to_string_lossy().into_owned(),
            is_up: state.trim() == "up" && !node.join("master").exists(),
            devices: above(appliance, &node.join("device"))?,
        });
    }
    cards.retain(|card| !card.devices.is_empty());
    cards.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(cards)
}

/// Lists the devices with a driver from `node` up.
fn above(appliance: &Appliance, node: &Path) -> Result<Vec<Device>> {
    if !node.exists() {
        return Ok(Vec::new());
    }
    let devices = fs::canonicalize(appliance.at("/sys/devices")).unwrap_or_default();
    let start = fs::canonicalize(node).with_context(|| format!("finding {}", node.display()))?;
    let inside = start.ancestors().take_while(|dir| *dir != devices);
    Ok(inside.filter_map(device).collect())
}

fn device(dir: &Path) -> Option<Device> {
    let driver: PathBuf = fs::read_link(dir.join("driver")).ok()?;
    let modalias = fs::read_to_string(dir.join("modalias")).ok()?;
    let device = Device {
        modalias: modalias.trim().to_owned(),
        driver: driver.file_name()?.to_string_lossy().into_owned(),
    };
    let is_bridge = device.modalias.starts_with("pci:") && device.modalias.contains(BRIDGE);
    (!is_bridge).then_some(device)
}
