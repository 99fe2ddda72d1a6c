//! Our program and its units inside a system.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{Context, Result};

use crate::appliance::Appliance;
use crate::paths::PROGRAM;
use crate::system::{Chroot, Cmd, files};
use crate::tree::resolve;

/// Our units, and the unit that wants each of them.
const UNITS: [(&str, &str, &str); 2] = [
    (
        "va-upgrade-boot.service",
        "multi-user.target.wants",
        include_str!("../../packaging/va-upgrade-boot.service"),
    ),
    (
        "va-upgrade-deadline.service",
        "sysinit.target.wants",
        include_str!("../../packaging/va-upgrade-deadline.service"),
    ),
];

/// Puts our program where the tree at `root` has none or an older one.
///
/// # Errors
/// When it cannot be written.
pub fn install(appliance: &Appliance, root: &Path) -> Result<()> {
    let to = resolve::place(root, Path::new(PROGRAM))?;
    let chroot = Chroot::enter(appliance.sys, root, &[])?;
    let there = chroot.run(Cmd::new(PROGRAM).arg("--version")).ok();
    chroot.leave()?;
    if there.as_deref().and_then(parse_version) >= parse_version(env!("CARGO_PKG_VERSION")) {
        return Ok(());
    }
    let own = appliance.at("/proc/self/exe");
    let program = fs::read(&own).with_context(|| format!("reading {}", own.display()))?;
    files::write_atomic(&to, &program, 0o755)
}

/// Reads `1.2.3` out of what a program prints of its version.
fn parse_version(text: &str) -> Option<Vec<u32>> {
    let word = text.split_whitespace().last()?;
    word.split('.').map(|part| part.parse().ok()).collect()
}

/// Puts our units into the tree at `root` and enables them.
///
/// # Errors
/// When one cannot be written.
pub fn install_units(root: &Path) -> Result<()> {
    for (name, wanted_by, content) in UNITS {
        let unit = Path::new("/usr/lib/systemd/system").join(name);
        let file = resolve::place(root, &unit)?;
        fs::create_dir_all(file.parent().unwrap_or(root))?;
        files::write_atomic(&file, content.as_bytes(), 0o644)?;
        let wants = resolve::place(root, &Path::new("/etc/systemd/system").join(wanted_by))?;
        fs::create_dir_all(&wants).with_context(|| format!("making {}", wants.display()))?;
        let link = wants.join(name);
        if !link.is_symlink() {
            symlink(&unit, &link).with_context(|| format!("enabling {name}"))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newer_program_stays() {
        assert!(parse_version("va-upgrade 0.10.0") > parse_version("0.9.3"));
        assert_eq!(parse_version("garbage"), None);
    }
}
