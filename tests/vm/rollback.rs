//! Going back by hand.

use anyhow::Result;
use serde_json::json;

use crate::appliance::{Appliance, RELEASE};

#[test]
#[ignore = "starts virtual machines"]
fn a_rollback_boots_the_old_system_and_another_one_the_new_system_again() -> Result<()> {
    let mut appliance = Appliance::upgraded("rollback")?;
    for (slot, debian) in [("root", "11"), ("back", "12")] {
        appliance.ok("va-upgrade rollback")?;
        assert_eq!(appliance.status()?["next"], json!(slot));
        appliance.reboot()?;
        let status = appliance.status()?;
        assert_eq!(status["booted"], json!(slot));
        assert_eq!(status["committed"], json!(slot));
        assert_eq!(status["trial"], json!(null));
        assert_eq!(status["failed"], json!(null));
        assert_eq!(appliance.ok(". /etc/os-release; echo $VERSION_ID")?, debian);
    }
    Ok(())
}

#[test]
#[ignore = "starts virtual machines"]
fn a_rollback_is_refused_unless_the_other_slot_would_boot() -> Result<()> {
    let mut appliance = Appliance::upgraded("rollback-refused")?;
    let before = appliance.status()?;
    for (harm, mend, word) in [
        (
            "mkdir /boot/k && mv /boot/va/root/vmlinuz-* /boot/k",
            "mv /boot/k/* /boot/va/root && rmdir /boot/k",
            "vmlinuz",
        ),
        (
            "mv /boot/va/root/initrd /boot/i",
            "mv /boot/i /boot/va/root/initrd",
            "initrd",
        ),
        (
            "mv /boot/va/root/entry.cfg /boot/e",
            "mv /boot/e /boot/va/root/entry.cfg",
            "entry.cfg",
        ),
        (
            "dd if=/dev/VA/root of=/boot/s bs=4k count=1 && dd if=/dev/zero of=/dev/VA/root bs=4k count=1",
            "dd if=/boot/s of=/dev/VA/root bs=4k",
            "/dev/VA/root",
        ),
    ] {
        appliance.ok(harm)?;
        let output = appliance.va_upgrade("rollback")?;
        assert_eq!(output.status, 3, "{harm}: {output:?}");
        assert!(output.stderr.contains(word), "{harm}: {}", output.stderr);
        appliance.ok(mend)?;
        assert_eq!(appliance.status()?, before, "{harm}");
    }
    let output = appliance.va_upgrade("rollback")?;
    assert_eq!(output.status, 0, "{output:?}");
    assert_eq!(appliance.status()?["slots"][1]["version"], RELEASE);
    Ok(())
}

#[test]
#[ignore = "starts virtual machines"]
fn a_committed_slot_without_its_initramfs_leaves_the_other_one_to_start() -> Result<()> {
    let mut appliance = Appliance::upgraded("no-initramfs")?;
    appliance.ok("mv /boot/va/back/initrd /boot/i")?;
    appliance.reboot()?;
    let status = appliance.status()?;
    assert_eq!(status["booted"], json!("root"));
    assert_eq!(status["committed"], json!("back"));
    // What GRUB hands on after one kernel was refused is the other's own line.
    let cmdline = appliance.ok("cat /proc/cmdline")?;
    assert!(cmdline.contains("/va/root/vmlinuz-"), "{cmdline}");
    assert!(cmdline.contains("root=/dev/mapper/VA-root"), "{cmdline}");
    assert!(cmdline.contains("va.slot=root va.why=other"), "{cmdline}");
    appliance.ok("mv /boot/i /boot/va/back/initrd")?;
    appliance.reboot()?;
    assert_eq!(appliance.status()?["booted"], json!("back"));
    Ok(())
}

#[test]
#[ignore = "starts virtual machines"]
fn a_boot_sector_that_a_package_took_is_repaired_and_starts_our_menu_again() -> Result<()> {
    let mut appliance = Appliance::upgraded("repair")?;
    appliance.ok("grub-install --target=i386-pc /dev/vda")?;
    assert_eq!(appliance.status()?["boot_sector"], json!("other"));
    let refused = appliance.va_upgrade("rollback")?;
    assert_eq!(refused.status, 3, "{refused:?}");
    assert!(refused.stderr.contains("va-upgrade repair"), "{refused:?}");
    appliance.ok("va-upgrade repair")?;
    let status = appliance.status()?;
    assert_eq!(status["boot_sector"], json!("ours"));
    appliance.ok("va-upgrade rollback")?;
    appliance.reboot()?;
    assert_eq!(appliance.status()?["booted"], json!("root"));
    Ok(())
}
