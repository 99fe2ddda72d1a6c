//! Swap areas: turned off, made smaller or larger in their place, turned on.

use std::path::Path;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::blkid::{self, Tag};
use crate::system::{Cmd, System};

/// What names a swap area: fstab and the kernel's command line may have either.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Name {
    /// Its UUID.
    pub uuid: Option<String>,
    /// Its label.
    pub label: Option<String>,
}

/// Returns what names the swap area on `device`.
///
/// # Errors
/// When blkid(8) finds nothing there.
pub fn name(sys: &dyn System, device: &Path) -> Result<Name> {
    Ok(Name {
        uuid: blkid::ask(sys, device, Tag::Uuid)?,
        label: blkid::ask(sys, device, Tag::Label).unwrap_or_default(),
    })
}

/// Makes a swap area of `bytes` at the beginning of `device`, under the name that
/// one there had. Nothing may be in the old one any more.
///
/// # Errors
/// When mkswap(8) fails.
pub fn make(sys: &dyn System, device: &Path, name: &Name, bytes: u64) -> Result<()> {
    let mut cmd = Cmd::new("mkswap");
    if let Some(uuid) = &name.uuid {
        cmd = cmd.args(["-U", uuid]);
    }
    if let Some(label) = &name.label {
        cmd = cmd.args(["-L", label]);
    }
    sys.run(&cmd.arg(device).arg((bytes >> 10).to_string()))
        .map(drop)
}

/// Has the kernel use the swap area on `device`.
///
/// # Errors
/// When swapon(8) fails.
pub fn turn_on(sys: &dyn System, device: &Path) -> Result<()> {
    sys.run(&Cmd::new("swapon").arg(device)).map(drop)
}

/// Has the kernel move all that is in the swap area on `device` back to memory.
///
/// # Errors
/// When swapoff(8) fails, as it does where memory is short.
pub fn turn_off(sys: &dyn System, device: &Path) -> Result<()> {
    sys.run(&Cmd::new("swapoff").arg(device)).map(drop)
}
