//! What the running system mounts and the new one will not.

use std::path::Path;

use anyhow::Context;

use super::checked::Checked;
use crate::appliance::Appliance;
use crate::install::fstab::{left_behind, shown};
use crate::install::settle::read_fstab;
use crate::linux::fstab::parse;
use crate::tree::resolve;

/// Reads the fstab that is carried over; returns its lines that are not.
pub fn check_fstab(appliance: &Appliance) -> Checked<Vec<String>> {
    let path = resolve::place(&appliance.at("/"), Path::new("/etc/fstab"))?;
    let text = read_fstab(&path)?
        .with_context(|| format!("reading {}: it is not there", path.display()))?;
    let lines: Vec<String> = left_behind(&text).iter().map(shown).collect();
    let all = parse(&text).len();
    let message = format!("{} of {all} lines are kept or renewed", all - lines.len());
    Ok((lines, message))
}
