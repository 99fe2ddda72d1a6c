//! Whose signatures count: which keys there are, and whether there must be one.

use std::path::Path;

use anyhow::{Result, anyhow};

use super::Session;
use crate::bundle::{Keyring, Trust};
use crate::failure::{Class, Classify};
use crate::paths::{REVOKED_FILE, TRUSTED_DIR};

/// Loads the keys in the directory `trusted`, or else the appliance's.
///
/// # Errors
/// Class [`Class::Usage`] when the directory or a key in it is no good.
pub fn keyring(session: &Session, trusted: Option<&Path>) -> Result<Keyring> {
    if let Some(dir) = trusted
        && !dir.is_dir()
    {
        let message = anyhow!("--trusted {}: there is no such directory", dir.display());
        return Err(message).class(Class::Usage);
    }
    let default = session.at(TRUSTED_DIR);
    Keyring::load(trusted.unwrap_or(&default), &session.at(REVOKED_FILE))
}

/// Returns whose bundles are accepted.
pub fn trust(keyring: &Keyring, allow_unsigned: bool) -> Trust<'_> {
    if allow_unsigned {
        Trust::SignedOrUnsigned(keyring)
    } else {
        Trust::Signed(keyring)
    }
}
