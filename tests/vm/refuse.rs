//! Upgrades that are refused before anything is changed.

use anyhow::Result;

use crate::appliance::{Appliance, NEXT_RELEASE, RELEASE};
use crate::lab::qemu::Hardware;

#[test]
#[ignore = "starts virtual machines"]
fn a_processor_below_the_releases_level_is_refused_with_the_missing_flags() -> Result<()> {
    let hardware = Hardware {
        cpu: "qemu64,ssse3=off,sse4.1=off,sse4.2=off,popcnt=off",
        ..Hardware::default()
    };
    let mut appliance = Appliance::old_on("old-processor", hardware)?;
    let stderr = assert_refused(&mut appliance, NEXT_RELEASE)?;
    for flag in ["x86-64-v2", "ssse3", "sse4_1", "sse4_2", "popcnt"] {
        assert!(stderr.contains(flag), "{flag}: {stderr}");
    }
    Ok(())
}

#[test]
#[ignore = "starts virtual machines"]
fn a_full_or_missing_boot_partition_is_refused() -> Result<()> {
    let mut appliance = Appliance::old("full-boot")?;
    appliance.ok("set -- $(df --output=size,used -B1 /boot | tail -1)
         fallocate -l $(($1 * 95 / 100 - $2)) /boot/filler")?;
    let stderr = assert_refused(&mut appliance, RELEASE)?;
    assert!(stderr.contains("/boot has"), "{stderr}");

    appliance.ok("rm /boot/filler; umount /boot")?;
    let stderr = assert_refused(&mut appliance, RELEASE)?;
    assert!(stderr.contains("/boot"), "{stderr}");
    Ok(())
}

/// Sees `apply` refuse without a trace; returns what it said.
fn assert_refused(appliance: &mut Appliance, version: &str) -> Result<String> {
    let before = appliance.boot_fingerprint()?;
    // The kernel counts the sectors that were ever written to a device.
    let written = "awk '{print $7}' /sys/class/block/$(basename $(readlink -f /dev/VA/back))/stat";
    assert_eq!(appliance.ok(written)?, "0");
    let output = appliance.va_upgrade(&format!("apply /mnt/{version}.vab"))?;
    assert_eq!(output.status, 3, "{output:?}");
    assert_eq!(output.stderr.trim().lines().count(), 1, "{}", output.stderr);
    assert_eq!(appliance.boot_fingerprint()?, before);
    assert_eq!(appliance.ok(written)?, "0");
    Ok(output.stderr)
}
