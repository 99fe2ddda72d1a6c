//! `repair`: mends what starts the slots.

use anyhow::Result;

use super::Session;
use super::output::print_done;
use crate::appliance::machine::Machine;
use crate::progress::Progress;
use crate::upgrade::repair as repair_flow;

/// Put va-upgrade's GRUB and boot state back, after another program changed them
///
/// Where a package or a person ran grub-install, another menu starts the machine,
/// which knows of no trial. Neither slot's system is touched.
#[derive(clap::Args)]
pub struct Args {}

/// Runs `repair`; writes the boot state, the bios_grub partition and LBA 0.
pub fn run(session: &Session) -> Result<()> {
    session.start_changing("repair")?;
    let appliance = session.appliance();
    let lock = appliance.lock()?;
    let machine = Machine::look(&appliance)?;
    let repaired = repair_flow::repair(&appliance, &machine, &lock)?;
    session.ui.finish();
    let mut lines = Vec::new();
    if repaired.boot_state {
        lines.push("the boot state is whole again\n");
    }
    if repaired.boot_sector {
        lines.push("the boot sector starts va-upgrade's GRUB again\n");
    }
    if lines.is_empty() {
        lines.push("nothing to repair\n");
    }
    print_done(&lines.concat());
    Ok(())
}
