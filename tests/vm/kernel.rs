//! Kernels that a package brings into a committed slot.

use anyhow::Result;
use serde_json::{Value, json};

use crate::appliance::Appliance;

/// Puts into the running system what the package of the kernel `release` does, in
/// the words of the one that runs: `initramfs` prints its initramfs. Then calls
/// the hook as the package does.
fn install_kernel(appliance: &mut Appliance, release: &str, initramfs: &str) -> Result<()> {
    appliance.ok(&format!(
        "set -e; cp -a /lib/modules/$(uname -r) /lib/modules/{release}
         cp /boot/va/back/vmlinuz-* /boot/vmlinuz-{release}
         {initramfs} >/boot/initrd.img-{release}
         run-parts --test /etc/kernel/postinst.d | grep -q va-upgrade
         /etc/kernel/postinst.d/zz-va-upgrade {release} /boot/vmlinuz-{release}"
    ))?;
    let status = appliance.status()?;
    assert_eq!(
        status["kernel_trial"],
        json!({"kernel": release, "tries_left": 3})
    );
    Ok(())
}

fn kernel(status: &Value) -> &Value {
    &status["slots"][1]["kernel"]
}

/// Returns a release that is newer than `old` and of its flavour.
fn newer(old: &Value, number: u32) -> String {
    let (version, flavour) = old
        .as_str()
        .and_then(|old| old.rsplit_once('-'))
        .expect("a release has a number and a flavour");
    format!("{version}-{number}-{flavour}")
}

#[test]
#[ignore = "starts virtual machines"]
fn a_kernel_of_a_package_is_tried_kept_when_it_is_good_and_left_when_it_is_not() -> Result<()> {
    let mut appliance = Appliance::upgraded("kernel-update")?;
    let old = kernel(&appliance.status()?).clone();

    let [bad, good] = [980, 990].map(|number| newer(&old, number));
    install_kernel(&mut appliance, &bad, "head -c 1M /dev/urandom")?;
    appliance.ok("sed -i s/va_left=3/va_left=1/ /boot/va/env1 /boot/va/env2 && sync")?;
    appliance.reboot()?;
    assert!(appliance.console().contains("Kernel panic"));
    // The boot service may not have come to it yet.
    appliance.wait_until("cat /data/va-upgrade/history.jsonl", |history| {
        history.contains(&format!("kernel {bad} was tried and did not come up"))
    })?;
    let status = appliance.status()?;
    assert_eq!(status["booted"], json!("back"), "{status}");
    assert_eq!(status["committed"], json!("back"), "{status}");
    assert_eq!(status["kernel_trial"], json!(null), "{status}");
    assert_eq!(status["failed"], json!(null), "{status}");
    assert_eq!(kernel(&status), &old, "{status}");
    appliance.ok("! ls -d /boot/va/back/k-* /boot/va/back/next.*")?;

    install_kernel(&mut appliance, &good, "cat /boot/va/back/initrd")?;
    appliance.reboot()?;
    let cmdline = appliance.ok("cat /proc/cmdline")?;
    assert!(cmdline.contains(&format!("/vmlinuz-{good}")), "{cmdline}");
    assert!(cmdline.contains("va.slot=back va.why=trial"), "{cmdline}");
    appliance.wait_until("va-upgrade status --json", |answer| {
        serde_json::from_str(answer).is_ok_and(|status: Value| {
            status["kernel_trial"] == json!(null) && *kernel(&status) == json!(good)
        })
    })?;
    appliance.wait_until("ls /boot/va/back", |names| !names.contains("initrd"))?;

    appliance.reboot()?;
    let cmdline = appliance.ok("cat /proc/cmdline")?;
    assert!(cmdline.contains(&format!("/vmlinuz-{good}")), "{cmdline}");
    assert!(cmdline.contains("va.slot=back va.why=commit"), "{cmdline}");
    let status = appliance.status()?;
    assert_eq!(status["slots"][1]["bootable"], json!(true), "{status}");
    assert_eq!(kernel(&status), &json!(good), "{status}");
    Ok(())
}
