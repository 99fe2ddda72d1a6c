//! What lies in RAM, and how it is opened.

use std::path::PathBuf;
use std::thread;

use anyhow::Result;

use crate::bundle::{Bundle, Keyring, Sealed, Trust};

/// What lies in RAM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    /// The bundle.
    pub bundle: PathBuf,
    /// The archive of the old system's settings.
    pub settings: PathBuf,
    /// The disk, as a path of the machine, such as `/dev/sda`.
    pub disk: PathBuf,
    /// The directory of trusted keys; the list of revoked ones is beside it.
    pub trusted: PathBuf,
    /// A directory in RAM for what comes and goes.
    pub work: PathBuf,
}

/// More threads hold more of the bundle in memory at a time.
const MAX_THREADS: usize = 4;

/// Returns how many chunks are decoded at a time.
pub fn threads() -> usize {
    thread::available_parallelism().map_or(1, |n| n.get().min(MAX_THREADS))
}

/// Opens the bundle in RAM and proves who signed it.
///
/// # Errors
/// Class `BadBundle` when nobody did who is trusted.
pub fn open(payload: &Payload) -> Result<Bundle<'static>> {
    let revoked = payload.trusted.with_file_name("revoked");
    let keyring = Keyring::load(&payload.trusted, &revoked)?;
    let (bundle, _) = Sealed::open(&payload.bundle)?.authenticate(Trust::Signed(&keyring))?;
    Ok(bundle)
}
