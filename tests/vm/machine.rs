//! What the other tests take for granted about their machines.

use anyhow::Result;

use crate::appliance::Appliance;

#[test]
#[ignore = "starts virtual machines"]
fn a_machine_restarts_and_survives_a_power_cut_with_what_was_synced() -> Result<()> {
    let mut machine = Appliance::without_program("machine")?;
    assert_eq!(machine.ok("systemctl is-system-running")?, "running");
    assert_eq!(machine.ok("cat /data/customer")?, "belongs to the customer");
    assert_eq!(machine.ok("findmnt -no SOURCE /")?, "/dev/mapper/VA-root");
    assert_eq!(
        machine.ok("ip route show default | cut -d' ' -f1-3")?,
        "default via 10.0.2.2"
    );
    let output = machine.run("echo out; echo err >&2; exit 7")?;
    assert_eq!(output.status, 7);
    assert_eq!(output.stdout, "out\n");
    assert_eq!(output.stderr, "err\n");

    machine.put("/root/kept", "kept\n", 0o600)?;
    machine.reboot()?;
    assert_eq!(
        machine.ok("cat /root/kept; uptime -s >/root/synced")?,
        "kept"
    );

    machine.ok("sync; touch /root/cut")?;
    machine.cut_power()?;
    machine.power_on()?;
    machine.ok("test -s /root/synced")?;
    assert_eq!(machine.command_lines().len(), 2, "one line for each start");
    Ok(())
}
