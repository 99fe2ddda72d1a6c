//! Trials that do not come up: each ends on the old slot by itself, and the
//! old slot says why.

use anyhow::Result;
use serde_json::{Value, json};

use crate::appliance::{Appliance, RELEASE};

#[test]
#[ignore = "starts virtual machines"]
fn a_kernel_that_panics_leads_back_to_the_old_slot() -> Result<()> {
    let mut appliance = Appliance::applied("panic")?;
    appliance.ok("sed -i 's, ro , ro rdinit=/nosuch init=/nosuch ,' /boot/va/back/entry.cfg")?;
    appliance.leave_tries(1)?;
    let status = appliance.fail_trial()?;
    assert_failed(&status, "exhausted");
    assert!(appliance.console().contains("Kernel panic"));
    assert_eq!(boots(&appliance), ["back trial", "root exhausted"]);
    Ok(())
}

#[test]
#[ignore = "starts virtual machines"]
fn an_initramfs_that_finds_no_root_leads_back_to_the_old_slot() -> Result<()> {
    let mut appliance = Appliance::applied("no-root")?;
    appliance.ok("sed -i 's,VA-back,VA-nosuch,; s,VA/back,VA/nosuch,' /boot/va/back/entry.cfg")?;
    appliance.leave_tries(1)?;
    let status = appliance.fail_trial()?;
    assert_failed(&status, "exhausted");
    assert!(appliance.console().contains("VA-nosuch does not exist"));
    assert_eq!(boots(&appliance), ["back trial", "root exhausted"]);
    Ok(())
}

#[test]
#[ignore = "starts virtual machines"]
fn an_initramfs_that_hangs_ends_at_the_deadline() -> Result<()> {
    let mut appliance = Appliance::applied("initramfs-hangs")?;
    // It waits an hour for a root that never comes, and half a minute to be
    // restarted; both numbers have four digits, so the archive stays whole.
    appliance.ok(
        "sed -i 's,VA-back,VA-nosuch,; s, ro , ro rootdelay=3600 ,' /boot/va/back/entry.cfg
         LC_ALL=C sed -i s/va_seconds=3600/va_seconds=0030/ /boot/va/back/initrd
         grep -q va_seconds=0030 /boot/va/back/initrd",
    )?;
    appliance.leave_tries(1)?;
    let status = appliance.fail_trial()?;
    assert_failed(&status, "exhausted");
    assert!(!appliance.console().contains("VA-nosuch does not exist"));
    assert_eq!(boots(&appliance), ["back trial", "root exhausted"]);
    Ok(())
}

#[test]
#[ignore = "starts virtual machines"]
fn a_deleted_kernel_uses_up_all_three_tries_without_a_prompt() -> Result<()> {
    let mut appliance = Appliance::applied("no-kernel")?;
    appliance.ok("rm /boot/va/back/vmlinuz-*")?;
    let status = appliance.fail_trial()?;
    assert_failed(&status, "exhausted");
    assert_eq!(
        appliance.firmware_boots(),
        4,
        "three tries and the old slot"
    );
    assert_eq!(boots(&appliance), ["root exhausted"]);
    Ok(())
}

#[test]
#[ignore = "starts virtual machines"]
fn a_failing_health_check_leads_back_to_the_old_slot() -> Result<()> {
    let mut appliance = Appliance::applied("health-fails")?;
    health_check(&mut appliance, "echo the database is gone >&2; exit 1")?;
    appliance.leave_tries(2)?;
    let status = appliance.fail_trial()?;
    assert_failed(&status, "health");
    assert_eq!(
        boots(&appliance),
        ["back trial", "back trial", "root exhausted"]
    );
    let log = appliance.ok("grep -rh 'database is gone' /data")?;
    assert!(log.contains("10-lab"), "{log}");
    Ok(())
}

#[test]
#[ignore = "starts virtual machines"]
fn a_hanging_health_check_leads_back_to_the_old_slot() -> Result<()> {
    let mut appliance = Appliance::applied("health-hangs")?;
    health_check(&mut appliance, "sleep infinity")?;
    appliance
        .in_back("sed -i 's/^health_seconds.*/health_seconds: 5/' etc/va-upgrade/config.yaml")?;
    appliance.leave_tries(1)?;
    let status = appliance.fail_trial()?;
    assert_failed(&status, "health");
    assert_eq!(boots(&appliance), ["back trial", "root exhausted"]);
    Ok(())
}

#[test]
#[ignore = "starts virtual machines"]
fn a_trial_that_nothing_confirms_ends_at_the_deadline() -> Result<()> {
    let mut appliance = Appliance::applied("deadline")?;
    appliance.in_back(
        "ln -s /dev/null etc/systemd/system/va-upgrade-boot.service
         sed -i 's/^deadline_seconds.*/deadline_seconds: 150/' etc/va-upgrade/config.yaml",
    )?;
    appliance.leave_tries(1)?;
    let status = appliance.fail_trial()?;
    assert_failed(&status, "deadline");
    assert_eq!(boots(&appliance), ["back trial", "root exhausted"]);
    Ok(())
}

/// Puts a health check into slot `back`.
fn health_check(appliance: &mut Appliance, script: &str) -> Result<()> {
    appliance.in_back(&format!(
        "mkdir -p etc/va-upgrade/health.d
         printf '#!/bin/sh\\n%s\\n' '{script}' >etc/va-upgrade/health.d/10-lab
         chmod 755 etc/va-upgrade/health.d/10-lab"
    ))
}

fn assert_failed(status: &Value, reason: &str) {
    assert_eq!(status["booted"], "root", "{status}");
    assert_eq!(status["committed"], "root", "{status}");
    assert_eq!(status["next"], "root", "{status}");
    assert_eq!(status["trial"], json!(null), "{status}");
    // Where the trial could keep its report, it says in which directory.
    let mut failed = status["failed"].clone();
    let kept = failed.as_object_mut().and_then(|it| it.remove("kept"));
    assert!(kept.is_none_or(|kept| kept.is_string()), "{status}");
    let expected = json!({"slot": "back", "version": RELEASE, "reason": reason});
    assert_eq!(failed, expected, "{status}");
    assert_eq!(status["slots"][1]["state"], "failed", "{status}");
}

/// Lists the kernels that were started since `apply`, by slot and reason.
fn boots(appliance: &Appliance) -> Vec<String> {
    let word = |line: &str, name: &str| -> String {
        let value = line.split(' ').find_map(|word| word.strip_prefix(name));
        value.unwrap_or("?").to_owned()
    };
    let lines = appliance.command_lines();
    lines
        .iter()
        .map(|line| format!("{} {}", word(line, "va.slot="), word(line, "va.why=")))
        .collect()
}
