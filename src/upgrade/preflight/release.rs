//! Whether the bundle is for this appliance.

use std::fs;

use super::Offer;
use super::checked::{Checked, refuse};
use crate::appliance::Appliance;
use crate::appliance::hypervisor::Hypervisor;
use crate::appliance::release::ReleaseRecord;
use crate::bundle::Manifest;
use crate::failure::{Class, with_class};
use crate::report::Finding;
use crate::{cpu, version};

/// Compares the product of the bundle with the appliance's.
pub fn check_product(appliance: &Appliance, manifest: &Manifest) -> Checked<()> {
    match ReleaseRecord::of_running(appliance)?.product {
        Some(product) if product != manifest.product => Err(with_class(
            Class::BadBundle,
            Finding::new(
                format!("the bundle is for product {:?}", manifest.product),
                format!("one for {product:?}, which this appliance is"),
                "use the bundle made for it",
            )
            .into(),
        )),
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
        return refuse(
            format!(
                "version {} is older than the running {running}, a downgrade",
                manifest.version
            ),
            "a newer version",
            "--allow-downgrade takes it all the same, and `va-upgrade rollback` goes back to the \
             other slot as it is",
        );
    }
    if let Some(min) = &manifest.min_version
        && version::compare(&running, min).is_lt()
    {
        return refuse(
            format!(
                "version {running} is too old for version {}",
                manifest.version
            ),
            format!("{min} or newer"),
            format!("upgrade to {min} first"),
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
        return refuse(
            format!("the bundle is for {}", manifest.architecture),
            "x86_64, as this machine is",
            "use the bundle made for it",
        );
    }
    let cpuinfo = fs::read_to_string(appliance.at("/proc/cpuinfo"))?;
    let missing = cpu::missing_flags(&cpuinfo, manifest.cpu_level);
    if !missing.is_empty() {
        return refuse(
            format!("this machine's processor lacks {}", missing.join(", ")),
            format!(
                "level {} for version {}",
                manifest.cpu_level, manifest.version
            ),
            Hypervisor::of(appliance).raise_processor(),
        );
    }
    Ok(((), format!("{} is there", manifest.cpu_level)))
}
