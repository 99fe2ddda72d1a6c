//! Adds signatures to a bundle that is there already.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::slice;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};

use super::format::container::{MAX_SIGNATURES, write_front};
use super::keyring::{KeyId, Keyring, SIGNATURE_BYTES, Signedness, SigningKey};
use super::open::sealed::{Sealed, Trust};
use crate::failure::{Class, Classify};
use crate::system::draft::Draft;
use crate::system::{Lock, System};

/// How long another signer of the same bundle is waited for.
const PATIENCE: Duration = Duration::from_secs(600);

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

/// What became of a signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signed {
    /// It is in the bundle now, made by this key.
    Added(KeyId),
    /// A signature by this key was there already.
    Already(KeyId),
}

/// Signs the bundle at `path` with `key`, replacing the file whole.
///
/// # Errors
/// When the file is not a bundle or cannot be written.
pub fn sign_bundle(sys: &dyn System, path: &Path, key: &SigningKey) -> Result<Signed> {
    let id = key.id()?;
    let _lock = Lock::of_file(sys, path, PATIENCE)?;
    let bytes = export_signed_bytes(path)?;
    Ok(match add_signature(path, &bytes, &key.sign(&bytes))? {
        true => Signed::Added(id),
        false => Signed::Already(id),
    })
}

/// Adds the signature in the file `signature`, made elsewhere over
/// [`export_signed_bytes`] by a key in `keyring`, replacing the bundle whole.
///
/// # Errors
/// Class [`Class::Usage`] when the file is not a signature by such a key.
pub fn attach_signature(
    sys: &dyn System,
    path: &Path,
    signature: &Path,
    keyring: &Keyring,
) -> Result<Signed> {
    let shown = signature.display();
    let signature = read_signature(signature)
        .with_context(|| format!("reading signature {shown}"))
        .class(Class::Usage)?;
    let _lock = Lock::of_file(sys, path, PATIENCE)?;
    let bytes = export_signed_bytes(path)?;
    let id = match keyring.signer_of(&bytes, slice::from_ref(&signature)) {
        Signedness::Trusted(id) => id,
        Signedness::Revoked(id) => {
            let error = anyhow!("{shown} is by key {id}, which has been revoked");
            return Err(error).class(Class::Usage);
        }
        Signedness::Unknown => {
            let error = anyhow!(
                "{shown} is no signature over {} by a key that is trusted here; sign the bytes \
                 that --export writes, and give the public key with --pub",
                path.display()
            );
            return Err(error).class(Class::Usage);
        }
    };
    Ok(match add_signature(path, &bytes, &signature)? {
        true => Signed::Added(id),
        false => Signed::Already(id),
    })
}

fn read_signature(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(SIGNATURE_BYTES as u64 + 1)
        .read_to_end(&mut bytes)?;
    ensure!(
        bytes.len() == SIGNATURE_BYTES,
        "it is not a raw Ed25519 signature of {SIGNATURE_BYTES} bytes"
    );
    Ok(bytes)
}

/// Adds `signature` to the bundle at `path`, whose signed bytes are `text`; tells
/// whether it was not there yet.
fn add_signature(path: &Path, text: &[u8], signature: &[u8]) -> Result<bool> {
    let sealed = Sealed::open(path)?;
    let mut signatures = sealed.signatures().to_vec();
    if signatures.iter().any(|known| known == signature) {
        return Ok(false);
    }
    if signatures.len() >= MAX_SIGNATURES {
        let error = anyhow!("{} has {MAX_SIGNATURES} signatures already", path.display());
        return Err(error).class(Class::Usage);
    }
    signatures.push(signature.to_vec());
    let (bundle, _) = sealed.authenticate(Trust::Anyone)?;
    let mut rest = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    rest.seek(SeekFrom::Start(bundle.members_at()))?;
    let mut draft = Draft::create(path)?;
    let mut write = |file: &mut File| -> Result<()> {
        write_front(file, text, &signatures, bundle.manifest().created)?;
        io::copy(&mut rest, file)?;
        Ok(())
    };
    write(draft.file()).with_context(|| format!("signing {}", path.display()))?;
    draft.commit()?;
    Ok(true)
}
