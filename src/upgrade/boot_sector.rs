//! Whether the boot sector still starts our GRUB.
//!
//! A distribution's `grub-install`, run by hand or by a package, puts its own
//! there; then the boot state decides nothing. Changes nothing itself.

use anyhow::Result;

use crate::appliance::Appliance;
use crate::appliance::machine::{Machine, boot_disk};
use crate::boot::bios::installed::{self, Owner};

/// Returns whose GRUB the boot sector starts; `None` where it need not be ours,
/// since there is no boot state that a menu would read.
///
/// # Errors
/// When the disk is not known or cannot be read.
pub fn owner(appliance: &Appliance, machine: &Machine) -> Result<Option<Owner>> {
    if machine.state.is_none() {
        return Ok(None);
    }
    installed::owner(appliance.sys, &boot_disk(appliance)?).map(Some)
}

/// Says what is wrong and the way out; `None` where the GRUB is ours.
pub fn fault(owner: Owner) -> Option<&'static str> {
    match owner {
        Owner::Ours => None,
        Owner::Other => Some(
            "the boot sector starts another GRUB, which does not read va-upgrade's boot state: \
             its own menu decides what boots next, and no trial is started; \
             run `va-upgrade repair` to start va-upgrade's again",
        ),
        Owner::Unknown => Some(
            "it cannot be told whether the boot sector starts va-upgrade's GRUB; \
             ask again as root, and if it stays so, \
             run `va-upgrade repair` to start it again",
        ),
    }
}
