//! The word that the trial which this boot was started for is over.

use std::fs;

use crate::appliance::Appliance;
use crate::paths::TRIAL_OVER_FILE;

/// Leaves word, where no storage is needed to find it, that the trial which the
/// running kernel was started for is over.
pub fn mark_over(appliance: &Appliance) {
    let path = appliance.at(TRIAL_OVER_FILE);
    if let Err(error) = fs::write(&path, "") {
        appliance
            .progress
            .note(&format!("writing {}: {error}", path.display()));
    }
}

/// Tells whether that word was left; reads memory only.
pub fn is_marked_over(appliance: &Appliance) -> bool {
    appliance.at(TRIAL_OVER_FILE).exists()
}
