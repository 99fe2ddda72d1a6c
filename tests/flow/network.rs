//! The network of the fake machine: cards in sysfs, and `ip`.

use std::fs;
use std::os::unix::fs::symlink;

use anyhow::{Context, Result, bail, ensure};
use va_upgrade::system::Cmd;

use crate::machine::Machine;

/// Plugs a card in.
pub struct Plug<'a> {
    pub name: &'a str,
    pub mac: &'a str,
    pub driver: &'a str,
    /// The path of its device below `/sys/devices`.
    pub device: &'a str,
}

impl Plug<'_> {
    pub fn plug_into(&self, machine: &Machine) {
        let class = format!("/sys/class/net/{}", self.name);
        let device = format!("/sys/devices/{}", self.device);
        let driver = format!("/sys/bus/any/drivers/{}", self.driver);
        for dir in [&class, &device, &driver] {
            fs::create_dir_all(machine.at(dir)).unwrap();
        }
        for (file, text) in [
            ("address", self.mac),
            ("addr_assign_type", "0"),
            ("mtu", "1500"),
            ("flags", "0x1003"),
        ] {
            machine.write(&format!("{class}/{file}"), &format!("{text}\n"));
        }
        link(machine, &format!("{class}/device"), &device);
        link(machine, &format!("{device}/driver"), &driver);
    }
}

/// Makes a link that leads to another path of the machine.
pub fn link(machine: &Machine, from: &str, to: &str) {
    fs::create_dir_all(machine.at(from).parent().unwrap()).unwrap();
    symlink(machine.at(to), machine.at(from)).unwrap();
}

/// Pulls the card that a fresh machine has.
pub fn pull_eth0(machine: &Machine) {
    fs::remove_dir_all(machine.at("/sys/class/net/eth0")).unwrap();
}

/// Does what `ip` does.
pub fn ip(machine: &Machine, cmd: &Cmd) -> Result<String> {
    let args: Vec<String> = cmd
        .arguments()
        .iter()
        .map(|arg| arg.to_string_lossy().into_owned())
        .collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let answer = |name: &str| machine.answered(name);
    Ok(match args[..] {
        ["-o", "addr", "show", "scope", "global"] => answer("ip")
            .unwrap_or_else(|| "2: eth0    inet 10.0.2.15/24 scope global eth0\n".into()),
        ["-o", "-6", "route", "show", "default"] => answer("ip -6 route").unwrap_or_default(),
        ["-o", "-4", "route", "show"] => answer("routes").unwrap_or_default(),
        ["-o", "-6", "route", "show"] => answer("routes -6").unwrap_or_default(),
        ["-o", "neigh", "show"] => answer("ip neigh")
            .unwrap_or_else(|| "10.0.2.2 dev eth0 lladdr 52:55:0a:00:02:02 REACHABLE\n".into()),
        ["-o", "link", "show", "dev", _] => answer("ip link").unwrap_or_default(),
        ["link", "set", "dev", name, "down"] => switch(machine, name, "0x1002")?,
        ["link", "set", "dev", name, "up"] => switch(machine, name, "0x1003")?,
        ["link", "set", "dev", from, "name", to] => rename(machine, from, to)?,
        _ => bail!("the fake machine's ip does not know {cmd}"),
    })
}

fn switch(machine: &Machine, name: &str, flags: &str) -> Result<String> {
    let path = machine.at(&format!("/sys/class/net/{name}/flags"));
    fs::write(path, flags).context("no such device")?;
    Ok(String::new())
}

/// The kernel takes a name once, and gives none to what is switched on.
fn rename(machine: &Machine, from: &str, to: &str) -> Result<String> {
    let at = |name: &str| machine.at(&format!("/sys/class/net/{name}"));
    let flags = fs::read_to_string(at(from).join("flags")).context("no such device")?;
    ensure!(!flags.trim().ends_with('3'), "device or resource busy");
    ensure!(!at(to).exists(), "file exists");
    fs::rename(at(from), at(to))?;
    Ok(String::new())
}
