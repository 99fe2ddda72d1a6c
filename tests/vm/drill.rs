//! A drill on real firmware: the other system starts once, and this one comes back.

use anyhow::Result;
use serde_json::json;

use crate::appliance::Appliance;

#[test]
#[ignore = "starts virtual machines"]
fn a_drill_starts_the_old_system_once_and_the_new_one_comes_back() -> Result<()> {
    let mut appliance = Appliance::upgraded("drill")?;
    let before = appliance.status()?;
    appliance.ok("va-upgrade drill")?;
    assert_eq!(appliance.status()?["next"], json!("root"));
    appliance.start_reboot()?;
    appliance.wait_for_boot_of("/dev/mapper/VA-back")?;
    appliance.wait_until("va-upgrade status --json", |answer| {
        answer.contains("\"outcome\": \"drill\"") || answer.contains("\"outcome\":\"drill\"")
    })?;
    let mut status = appliance.status()?;
    assert_eq!(status["drill"], json!({"slot": "root", "outcome": "drill"}));
    status["drill"] = json!(null);
    assert_eq!(status, before);
    let lines = appliance.command_lines();
    let starts: Vec<_> = lines.iter().rev().take(2).collect();
    assert!(starts[1].contains("va.slot=root va.why=trial"), "{lines:?}");
    assert!(starts[1].contains(" va.drill=1 "), "{lines:?}");
    assert!(
        starts[0].contains("va.slot=back va.why=exhausted"),
        "{lines:?}"
    );
    Ok(())
}
