//! GRUB tools of the new system that fail inside the chroot.

use anyhow::Result;
use serde_json::json;

use crate::appliance::{Appliance, RELEASE};

#[test]
#[ignore = "starts virtual machines"]
fn a_failing_grub_tool_leaves_the_boot_files_and_the_boot_sector_as_they_were() -> Result<()> {
    let mut appliance = Appliance::old("grub-failure")?;
    let before = appliance.boot_fingerprint()?;
    for fault in [
        "grub-install before",
        "grub-install part",
        "grub-install after",
        "grub-install damage",
        "grub-script-check before",
    ] {
        appliance.put("/run/va-lab-fault", &format!("{fault}\n"), 0o644)?;
        let output = appliance.va_upgrade(&format!("apply /mnt/{RELEASE}.vab"))?;
        assert_eq!(output.status, 5, "{fault}: {output:?}");
        assert!(
            output.stderr.contains("made to fail"),
            "{fault}: {}",
            output.stderr
        );
        assert_eq!(appliance.boot_fingerprint()?, before, "{fault}");
        let status = appliance.status()?;
        assert_eq!(status["next"], "root", "{fault}");
        assert_eq!(status["trial"], json!(null), "{fault}");
        let mounts = appliance.ok("findmnt -n -l -o TARGET | grep va-upgrade || true")?;
        assert_eq!(mounts, "", "{fault}");
    }
    appliance.reboot()?;
    assert_eq!(appliance.ok("findmnt -no SOURCE /")?, "/dev/mapper/VA-root");
    Ok(())
}
