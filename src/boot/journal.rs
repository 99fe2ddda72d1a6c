//! Making what is written to `/boot` visible to GRUB.

use std::path::Path;

use anyhow::{Context, Result};

use crate::system::{Cmd, System};

/// Moves everything written to the file system at `path` out of its journal.
///
/// GRUB reads the file system without replaying the journal. Freezing empties
/// it. One shell does both, so that the thaw comes even if we are killed.
///
/// # Errors
/// When the file system cannot be frozen or thawed.
pub fn flush(sys: &dyn System, path: &Path) -> Result<()> {
    let script =
        "trap '' INT TERM HUP; sync; fsfreeze --freeze \"$1\" && fsfreeze --unfreeze \"$1\"";
    sys.run(&Cmd::new("sh").args(["-c", script, "sh"]).arg(path))
        .map(drop)
        .with_context(|| format!("flushing the journal of {}", path.display()))
}
