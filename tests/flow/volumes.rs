//! A volume group of the fake machine that can be changed: a file that says what is
//! in it, for as long as it is there.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use va_upgrade::system::Cmd;

use crate::machine::Machine;

/// The bytes of an extent.
pub const EXTENT: u64 = 4 << 20;

/// What the volume group `vg0` holds.
const GROUP: &str = "/lvm/vg0";

/// The swap area: its size in bytes, and its UUID.
const SWAP: &str = "/lvm/swap";

/// Gives the machine the volume group `vg0` of so many extents, with these volumes.
pub fn make(machine: &Machine, extents: u64, volumes: &[(&str, u64)]) {
    let volumes = volumes
        .iter()
        .map(|(name, size)| ((*name).to_owned(), *size));
    let group = Group {
        extents,
        volumes: volumes.collect(),
    };
    group.save(machine);
    for (number, name) in group.volumes.keys().enumerate() {
        add_device(machine, name, number + 10);
    }
}

/// Has the kernel swap to the volume `swap`, of which so many bytes are in use.
pub fn swap_to(machine: &Machine, used_kib: u64) {
    let size = Group::load(machine).volumes["swap"] * EXTENT;
    machine.write(SWAP, &format!("{size} swap-uuid"));
    turn_on(machine, used_kib);
}

/// Returns the sizes of the volumes, the swap area among them.
pub fn sizes(machine: &Machine) -> Vec<(String, u64)> {
    Group::load(machine).volumes.into_iter().collect()
}

/// Returns the swap area, and whether it is in use.
pub fn swap(machine: &Machine) -> (String, bool) {
    let is_on = machine.read("/proc/swaps").lines().count() > 1;
    (machine.read(SWAP), is_on)
}

struct Group {
    extents: u64,
    volumes: BTreeMap<String, u64>,
}

impl Group {
    fn load(machine: &Machine) -> Group {
        let text = machine.read(GROUP);
        let mut rows = text.lines().map(|line| line.split_once(' ').unwrap());
        let row = |(name, size): (&str, &str)| (name.to_owned(), size.parse().unwrap());
        let (_, extents) = row(rows.next().unwrap());
        Group {
            extents,
            volumes: rows.map(row).collect(),
        }
    }

    fn save(&self, machine: &Machine) {
        let mut text = format!("extents {}\n", self.extents);
        for (name, size) in &self.volumes {
            text += &format!("{name} {size}\n");
        }
        machine.write(GROUP, &text);
    }

    fn free(&self) -> u64 {
        self.extents - self.volumes.values().sum::<u64>()
    }
}

