//! The main job, shown to a person: `scripts/demo` runs it.

use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::appliance::{self, Appliance, RELEASE};

#[test]
#[ignore = "starts virtual machines"]
fn demo() -> Result<()> {
    step("The release pipeline builds a bundle from the new release's OVA");
    appliance::show_payload()?;

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

/// Runs a script on the appliance and prints its output as it comes.
fn show(machine: &mut Appliance, script: &str) -> Result<()> {
    println!("appliance# {script}");
    machine.put("/run/lab-script", script, 0o600)?;
    machine.ok("rm -f /run/lab-status
         { bash /run/lab-script; echo $? >/run/lab-status; } >/run/lab-output 2>&1 &")?;
    let mut shown = 0;
    loop {
        let status = machine.run("cat /run/lab-status")?;
        let output = machine.ok("cat /run/lab-output")?;
        print!("{}", output.get(shown..).unwrap_or_default());
        shown = output.len();
        if status.status == 0 {
            println!();
            ensure!(
                status.stdout.trim() == "0",
                "`{script}` ended with {}",
                status.stdout
            );
            return Ok(());
        }
        thread::sleep(Duration::from_millis(500));
    }
}
