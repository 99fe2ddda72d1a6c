//! What blkid(8) finds on a device, read from the device itself and not from a cache.

use std::path::Path;

use anyhow::Result;

use crate::system::{Cmd, System};

/// A property of what is on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tag {
    /// The type of the file system.
    Type,
    /// Its UUID.
    Uuid,
    /// Its label.
    Label,
}

/// Asks for `tag` of what is on `device`; `None` where there is none.
///
/// # Errors
/// When blkid(8) fails; it does so, too, when the device holds nothing.
pub fn ask(sys: &dyn System, device: &Path, tag: Tag) -> Result<Option<String>> {
    let name = match tag {
        Tag::Type => "TYPE",
        Tag::Uuid => "UUID",
        Tag::Label => "LABEL",
    };
    let cmd = Cmd::new("blkid").args(["-p", "-s", name, "-o", "value"]);
    let value = sys.run(&cmd.arg(device))?.trim().to_owned();
    Ok((!value.is_empty()).then_some(value))
}