/// Does what `cmd` does to the volume group, where there is one and it is about it.
pub fn run(machine: &Machine, cmd: &Cmd) -> Result<Option<String>> {
    if !machine.at(GROUP).exists() {
        return Ok(None);
    }
    let program = cmd.program().to_string_lossy().into_owned();
    let args: Vec<String> = cmd
        .arguments()
        .iter()
        .map(|arg| arg.to_string_lossy().into_owned())
        .collect();
    let text = cmd.to_string();
    let mut group = Group::load(machine);
    let last = args.last().map(String::as_str).unwrap_or_default();
    let option = |name: &str| args.iter().find_map(|arg| arg.strip_prefix(name));
    let extents = || -> Result<u64> { Ok(option("--extents=").context("no size")?.parse()?) };
    let output = match program.as_str() {
        "lvs" if text.contains("vg_name") => list(&group, |name, _| format!("vg0|{name}")),
        "lvs" => list(&group, |name, size| {
            format!("{name}|{}|linear", size * EXTENT)
        }),
        "vgs" if text.contains("extent") => format!("  {EXTENT}|{}\n", group.free()),
        "vgs" => "  vg0|uuid-1|\n".into(),
        "pvs" => "  vg0|/dev/vda3\n".into(),
        "pvresize" => {
            let sectors: u64 = machine.read("/sys/devices/vda/vda3/size").trim().parse()?;
            group.extents = sectors * 512 / EXTENT;
            String::new()
        }
        "lvcreate" => {
            let name = args[args.len() - 2].clone();
            let size = extents()?;
            ensure!(size <= group.free(), "insufficient free space");
            ensure!(!group.volumes.contains_key(&name), "{name} already exists");
            add_device(machine, &name, 20 + group.volumes.len());
            group.volumes.insert(name, size);
            String::new()
        }
        "lvremove" => {
            let name = last.strip_prefix("vg0/").context("of another group")?;
            assert!(
                !["root", "swap"].contains(&name),
                "{name} is the customer's"
            );
            group.volumes.remove(name).context("no such volume")?;
            remove_device(machine, name);
            String::new()
        }
        "lvreduce" | "lvextend" => {
            let name = last.strip_prefix("vg0/").context("of another group")?;
            let size = extents()?;
            let (is_smaller, free) = (program == "lvreduce", group.free());
            let volume = group.volumes.get_mut(name).context("no such volume")?;
            ensure!((size < *volume) == is_smaller, "matches the existing size");
            ensure!(size <= *volume + free, "insufficient free space");
            if is_smaller {
                assert_eq!(name, "swap", "only swap becomes smaller");
                assert!(!swap(machine).1, "swap in use is cut off");
            }
            *volume = size;
            String::new()
        }
        "swapoff" | "swapon" => {
            ensure!(last == "/dev/mapper/vg0-swap", "no swap: {last}");
            match program.as_str() {
                "swapon" => {
                    let area = swap(machine).0;
                    let bytes: u64 = area.split_once(' ').unwrap().0.parse()?;
                    ensure!(
                        bytes <= group.volumes["swap"] * EXTENT,
                        "swap area is too short"
                    );
                    turn_on(machine, 0);
                }
                _ => machine.write("/proc/swaps", "Filename Type Size Used Priority\n"),
            }
            String::new()
        }
        "mkswap" => {
            ensure!(!swap(machine).1, "exit status: 1: is mounted");
            let kib: u64 = last.parse()?;
            assert!(kib * 1024 <= group.volumes["swap"] * EXTENT);
            machine.write(SWAP, &format!("{} {}", kib * 1024, args[1]));
            String::new()
        }
        "blkid" if last == "/dev/mapper/vg0-swap" => match text.contains("UUID") {
            true => machine.read(SWAP).split_once(' ').unwrap().1.to_owned(),
            false => bail!("exit status: 2"),
        },
        "blkid" if last.starts_with("/dev/mapper/vg0-") && text.contains("TYPE") => {
            ensure!(
                device_dir(machine, last).join("lost+found").exists(),
                "exit status: 2"
            );
            "ext4\n".into()
        }
        "partx" => {
            let growth = va_upgrade::disk::gpt::size_bytes(&machine.at("/dev/vda"), 2)?;
            let sectors = format!("{}\n", growth / 512);
            machine.write("/sys/devices/vda/vda3/size", &sectors);
            String::new()
        }
        "resize2fs" | "nsenter" => String::new(),
        _ => return Ok(None),
    };
    group.save(machine);
    Ok(Some(output))
}

fn list(group: &Group, row: impl Fn(&str, u64) -> String) -> String {
    let rows = group.volumes.iter();
    rows.map(|(name, size)| format!("  {}\n", row(name, *size)))
        .collect()
}

/// Has the kernel use the swap area, so many KiB of it.
pub fn turn_on(machine: &Machine, used_kib: u64) {
    let text = format!("Filename Type Size Used Priority\n/dev/dm-1 partition 1 {used_kib} -2\n");
    machine.write("/proc/swaps", &text);
    machine.write("/sys/class/block/dm-1/dm/name", "vg0-swap\n");
}

fn device_dir(machine: &Machine, device: &str) -> std::path::PathBuf {
    machine.device_dir(Path::new(device))
}

fn devices(name: &str) -> [String; 2] {
    [
        format!("/dev/vg0/{name}"),
        format!("/dev/mapper/vg0-{name}"),
    ]
}

fn add_device(machine: &Machine, name: &str, number: usize) {
    for device in devices(name) {
        machine.write(&device, "");
        fs::create_dir_all(device_dir(machine, &device)).unwrap();
    }
    let number = format!("/sys/dev/block/253:{number}/dm/name");
    machine.write(&number, &format!("vg0-{name}\n"));
}

fn remove_device(machine: &Machine, name: &str) {
    for device in devices(name) {
        let _ = fs::remove_file(machine.at(&device));
        let _ = fs::remove_dir_all(device_dir(machine, &device));
    }
}
