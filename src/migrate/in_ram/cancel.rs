//! Taking back what was prepared: first what GRUB reads, then the rest.

use anyhow::Result;

use super::place::{self, Here};
use super::{one_shot, unit};
use crate::appliance::Appliance;
use crate::system::files;

/// Takes back all that [`prepare()`](super::prepare()) has written, in whatever state;
/// returns whether there was anything.
///
/// # Errors
/// When something of it cannot be removed; GRUB's configuration is restored first.
pub fn cancel(appliance: &Appliance) -> Result<bool> {
    let _lock = appliance.lock()?;
    remove(appliance)
}

/// Does it for one that holds the lock.
pub(super) fn remove(appliance: &Appliance) -> Result<bool> {
    let mut was_there = false;
    for grub in place::grubs(appliance) {
        was_there |= one_shot::disarm(&grub)?;
    }
    let dirs = place::ours(appliance);
    if was_there {
        place::flush(appliance)?;
    }
    unit::forget(appliance)?;
    for dir in dirs {
        // Of a record that was not whole nothing else had been written.
        if let Ok(Some(here)) = Here::load(&dir) {
            for path in [&here.settings, &here.last_settings, &here.log] {
                place::remove_file(&appliance.at(path))?;
            }
        }
        files::remove_tree(&dir)?;
        if let Some(grub) = dir.parent() {
            files::sync_dir(grub)?;
        }
        was_there = true;
    }
    Ok(was_there)
}
