//! Logical volumes made, resized and removed, and the room there is for them.
//!
//! Sizes are in extents of the volume group. Nothing here asks whether it is a good
//! time; each call does one thing that LVM does whole or not at all.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::system::{Cmd, System};

/// The room in a volume group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// The size of an extent.
    pub extent_bytes: u64,
    /// How many are free.
    pub free_extents: u64,
}

impl Room {
    /// Returns how many extents hold `bytes`.
    pub fn extents(self, bytes: u64) -> u64 {
        bytes.div_ceil(self.extent_bytes.max(1))
    }

    /// Returns what is free in bytes.
    pub fn free_bytes(self) -> u64 {
        self.free_extents.saturating_mul(self.extent_bytes)
    }
}

/// Returns the room in the volume group `vg`.
///
/// # Errors
/// When `vgs` fails or prints what it never did.
pub fn room(sys: &dyn System, vg: &str) -> Result<Room> {
    let out = sys.run(&report("vgs", "--options=vg_extent_size,vg_free_count").arg(vg))?;
    let numbers: Vec<u64> = out
        .trim()
        .split('|')
        .map(str::parse)
        .collect::<Result<_, _>>()
        .with_context(|| format!("vgs printed {out:?}"))?;
    let [extent_bytes, free_extents] = numbers[..] else {
        bail!("vgs printed {out:?}, not two numbers");
    };
    Ok(Room {
        extent_bytes,
        free_extents,
    })
}

/// Returns the name of the volume group and of the volume of each logical volume
/// of this machine.
///
/// # Errors
/// When `lvs` fails.
pub fn names(sys: &dyn System) -> Result<Vec<(String, String)>> {
    let out = sys.run(&report("lvs", "--options=vg_name,lv_name"))?;
    let rows = out.lines().filter_map(|line| line.trim().split_once('|'));
    Ok(rows
        .map(|(group, volume)| (group.to_owned(), volume.to_owned()))
        .collect())
}

/// Returns the physical volumes of `vg`.
///
/// # Errors
/// When `pvs` fails.
pub fn physical(sys: &dyn System, vg: &str) -> Result<Vec<PathBuf>> {
    let out = sys.run(&report("pvs", "--options=vg_name,pv_name"))?;
    let rows = out.lines().filter_map(|line| line.trim().split_once('|'));
    let own = rows.filter(|(group, _)| *group == vg);
    Ok(own.map(|(_, device)| PathBuf::from(device)).collect())
}

/// Makes a linear volume of so many extents, without any signature on it.
///
/// # Errors
/// When `lvcreate` fails.
pub fn create(sys: &dyn System, vg: &str, volume: &str, extents: u64) -> Result<()> {
    let size = format!("--extents={extents}");
    // Old signatures are wiped, and nobody is asked whether they may be.
    let words = ["--yes", "--wipesignatures=y", "--zero=y", "--type=linear"];
    let cmd = Cmd::new("lvcreate").args(words);
    sys.run(&cmd.args([&size, "--name", volume, vg])).map(drop)
}

/// Removes a volume with all that is on it.
///
/// # Errors
/// When `lvremove` fails, as it does while the volume is in use.
pub fn remove(sys: &dyn System, vg: &str, volume: &str) -> Result<()> {
    let name = format!("{vg}/{volume}");
    let cmd = Cmd::new("lvremove").args(["--yes", "--force", &name]);
    sys.run(&cmd).map(drop)
}

/// Makes a volume so many extents large, which is more than it has.
///
/// # Errors
/// When `lvextend` fails.
pub fn enlarge(sys: &dyn System, vg: &str, volume: &str, extents: u64) -> Result<()> {
    resize(sys, "lvextend", &[], vg, volume, extents)
}

/// Makes a volume so many extents large, which is less than it has; what is behind
/// them is gone.
///
/// # Errors
/// When `lvreduce` fails.
pub fn shrink(sys: &dyn System, vg: &str, volume: &str, extents: u64) -> Result<()> {
    resize(sys, "lvreduce", &["--force"], vg, volume, extents)
}

fn resize(
    sys: &dyn System,
    program: &str,
    words: &[&str],
    vg: &str,
    volume: &str,
    extents: u64,
) -> Result<()> {
    let cmd = Cmd::new(program).args(["--yes"]).args(words);
    let (size, name) = (format!("--extents={extents}"), format!("{vg}/{volume}"));
    sys.run(&cmd.args([size, name])).map(drop)
}

/// Has the physical volume `device` take all of its partition.
///
/// # Errors
/// When `pvresize` fails.
pub fn resize_physical(sys: &dyn System, device: &Path) -> Result<()> {
    sys.run(&Cmd::new("pvresize").arg(device)).map(drop)
}

fn report(program: &str, columns: &str) -> Cmd {
    let words = ["--noheadings", "--nosuffix", "--units=b", "--separator=|"];
    Cmd::new(program).args(words).arg(columns)
}
