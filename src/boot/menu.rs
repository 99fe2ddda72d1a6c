//! GRUB's menu: the static script in `grub/menu.cfg` with its places filled.

use anyhow::{Result, ensure};

use crate::slot::Slot;

const TEMPLATE: &str = include_str!("../../grub/menu.cfg");

/// Where the menu finds its files, as a path on the `/boot` file system.
pub const DIR: &str = "/va";

/// Seconds the menu waits for a person at the console.
const TIMEOUT_SECONDS: u32 = 3;

/// What turns each way of hanging into a restart, while on trial only.
///
/// kernel-parameters (`panic`, `softlockup_panic`, and `hung_task_panic`: a task
/// that waits for storage for two minutes), dracut.cmdline(7), systemd(1);
/// initramfs-tools(7) also restarts instead of opening a shell when `panic` is
/// given. Each is known to Linux 3.10 and still is, or is ignored where it is not.
///
/// `nmi_watchdog=panic` is not among them: distributions build kernels with
/// either default, so `confirm` could not tell what to go back to.
pub const TRIAL_ARGS: &str = "panic=10 softlockup_panic=1 hung_task_panic=1 \
     rd.shell=0 rd.emergency=reboot systemd.crash_reboot=1";

/// Renders the menu for a `/boot` file system with this UUID.
///
/// `baked` boots when the boot state is unreadable. Where `cmdline`, the
/// kernel's, names a serial console, the menu is shown there as well.
///
/// # Errors
/// When the UUID is not one.
pub fn render(boot_uuid: &str, baked: Slot, cmdline: &str) -> Result<String> {
    let legal = |c: char| c.is_ascii_hexdigit() || c == '-';
    ensure!(
        !boot_uuid.is_empty() && boot_uuid.chars().all(legal),
        "{boot_uuid:?} is not a file system UUID"
    );
    Ok(TEMPLATE
        .replace("@CONSOLE@", &serial_console(cmdline).unwrap_or_default())
        .replace("@BOOT_UUID@", boot_uuid)
        .replace("@TIMEOUT@", &TIMEOUT_SECONDS.to_string())
        .replace("@BAKED@", baked.name())
        .replace("@TRIAL_ARGS@", TRIAL_ARGS)
        .replace("@DIR@", DIR))
}

/// Returns the commands for the serial port of the last `console=ttyS<unit>[,<speed>...]`
/// (Linux, "Linux Serial Console"); without one, GRUB keeps to the screen.
fn serial_console(cmdline: &str) -> Option<String> {
    let mut ports = cmdline
        .split_whitespace()
        .filter_map(|word| word.strip_prefix("console=ttyS"));
    let (unit, options) = {
        let last = ports.next_back()?;
        last.split_once(',').unwrap_or((last, ""))
    };
    let unit: u8 = unit.parse().ok()?;
    let digits = options
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(options.len());
    let speed: u32 = options[..digits].parse().unwrap_or(9600);
    Some(format!(
        "serial --unit={unit} --speed={speed}\n\
         terminal_input console serial\n\
         terminal_output console serial\n"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_place_is_left_open() {
        let menu = render(
            "0b1c2d3e-0000-4000-8000-000000000001",
            Slot::Back,
            "ro quiet",
        )
        .unwrap();
        assert!(!menu.contains('@'), "{menu}");
        assert!(menu.contains("set va_slot=back\n"));
        assert!(menu.contains("if va_load /va/env1; then"));
        assert!(
            menu.contains("set va_trial_args=\"panic=10 softlockup_panic=1 hung_task_panic=1 ")
        );
    }

    #[test]
    fn the_menu_is_where_the_kernels_console_is() {
        let console = serial_console("console=tty0 console=ttyS1,115200n8 quiet").unwrap();
        assert!(console.starts_with("serial --unit=1 --speed=115200\n"));
        assert!(
            serial_console("console=ttyS0")
                .unwrap()
                .starts_with("serial --unit=0 --speed=9600\n")
        );
        assert_eq!(serial_console("console=tty0"), None);
        assert_eq!(serial_console("console=ttyS0;halt"), None);
    }

    #[test]
    fn a_uuid_cannot_carry_script() {
        assert!(render("x; halt", Slot::Root, "").is_err());
        assert!(render("", Slot::Root, "").is_err());
    }
}
