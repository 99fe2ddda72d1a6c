//! Adds signatures to a bundle that is there already.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::format::container::{MAX_SIGNATURES, write_front};
use super::keyring::{KeyId, SIGNATURE_BYTES, SigningKey};
use super::open::sealed::{Sealed, Trust};
use crate::failure::{Class, Classify};
use crate::system::draft::Draft;

/// Returns the bytes a signature must cover, for signing them elsewhere.
///
/// # Errors
/// When the file is not a bundle.
pub fn export_signed_bytes(path: &Path) -> Result<Vec<u8>> {
    let sealed = Sealed::open(path)?;
    let bytes = sealed.signed_bytes().to_vec();
    sealed.authenticate(Trust::Anyone)?;
    Ok(bytes)
}

/// Signs the bundle at `path` with `key`, replacing the file whole.
///
/// # Errors
/// When the file is not a bundle, is signed with that key already, or cannot
/// be written.
pub fn sign_bundle(path: &Path, key: &SigningKey) -> Result<KeyId> {
    let bytes = export_signed_bytes(path)?;
    add_signature(path, key.sign(&bytes).to_vec())?;
    key.id()
}

/// Adds the signature in the file `signature`, made elsewhere over
/// [`export_signed_bytes`], replacing the bundle whole.
///
/// # Errors
/// Class [`Class::Usage`] when the file is not a raw Ed25519 signature.
pub fn attach_signature(path: &Path, signature: &Path) -> Result<()> {
    let read = || -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(signature)?
            .take(SIGNATURE_BYTES as u64 + 1)
            .read_to_end(&mut bytes)?;
        ensure!(
            bytes.len() == SIGNATURE_BYTES,
            "it is not a raw Ed25519 signature of {SIGNATURE_BYTES} bytes"
        );
        Ok(bytes)
    };
    let bytes = read()
        .with_context(|| format!("reading signature {}", signature.display()))
        .class(Class::Usage)?;
    add_signature(path, bytes)
}

fn add_signature(path: &Path, signature: Vec<u8>) -> Result<()> {
    let sealed = Sealed::open(path)?;
    let text = sealed.signed_bytes().to_vec();
    let mut signatures = sealed.signatures().to_vec();
    let is_new = !signatures.contains(&signature);
    let add = || -> Result<()> {
        ensure!(is_new, "it has that signature already");
        ensure!(
            signatures.len() < MAX_SIGNATURES,
            "it has {MAX_SIGNATURES} signatures already"
        );
        signatures.push(signature);
        Ok(())
    };
    add()
        .with_context(|| format!("signing {}", path.display()))
        .class(Class::Usage)?;
    let (bundle, _) = sealed.authenticate(Trust::Anyone)?;
    let mut rest = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    rest.seek(SeekFrom::Start(bundle.members_at()))?;
    let mut draft = Draft::create(path)?;
    let mut write = |file: &mut File| -> Result<()> {
        write_front(file, &text, &signatures, bundle.manifest().created)?;
        io::copy(&mut rest, file)?;
        Ok(())
    };
    write(draft.file()).with_context(|| format!("signing {}", path.display()))?;
    draft.commit()
}
