//! The main job, shown to a person: `scripts/demo` runs it.

use anyhow::{Result, ensure};

use crate::appliance::{self, Appliance, RELEASE};

#[test]
#[ignore = "starts virtual machines"]
fn demo() -> Result<()> {
    step("The release pipeline builds bundles: from an OVA, and from a mounted root");
    appliance::payload()?;

    step("An appliance that was installed years ago is running");
    let mut machine = Appliance::old("demo")?;
    show(
        &mut machine,
        ". /etc/os-release; echo $PRETTY_NAME; uname -r; lsblk -o NAME,SIZE,MOUNTPOINT",
    )?;
    show(&mut machine, "va-upgrade status")?;

    step("The bundle is written to the slot that does not run");
    show(
        &mut machine,
        &format!("va-upgrade check /mnt/{RELEASE}.vab"),
    )?;
    show(
        &mut machine,
        &format!("va-upgrade apply /mnt/{RELEASE}.vab"),
    )?;
    show(&mut machine, "va-upgrade status")?;

    step("The next boot tries the new system, which checks its health and stays");
    machine.ok("umount /mnt")?;
    machine.reboot()?;
    machine.wait_until_committed("back")?;
    show(
        &mut machine,
        ". /etc/os-release; echo $PRETTY_NAME; uname -r; cat /data/customer",
    )?;
    show(&mut machine, "va-upgrade status")?;

    step("The customer goes back to the old system");
    show(&mut machine, "va-upgrade rollback")?;
    machine.reboot()?;
    show(
        &mut machine,
        ". /etc/os-release; echo $PRETTY_NAME; uname -r",
    )?;
    show(&mut machine, "va-upgrade status")
}

fn step(text: &str) {
    println!("\n== {text}");
}

/// Runs a script on the appliance, with what it prints.
fn show(machine: &mut Appliance, script: &str) -> Result<()> {
    println!("appliance# {script}");
    let output = machine.run(script)?;
    print!("{}{}", output.stderr, output.stdout);
    ensure!(
        output.status == 0,
        "`{script}` ended with {}",
        output.status
    );
    Ok(())
}
