//! Whether the running slot starts a kernel that its system still has.
//!
//! A slot starts the kernel in its directory on `/boot`, whatever a package
//! installs or removes in its system meanwhile, until it is
//! [adopted](super::kernel_update).

use std::cmp::Ordering;
use std::fmt;
use std::fs;

use super::kernel_update;
use crate::appliance::Appliance;
use crate::appliance::machine::Machine;
use crate::boot::bootable::{self, Modules};
use crate::boot::files as boot_files;
use crate::boot::next::{self, Refused};
use crate::boot::state::State;
use crate::slot::Slot;
use crate::version;

/// Where a kernel's modules are (depmod(8)).
const MODULES_DIR: &str = "/lib/modules";

/// How the kernel that starts and those that are installed came apart.
#[derive(Debug, PartialEq, Eq)]
pub enum Drift {
    /// The modules of the kernel that the slot starts are gone.
    Gone {
        /// The slot.
        slot: Slot,
        /// The kernel's release.
        started: String,
    },
    /// A newer kernel is installed, which nothing starts.
    Newer {
        /// The slot.
        slot: Slot,
        /// The release of the kernel that it starts.
        started: String,
        /// The release of the newer one.
        installed: String,
    },
    /// The newer kernel that is installed did not come up.
    Refused {
        /// The slot.
        slot: Slot,
        /// That kernel.
        kernel: Refused,
    },
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Drift::Gone { slot, started } => write!(
                f,
                "slot {slot} starts kernel {started}, whose modules its system no longer has, so \
                 the next boot would lack drivers; install the package of that kernel again \
                 before a restart"
            ),
            Drift::Newer {
                slot,
                started,
                installed,
            } => write!(
                f,
                "kernel {installed} is installed, but slot {slot} goes on starting {started}; \
                 `va-upgrade boot --adopt-kernel` has it tried with the next restart; keep the \
                 package of {started} until it has come up"
            ),
            Drift::Refused { slot, kernel } => f.write_str(&kernel_update::refusal(kernel, *slot)),
        }
    }
}

/// Looks at the running slot; `None` where all is well or nothing is known, as
/// when another menu has started another kernel.
pub fn look(appliance: &Appliance, machine: &Machine) -> Option<Drift> {
    let slot = machine.booted;
    let started = boot_files::record(appliance.sys, slot).ok()??.kernel;
    let running = fs::read_to_string(appliance.at("/proc/sys/kernel/osrelease")).ok()?;
    if running.trim() != started {
        return None;
    }
    let root = appliance.at("/");
    if bootable::modules(&root, &started).ok()? == Modules::Gone {
        return Some(Drift::Gone { slot, started });
    }
    let newest = installed(appliance)
        .into_iter()
        .filter(|release| bootable::is_same_flavour(release, &started))
        .filter(|release| bootable::modules(&root, release).is_ok_and(|it| it == Modules::There))
        .max_by(|a, b| version::compare(a, b))
        .filter(|newest| version::compare(newest, &started) == Ordering::Greater)?;
    if machine
        .state
        .as_ref()
        .and_then(State::kernel_trial)
        .is_some()
    {
        return None;
    }
    let refused = next::refused(appliance.sys, slot).unwrap_or_default();
    match refused.into_iter().find(|it| it.kernel == newest) {
        Some(kernel) => Some(Drift::Refused { slot, kernel }),
        None => Some(Drift::Newer {
            slot,
            started,
            installed: newest,
        }),
    }
}

/// Lists the kernels that have a directory for their modules.
fn installed(appliance: &Appliance) -> Vec<String> {
    let entries = fs::read_dir(appliance.at(MODULES_DIR))
        .into_iter()
        .flatten();
    entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}
