//! What a system was delivered with, so that what was changed since is found.
//!
//! `apply` keeps the bundle's list of files and a copy of the image's own `/etc`
//! inside the slot ([`keep`]). A system that never came from a bundle is compared
//! with its package database, which knows sums but no contents.

mod changes;
mod packaged;
mod record;

use std::path::Path;

use anyhow::Result;

use super::context::Appliance;

pub use changes::{Change, What, changes};
pub use record::{Pristine, keep};

/// Reads what the system at `root` was delivered with: what is kept of its
/// bundle, else what its package database tells.
///
/// # Errors
/// When neither can be read.
pub fn delivered(appliance: &Appliance, root: &Path) -> Result<Pristine> {
    match Pristine::kept(root)? {
        Some(pristine) => Ok(pristine),
        None => packaged::read(appliance.sys, root),
    }
}
