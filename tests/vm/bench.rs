//! What an upgrade costs inside a machine: `scripts/bench --vm` prints it.

use std::time::Instant;

use anyhow::{Context, Result};

use crate::appliance::{Appliance, RELEASE};

/// The kernel keeps a process's peak until it ends, so a look now and then
/// misses only what the last second adds.
const MEASURED_APPLY: &str = r#"set -e
    start=$EPOCHREALTIME
    va-upgrade -q apply "$bundle" >&2 & pid=$!
    while line=$(grep VmHWM "/proc/$pid/status" 2>/dev/null); do peak=$line; sleep 1; done
    wait "$pid"
    end=$EPOCHREALTIME
    echo "$(((${end/./} - ${start/./}) / 1000000))" $peak $(stat -c %s "$bundle")"#;

#[test]
#[ignore = "starts virtual machines"]
fn the_figures_of_an_upgrade() -> Result<()> {
    let mut appliance = Appliance::old("bench")?;
    appliance.mount_payload()?;
    let script = format!("bundle=/mnt/{RELEASE}.vab\n{MEASURED_APPLY}");
    let answer = appliance.ok(&script)?;
    let words: Vec<&str> = answer.split_whitespace().collect();
    let [seconds, "VmHWM:", peak_kib, "kB", bundle_bytes] = words[..] else {
        anyhow::bail!("the guest answered {answer:?}");
    };
    let peak_kib: u64 = peak_kib.parse().context("reading the peak")?;
    appliance.ok("umount /mnt")?;

    let restarted = Instant::now();
    appliance.start_reboot()?;
    appliance.wait_until_committed("back")?;
    let confirmed = restarted.elapsed().as_secs_f64();

    println!("in a virtual machine with one emulated processor and 1 GiB:");
    println!("apply                {seconds:>8} s    a bundle of {bundle_bytes} bytes");
    println!(
        "  peak RSS           {:>8} MiB  goal: below 256",
        peak_kib >> 10
    );
    println!("reboot to confirmed  {confirmed:>8.0} s");
    Ok(())
}
