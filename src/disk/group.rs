//! A volume group made anew on one device.
//!
//! The commands are called by way of lvm(8), which has all of them in it: an initramfs
//! need not have their names. Only that device is looked at, whatever else holds a group of that name, and the
//! group is nobody's alone (lvmsystemid(7)).

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::lvm;
use crate::system::{Cmd, System};

/// The size of an extent.
pub const EXTENT_BYTES: u64 = 4 << 20;

/// Where the first extent begins on the device, pvcreate(8)'s default.
pub const START_BYTES: u64 = 1 << 20;

/// A volume of so many extents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewVolume {
    /// Its name.
    pub name: String,
    /// Its size in extents.
    pub extents: u64,
}

/// A group on the way.
pub struct NewGroup<'a> {
    /// The machine.
    pub sys: &'a dyn System,
    /// The name.
    pub name: &'a str,
    /// The device that is all of it.
    pub device: PathBuf,
}

impl NewGroup<'_> {
    /// Makes the group with `volumes`, inactive, and looks at what came of it; what
    /// was on the device is gone. May be repeated after a failure.
    ///
    /// # Errors
    /// When a command fails, or a volume has another size.
    pub fn make(&self, volumes: &[NewVolume]) -> Result<()> {
        let pvcreate = self.lvm("pvcreate").args(["-ff", "--yes", "--zero=y"]);
        self.sys
            .run(&pvcreate.arg("--dataalignment=1m").arg(&self.device))?;
        let vgcreate = self.lvm("vgcreate").args(["--yes", "--autobackup=n"]);
        let extent = format!("--physicalextentsize={EXTENT_BYTES}b");
        self.sys
            .run(&vgcreate.arg(extent).arg(self.name).arg(&self.device))?;
        for volume in volumes {
            // Wiping needs a device, which an inactive volume has not.
            let lvcreate = self
                .lvm("lvcreate")
                .args(["--yes", "--autobackup=n", "-an", "-Zn", "-Wn"])
                .arg(format!("--extents={}", volume.extents))
                .arg(format!("--name={}", volume.name));
            self.sys.run(&lvcreate.arg(self.name))?;
        }
        self.check(volumes)
    }

    /// Makes the devices of the volumes appear.
    ///
    /// # Errors
    /// When `vgchange` fails.
    pub fn activate(&self) -> Result<()> {
        self.change("-ay")
    }

    /// Takes the devices of the volumes away; nothing to do is fine.
    ///
    /// # Errors
    /// When `vgchange` fails, as where one is in use.
    pub fn deactivate(&self) -> Result<()> {
        self.change("-an")
    }

    fn change(&self, activation: &str) -> Result<()> {
        let config = format!("--config={}", settings(&self.device, ""));
        let vgchange = Cmd::new("lvm").args(["vgchange", &config]);
        self.sys
            .run(&vgchange.args([activation, self.name]))
            .map(drop)
    }

    /// Looks whether `volumes` are there, each of its size.
    ///
    /// # Errors
    /// When they are not, or `lvs` fails.
    pub fn check(&self, volumes: &[NewVolume]) -> Result<()> {
        let found = lvm::list_by(self.sys, self.lvm("lvs"), self.name)?;
        for volume in volumes {
            let made = found.iter().find(|made| made.name == volume.name);
            let made = made.with_context(|| format!("volume {} is not there", volume.name))?;
            let wanted = volume.extents * EXTENT_BYTES;
            ensure!(
                made.size_bytes == wanted && made.segment_type == "linear",
                "volume {} has {} bytes ({}), not {wanted}",
                volume.name,
                made.size_bytes,
                made.segment_type
            );
        }
        Ok(())
    }

    fn lvm(&self, program: &str) -> Cmd {
        // Metadata alone: no device is made or asked for.
        let config = settings(&self.device, " activation=0");
        Cmd::new("lvm")
            .arg(program)
            .arg(format!("--config={config}"))
    }
}

/// Returns lvm.conf(5) settings by which only `device` is looked at. Versions before
/// 2.03.12 know no devices file and pass over the word.
fn settings(device: &Path, global: &str) -> String {
    let filter = format!("[\"a|^{}$|\",\"r|.*|\"]", device.display());
    format!(
        "devices{{use_devicesfile=0 filter={filter} global_filter={filter}}} \
         global{{system_id_source=\"none\" use_lvmlockd=0{global}}}"
    )
}
