//! Whether the running system is one that can be upgraded.

use super::checked::{Checked, refuse};
use crate::appliance::Appliance;
use crate::appliance::machine::Machine;
use crate::appliance::selinux::Mode;
use crate::disk::mkfs::FsType;
use crate::install::customer;
use crate::system::Cmd;
use crate::upgrade::kernel_update;

/// Programs of the running system that the flows call.
const TOOLS: [&str; 13] = [
    "blkid",
    "blockdev",
    "chroot",
    "cp",
    "fsfreeze",
    "ip",
    "lvchange",
    "lvs",
    "mount",
    "pvs",
    "stat",
    "systemctl",
    "vgs",
];

/// Looks whether the running system is the committed one.
pub fn check_boot_state(appliance: &Appliance, machine: &Machine) -> Checked<()> {
    let state = machine.state();
    if kernel_update::is_running(appliance, machine) {
        return refuse(
            "the kernel that runs is on trial",
            "a system that is kept",
            "wait until it is confirmed, or run `va-upgrade confirm`",
        );
    }
    match state.trial() {
        Some(trial) if trial.slot == machine.booted => refuse(
            format!("this system, in slot {}, is on trial itself", trial.slot),
            "a system that is kept",
            "wait until it is confirmed, or run `va-upgrade confirm`",
        ),
        _ if state.committed() != machine.booted => refuse(
            format!(
                "this system runs from slot {}, but slot {} is the default",
                machine.booted,
                state.committed()
            ),
            "that the default runs",
            "restart into it, or run `va-upgrade rollback` to keep this one",
        ),
        _ => Ok(((), format!("slot {} runs and is committed", machine.booted))),
    }
}

/// Looks for the programs that the flows call.
pub fn check_tools(appliance: &Appliance, machine: &Machine) -> Checked<()> {
    let mut wanted = TOOLS.to_vec();
    if let Ok(fs_type) = FsType::from_name(&machine.root_fs_type) {
        wanted.push(fs_type.program());
    }
    check_programs(appliance, &wanted)
}

/// Looks for programs of the running system.
///
/// # Errors
/// Class `Refused` when one is missing.
pub fn check_programs(appliance: &Appliance, wanted: &[&str]) -> Checked<()> {
    let script = "for tool; do command -v \"$tool\" >/dev/null || echo \"$tool\"; done";
    let missing = appliance
        .sys
        .run(&Cmd::new("sh").args(["-c", script, "sh"]).args(wanted))?;
    if !missing.trim().is_empty() {
        let names: Vec<&str> = missing.split_whitespace().collect();
        return refuse(
            format!("these programs are missing: {}", names.join(", ")),
            format!("{} programs", wanted.len()),
            "install the packages that they are in",
        );
    }
    Ok(((), format!("{} programs are there", wanted.len())))
}

/// Tells when a new system that has SELinux gets its labels. Whether it has is not
/// known before it is unpacked.
pub fn check_selinux(appliance: &Appliance) -> Checked<()> {
    let found = match Mode::of_running(appliance) {
        Mode::Off => "not used by this system",
        Mode::Permissive => "not enforced by this system",
        Mode::Enforcing => {
            let message = "enforced by this system; labels of the new one that its policy does not \
                           know are set when that starts, in its initramfs";
            return Ok(((), message.into()));
        }
    };
    let message = format!("{found}; a new one that has it gets its labels at once");
    Ok(((), message))
}

/// Looks whether the rules by which the customer's files come over can be read.
pub fn check_rules(appliance: &Appliance) -> Checked<()> {
    let count = customer::check_rules(appliance)?;
    Ok(((), format!("{count} say what of this system comes over")))
}

/// Refuses what we cannot make bootable.
pub fn check_firmware(appliance: &Appliance) -> Checked<()> {
    if appliance.at("/sys/firmware/efi").exists() {
        return refuse(
            "this machine was started by UEFI",
            "BIOS; nothing else is supported so far",
            "use an appliance that is started by BIOS",
        );
    }
    Ok(((), "BIOS".into()))
}
