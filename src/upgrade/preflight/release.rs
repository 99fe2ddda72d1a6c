//! Whether the bundle is for this appliance.

use std::fs;

use super::Offer;
use super::checked::Checked;
use crate::appliance::Appliance;
use crate::appliance::release::ReleaseRecord;
use crate::bundle::Manifest;
use crate::{bad_bundle, cpu, refuse, version};

/// Compares the product of the bundle with the appliance's.
pub fn check_product(appliance: &Appliance, manifest: &Manifest) -> Checked<()> {
    match ReleaseRecord::of_running(appliance)?.product {
        Some(product) if product != manifest.product => bad_bundle!(
            "the bundle is for product {:?}, this appliance is {product:?}; use the bundle made for it",
            manifest.product
        ),
        Some(product) => Ok(((), product)),
        None => Ok((
            (),
            "this appliance does not say which product it is; not compared".into(),
        )),
    }
}

/// Compares the running version with the oldest the bundle upgrades, and with its
/// own where somebody has said which one runs.
pub fn check_version(appliance: &Appliance, offer: &Offer) -> Checked<()> {
    let manifest = offer.manifest;
    let running = ReleaseRecord::of_running(appliance)?.version;
    let is_older = |running: &str| version::compare(&manifest.version, running).is_lt();
    if let Some(said) = ReleaseRecord::said(appliance)?
        && is_older(&said.version)
        && !offer.allow_downgrade
    {
        refuse!(
            "version {} is older than the running {running}, a downgrade; --allow-downgrade takes \
             it all the same, and `va-upgrade rollback` goes back to the other slot as it is",
            manifest.version
        );
    }
    if let Some(min) = &manifest.min_version
        && version::compare(&running, min).is_lt()
    {
        refuse!(
            "version {running} is too old for version {}, which upgrades {min} or newer; upgrade to {min} first",
            manifest.version
        );
    }
    let word = if is_older(&running) {
        ", a downgrade"
    } else {
        ""
    };
    Ok(((), format!("from {running} to {}{word}", manifest.version)))
}

/// Compares what the processor has with what the bundle needs.
pub fn check_processor(appliance: &Appliance, manifest: &Manifest) -> Checked<()> {
    if manifest.architecture != "x86_64" {
        refuse!(
            "the bundle is for {}, this machine is x86_64",
            manifest.architecture
        );
    }
    let cpuinfo = fs::read_to_string(appliance.at("/proc/cpuinfo"))?;
    let missing = cpu::missing_flags(&cpuinfo, manifest.cpu_level);
    if !missing.is_empty() {
        refuse!(
            "version {} needs a processor of level {}; this one lacks {}. \
             On a cluster, raise its CPU compatibility mode (EVC) and restart the machine from power-off",
            manifest.version,
            manifest.cpu_level,
            missing.join(", ")
        );
    }
    Ok(((), format!("{} is there", manifest.cpu_level)))
}
