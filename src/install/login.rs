//! Has a system show [`BANNER_FILE`], where there is one, to whoever logs in.
//!
//! Links that lead nowhere at other times: agetty(8) follows the one in `issue.d`,
//! pam_motd(8) since 1.3.1 the one in `motd.d`. What is older has a shell print it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{Context, Result};

use crate::paths::BANNER_FILE;
use crate::system::files;
use crate::tree::resolve;

/// The links; agetty reads only what ends in `.issue`.
const LINKS: [&str; 2] = ["/etc/issue.d/va-upgrade.issue", "/etc/motd.d/va-upgrade"];

/// Read by login shells of either family.
const SCRIPT: &str = "/etc/profile.d/va-upgrade.sh";

/// Lists where in a system they are.
pub fn places() -> impl Iterator<Item = &'static Path> {
    LINKS.iter().chain([&SCRIPT]).map(Path::new)
}

/// Puts them into the tree at `root` where they are missing.
///
/// # Errors
/// When one cannot be made.
pub fn install(root: &Path) -> Result<()> {
    for path in places() {
        let place = resolve::place(root, path.parent().unwrap_or(root))?;
        fs::create_dir_all(&place).with_context(|| format!("making {}", place.display()))?;
        let place = place.join(path.file_name().unwrap_or_default());
        if place.symlink_metadata().is_ok() {
            continue;
        }
        match path == Path::new(SCRIPT) {
            true => files::write_atomic(
                &place,
                include_str!("../../packaging/login.sh").as_bytes(),
                0o644,
            )?,
            false => symlink(BANNER_FILE, &place)
                .with_context(|| format!("making {}", place.display()))?,
        }
    }
    Ok(())
}
