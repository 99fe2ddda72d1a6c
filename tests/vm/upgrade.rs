//! The main job: upgrades that come up.

use anyhow::Result;
use serde_json::json;

use crate::appliance::{Appliance, NEXT_RELEASE, RELEASE};

#[test]
#[ignore = "starts virtual machines"]
fn an_installed_appliance_is_upgraded_and_confirmed() -> Result<()> {
    let mut appliance = Appliance::applied("upgrade")?;
    let before = appliance.status()?;
    assert_eq!(before["booted"], "root");
    assert_eq!(before["committed"], "root");
    assert_eq!(before["next"], "back");
    assert_eq!(before["trial"], json!({"slot": "back", "tries_left": 3}));
    assert_eq!(before["slots"][0]["version"], "7.9.0");
    assert_eq!(before["slots"][0]["state"], "committed");
    assert_eq!(before["slots"][1]["state"], "trial");
    assert_eq!(before["slots"][1]["version"], RELEASE);

    let network = "ip -o -4 addr show scope global | awk '{print $2, $4}'; ip route show default";
    let old_network = appliance.ok(network)?;
    appliance.reboot()?;
    appliance.wait_until_committed("back")?;

    let after = appliance.status()?;
    assert_eq!(after["next"], "back");
    assert_eq!(after["trial"], json!(null));
    assert_eq!(after["failed"], json!(null));
    assert_eq!(after["slots"][0]["state"], "good");
    assert_eq!(after["slots"][0]["bootable"], true);
    assert_eq!(after["slots"][1]["state"], "committed");
    assert_eq!(after["slots"][1]["bootable"], true);
    assert_eq!(after["slots"][1]["kernel"], appliance.ok("uname -r")?);
    assert_eq!(appliance.ok("findmnt -no SOURCE /")?, "/dev/mapper/VA-back");
    assert_eq!(appliance.ok(". /etc/os-release; echo $VERSION_ID")?, "12");
    assert_eq!(
        appliance.ok("cat /data/customer")?,
        "belongs to the customer"
    );
    assert_eq!(appliance.ok(network)?, old_network);
    assert_eq!(appliance.ok("systemctl is-system-running")?, "running");
    Ok(())
}

#[test]
#[ignore = "starts virtual machines"]
fn the_next_upgrade_goes_to_the_other_slot_and_both_boot_with_the_same_kernel_version() -> Result<()>
{
    let mut appliance = Appliance::upgraded("next-upgrade")?;
    let kernel = appliance.ok("uname -r")?;
    appliance.ok("test ! -e /run/lab-mark")?;
    appliance.apply(NEXT_RELEASE)?;
    appliance.reboot()?;
    appliance.wait_until_committed("root")?;
    let status = appliance.status()?;
    assert_eq!(status["slots"][0]["version"], NEXT_RELEASE);
    assert_eq!(status["slots"][1]["version"], RELEASE);
    assert_eq!(status["slots"][1]["state"], "good");
    assert_eq!(appliance.ok("uname -r")?, kernel);
    // Only the initramfs of the next release leaves this mark.
    assert_eq!(appliance.ok("cat /run/lab-mark")?, "next");

    appliance.ok("va-upgrade rollback")?;
    appliance.reboot()?;
    assert_eq!(appliance.status()?["booted"], "back");
    assert_eq!(appliance.ok("uname -r")?, kernel);
    appliance.ok("test ! -e /run/lab-mark")?;
    Ok(())
}
