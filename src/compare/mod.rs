//! What changed from one bundle to the next; writes nothing but temporary files.
//!
//! 1. Each bundle is decoded once; of each name its meta data and the digest of
//!    its content are kept ([`Contents`](crate::bundle::Contents)), and aside
//!    the files of its package database.
//! 2. Where both have packages, these are compared, and every name that one of
//!    them owns is marked.
//! 3. The names are compared, and those that nobody owns are told.

mod files;
mod reading;

pub use files::{FileChange, What};

use anyhow::Result;

use crate::bundle::Bundle;
use crate::packages::{self, Change};
use crate::progress::Progress;
use crate::system::System;

use reading::Reading;

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Packages and the files that none of them owns; every file where one of
    /// the bundles has no packages.
    Packages,
    /// Every file.
    Files,
}

/// What changed from an older bundle to a newer one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comparison {
    /// The packages that are not the same, by name; `None` where every file
    /// was compared.
    pub packages: Option<Vec<Change>>,
    /// The files that are not the same, by path; without those that belong to
    /// packages, where packages were compared.
    pub files: Vec<FileChange>,
    /// How many files were left out because they belong to packages.
    pub owned_files: usize,
}

/// Compares two bundles.
///
/// # Errors
/// Class [`BadBundle`](crate::failure::Class::BadBundle) when one is damaged,
/// `Refused` when its package database is too large.
pub fn compare(
    sys: &dyn System,
    old: &mut Bundle,
    new: &mut Bundle,
    by: By,
    progress: &dyn Progress,
) -> Result<Comparison> {
    let with_packages = by == By::Packages;
    let mut old_reading = Reading::of(old, with_packages, progress)?;
    let mut new_reading = Reading::of(new, with_packages, progress)?;
    let mut packages = None;
    if with_packages {
        let of_old = old_reading.packages(sys, progress)?;
        let of_new = new_reading.packages(sys, progress)?;
        for (label, found) in [(old.label(), &of_old), (new.label(), &of_new)] {
            if found.is_none() {
                progress.note(&format!(
                    "no packages are known of {label}; comparing by file"
                ));
            }
        }
        if let (Some(old), Some(new)) = (of_old, of_new) {
            packages = Some(packages::compare(&old, &new));
        }
    }
    let mut files = files::compare(&old_reading.contents, &new_reading.contents);
    let all = files.len();
    if packages.is_some() {
        files.retain(|change| !change.is_owned);
    }
    Ok(Comparison {
        packages,
        owned_files: all - files.len(),
        files,
    })
}
