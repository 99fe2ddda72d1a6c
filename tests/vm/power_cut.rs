//! Power cuts at random moments of `apply`: the old system or the new one
//! boots, never neither, and a second `apply` succeeds.

use std::collections::hash_map::RandomState;
use std::env;
use std::hash::{BuildHasher, Hasher};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::json;

use crate::appliance::{Appliance, NEXT_RELEASE, RELEASE, runs_all};
use crate::lab::tell::say;

/// The moments tried when nobody asked for all ten.
const USUAL_CUTS: u32 = 2;

#[test]
#[ignore = "starts virtual machines"]
fn a_power_cut_at_any_moment_of_an_apply_leaves_a_system_that_boots() -> Result<()> {
    let cuts = if runs_all() { 10 } else { USUAL_CUTS };
    let seed = match env::var("VA_LAB_SEED") {
        Ok(text) => text.parse().context("VA_LAB_SEED")?,
        Err(_) => RandomState::new().build_hasher().finish(),
    };
    say(&format!("power cuts: VA_LAB_SEED={seed}"));

    let mut appliance = Appliance::old("uncut")?;
    let started = Instant::now();
    appliance.apply(RELEASE)?;
    let whole = started.elapsed();
    for number in 0..cuts {
        // Spread over the whole run, at a random place in each part.
        let part = whole / cuts;
        let moment = part * number + part.mul_f64(fraction(seed, number));
        say(&format!(
            "power cut {number} after {moment:.1?} of {whole:.1?}"
        ));
        cut(number, moment).with_context(|| format!("power cut {number} after {moment:?}"))?;
    }
    Ok(())
}

fn cut(number: u32, moment: Duration) -> Result<()> {
    let mut appliance = Appliance::old(&format!("cut-{number}"))?;
    appliance.ok("sync")?;
    appliance.ok(&format!(
        "systemd-run --unit=lab-apply va-upgrade apply /mnt/{RELEASE}.vab"
    ))?;
    // The random moment itself; nothing is awaited here.
    thread::sleep(moment);
    appliance.cut_power()?;
    appliance.power_on()?;
    let status = appliance.status()?;
    let booted = status["booted"].clone();
    assert!(booted == "root" || booted == "back", "{status}");
    let other = if booted == "root" { "back" } else { "root" };
    if booted == "back" {
        // The trial was armed before the cut.
        appliance.wait_until_committed("back")?;
    } else {
        assert_eq!(status["committed"], "root", "{status}");
    }
    appliance.apply(NEXT_RELEASE)?;
    let status = appliance.status()?;
    assert_eq!(status["next"], json!(other), "{status}");
    assert_eq!(status["committed"], booted, "{status}");
    Ok(())
}

/// Returns a number from 0 to 1 that only depends on its arguments
/// (SplitMix64).
fn fraction(seed: u64, number: u32) -> f64 {
    let mut bits = seed.wrapping_add((u64::from(number) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let top = u32::try_from(bits >> 32).unwrap_or_default();
    f64::from(top) / f64::from(u32::MAX)
}
