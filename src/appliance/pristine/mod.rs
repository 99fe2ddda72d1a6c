//! What a system was delivered with, so that what was changed since is found.
//!
//! `apply` keeps the bundle's list of files and a copy of the image's own `/etc`
//! inside the slot ([`keep`]). A system that never came from a bundle is compared
//! with its package database, which knows sums but no contents. Of a system of which
//! only parts are left, what was [noted](note) of these parts tells.

mod changes;
mod noted;
mod packaged;
mod record;

use std::path::Path;

use anyhow::Result;

use super::context::Appliance;

pub use changes::{Change, What, changes};
pub use noted::note;
pub use record::{Pristine, keep};

/// Reads what the system at `root` was delivered with: what was [noted](note) of
/// it, else what is kept of its bundle, else what its package database tells.
///
/// # Errors
/// When neither can be read.
pub fn delivered(appliance: &Appliance, root: &Path) -> Result<Pristine> {
    if let Some(pristine) = noted::read(root)? {
        return Ok(pristine);
    }
    match Pristine::kept(root)? {
        Some(pristine) => Ok(pristine),
        None => packaged::read(appliance.sys, root),
    }
}
