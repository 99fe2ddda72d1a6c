//! The disk: its table, its partitions, its volumes.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::plan::Plan;
use crate::appliance::Appliance;
use crate::disk::group::NewGroup;
use crate::disk::table::{self, Purpose};
use crate::system::Cmd;

/// What the boot code says until GRUB takes its place.
const NOTICE: &str = "va-upgrade: the move to two slots was cut short (M99).\r\n\
                      This disk holds no system yet. Ask support for help.\r\n";

/// How much is cleared at both ends of a partition or volume: where file systems, LVM
/// and RAID have their signatures.
const WIPED_BYTES: u64 = 1 << 20;

/// How long devices are waited for, in seconds.
const PATIENCE_SECONDS: u32 = 30;

/// A disk on its way to a new layout.
pub struct Target<'a> {
    /// The machine.
    pub appliance: Appliance<'a>,
    /// The disk, as a path of the machine.
    pub disk: PathBuf,
    /// What it becomes.
    pub plan: Plan,
}

impl<'a> Target<'a> {
    /// The disk `disk`, which becomes `plan`.
    pub fn new(appliance: &Appliance<'a>, disk: &Path, plan: Plan) -> Target<'a> {
        Target {
            appliance: *appliance,
            disk: disk.to_owned(),
            plan,
        }
    }

    /// Returns where the disk is found.
    pub fn disk_file(&self) -> PathBuf {
        self.appliance.at(&self.disk)
    }

    /// Returns the device of a partition, as a path of the machine.
    pub fn partition(&self, purpose: Purpose) -> PathBuf {
        partition_of(&self.disk, self.plan.partition(purpose).number)
    }

    /// Returns the device of a volume, likewise.
    pub fn volume(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/dev/{}/{name}", self.appliance.config.vg))
    }

    /// Writes the new partition table.
    ///
    /// # Errors
    /// When it does not read back.
    pub fn write_table(&self) -> Result<()> {
        let disk = self.disk_file();
        table::write(
            &disk,
            self.plan.disk.size_bytes,
            &self.plan.partitions,
            NOTICE,
        )?;
        self.drop_cache(&self.disk)?;
        table::verify(&disk, &self.plan.partitions)
    }

    /// Has the kernel read the partition table.
    ///
    /// # Errors
    /// When it does not, as where a partition is in use.
    pub fn reread(&self) -> Result<()> {
        let sys = self.appliance.sys;
        sys.run(&Cmd::new("blockdev").arg("--rereadpt").arg(&self.disk))
            .map(drop)
    }

    /// Has the kernel read the new table, and waits for the partitions.
    ///
    /// # Errors
    /// When they do not come.
    pub fn await_partitions(&self) -> Result<()> {
        self.reread()?;
        let partitions = self.plan.partitions.iter();
        let devices: Vec<PathBuf> = partitions
            .map(|partition| partition_of(&self.disk, partition.number))
            .collect();
        self.await_devices(&devices)
    }

    /// Clears both ends of each partition, where older file systems and volumes
    /// have their signatures.
    ///
    /// # Errors
    /// When one cannot be written.
    pub fn wipe_partitions(&self) -> Result<()> {
        // A group of before, at the same place, may have been activated by itself.
        self.appliance
            .sys
            .run(&Cmd::new("lvm").args(["vgchange", "-an"]))?;
        for partition in &self.plan.partitions {
            let device = partition_of(&self.disk, partition.number);
            self.wipe(&device, partition.size_bytes)?;
            self.drop_cache(&device)?;
        }
        Ok(())
    }

    /// Makes the volume group and its volumes, and makes their devices appear.
    ///
    /// # Errors
    /// When a tool fails.
    pub fn make_group(&self) -> Result<()> {
        let group = self.group();
        let devices: Vec<PathBuf> = self
            .plan
            .volumes
            .iter()
            .map(|volume| self.volume(&volume.name))
            .collect();
        if devices
            .iter()
            .any(|device| self.appliance.at(device).exists())
        {
            // An earlier attempt came that far; if there is nothing, the next says so.
            let _ = group.deactivate();
        }
        group.make(&self.plan.volumes)?;
        group.activate()?;
        self.await_devices(&devices)?;
        for volume in &self.plan.volumes {
            let size = self.plan.volume_bytes(&volume.name);
            self.wipe(&self.volume(&volume.name), size)?;
        }
        Ok(())
    }

    /// Returns the volume group.
    pub fn group(&self) -> NewGroup<'_> {
        NewGroup {
            sys: self.appliance.sys,
            name: &self.appliance.config.vg,
            device: self.partition(Purpose::Lvm),
        }
    }

    /// Has the next reading of `device`, a path of the machine, come from the device.
    ///
    /// # Errors
    /// When the kernel cannot write what it still holds.
    pub fn drop_cache(&self, device: &Path) -> Result<()> {
        let sys = self.appliance.sys;
        sys.run(&Cmd::new("blockdev").arg("--flushbufs").arg(device))
            .map(drop)
    }

    fn wipe(&self, device: &Path, size_bytes: u64) -> Result<()> {
        let wipe = || -> Result<()> {
            let file = OpenOptions::new()
                .write(true)
                .open(self.appliance.at(device))?;
            let zeros = vec![0; usize::try_from(WIPED_BYTES.min(size_bytes))?];
            file.write_all_at(&zeros, 0)?;
            file.write_all_at(&zeros, size_bytes - zeros.len() as u64)?;
            Ok(file.sync_all()?)
        };
        wipe().with_context(|| format!("clearing the ends of {}", device.display()))
    }

    fn await_devices(&self, devices: &[PathBuf]) -> Result<()> {
        let sys = self.appliance.sys;
        for _ in 0..PATIENCE_SECONDS {
            // Where nothing runs that it could wait for, the kernel makes the devices.
            let _ = sys.run(&Cmd::new("udevadm").args(["settle", "--timeout=10"]));
            let is_missing = |device: &&PathBuf| !self.appliance.at(device).exists();
            if devices.iter().find(is_missing).is_none() {
                return Ok(());
            }
            // Where udev has no rules for LVM, it makes the links itself.
            let _ = sys.run(&Cmd::new("lvm").arg("vgmknodes"));
            sys.wait(Duration::from_secs(1));
        }
        let missing = devices
            .iter()
            .filter(|device| !self.appliance.at(device).exists());
        let names: Vec<String> = missing.map(|device| device.display().to_string()).collect();
        bail!("{} did not appear", names.join(", "))
    }
}

/// Returns the device of the partition `number`: a `p` stands between it and the name
/// of a disk that ends with a digit.
fn partition_of(disk: &Path, number: u32) -> PathBuf {
    let name = disk.display().to_string();
    let between = if name.ends_with(|c: char| c.is_ascii_digit()) {
        "p"
    } else {
        ""
    };
    PathBuf::from(format!("{name}{between}{number}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_named_as_the_kernel_names_them() {
        for (disk, wanted) in [
            ("/dev/vda", "/dev/vda2"),
            ("/dev/nvme0n1", "/dev/nvme0n1p2"),
        ] {
            assert_eq!(partition_of(Path::new(disk), 2), Path::new(wanted));
        }
    }
}
