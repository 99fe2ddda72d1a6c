//! The new table and volumes, made on a sparse file by the tools that will make them
//! on the disk.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::plan::Plan;
use crate::disk::group::NewGroup;
use crate::disk::table::{self, Purpose};
use crate::system::{Cmd, System};

/// Tries `plan` on a file in `work`, which takes next to no room and goes again.
///
/// # Errors
/// When a tool fails, or makes something else of it.
pub fn try_out(sys: &dyn System, plan: &Plan, group: &str, work: &Path) -> Result<()> {
    let twin = Twin {
        path: work.join("twin"),
    };
    let make = || -> Result<()> {
        let file = File::create(&twin.path)
            .with_context(|| format!("creating {}", twin.path.display()))?;
        file.set_len(plan.disk.size_bytes)?;
        table::write(&twin.path, plan.disk.size_bytes, &plan.partitions, "")?;
        let lvm = plan.partition(Purpose::Lvm);
        let device = attach(sys, &twin.path, lvm.start_bytes, lvm.size_bytes)?;
        let made = NewGroup {
            sys,
            name: &format!("{group}.twin"),
            device: device.clone(),
        }
        .make(&plan.volumes);
        let detach = Cmd::new("losetup").arg("--detach").arg(&device);
        let detached = sys.run(&detach).map(drop);
        made.and(detached)
    };
    make().context("trying the new layout on a file")
}

fn attach(sys: &dyn System, file: &Path, start_bytes: u64, size_bytes: u64) -> Result<PathBuf> {
    let cmd = Cmd::new("losetup")
        .args(["--find", "--show"])
        .arg(format!("--offset={start_bytes}"))
        .arg(format!("--sizelimit={size_bytes}"));
    Ok(PathBuf::from(sys.run(&cmd.arg(file))?.trim()))
}

/// Goes with the value.
struct Twin {
    path: PathBuf,
}

impl Drop for Twin {
    fn drop(&mut self) {
        // It is in RAM, which ends with the start of the machine.
        let _ = fs::remove_file(&self.path);
    }
}
