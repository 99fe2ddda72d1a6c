//! Adds signatures to a bundle that is there already.

use std::fs::Metadata;
use std::path::Path;
use std::slice;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};

use super::format::container::{MAX_SIGNATURES, write_front};
use super::keyring::{KeyId, Keyring, SIGNATURE_BYTES, Signedness, SigningKey};
use super::open::bundle::Bundle;
use super::open::sealed::{Sealed, Trust};
use crate::failure::{Class, Classify};
use crate::input;
use crate::refuse;
use crate::system::draft::Draft;
use crate::system::{Lock, System};

/// How long another signer of the same bundle is waited for.
const PATIENCE: Duration = Duration::from_secs(600);
/// How much is read of what should be a signature.
const MAX_GIVEN_BYTES: u64 = 64 << 10;

/// Returns the bytes a signature must cover, for signing them elsewhere.
///
/// # Errors
/// When the file is not a bundle.
pub fn export_signed_bytes(path: &Path) -> Result<Vec<u8>> {
    Ok(Unfolded::open(path)?.text)
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
    let _lock = lock(sys, path)?;
    let bundle = Unfolded::open(path)?;
    let signature = key.sign(&bundle.text).to_vec();
    bundle.add(path, signature, id)
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
    let _lock = lock(sys, path)?;
    let bundle = Unfolded::open(path)?;
    let id = match keyring.signer_of(&bundle.text, slice::from_ref(&signature)) {
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
    bundle.add(path, signature, id)
}

/// Takes the lock of a bundle that is to be replaced, which only a file can be; a
/// named pipe would be waited for.
fn lock(sys: &dyn System, path: &Path) -> Result<Lock> {
    let is_else = |meta: Metadata| !meta.is_file() && !meta.is_dir();
    if path.metadata().is_ok_and(is_else) {
        refuse!(
            "{} is no file, so nothing can be added to it",
            path.display()
        );
    }
    Lock::of_file(sys, path, PATIENCE)
}

fn read_signature(path: &Path) -> Result<Vec<u8>> {
    let bytes = input::read(path, MAX_GIVEN_BYTES)?;
    ensure!(
        bytes.len() == SIGNATURE_BYTES,
        "it is not a raw Ed25519 signature of {SIGNATURE_BYTES} bytes"
    );
    Ok(bytes)
}

/// A bundle that is about to be signed.
struct Unfolded {
    /// What is signed.
    text: Vec<u8>,
    signatures: Vec<Vec<u8>>,
    bundle: Bundle<'static>,
}

impl Unfolded {
    fn open(path: &Path) -> Result<Unfolded> {
        let sealed = Sealed::open(path)?;
        let text = sealed.signed_bytes().to_vec();
        let signatures = sealed.signatures().to_vec();
        let (bundle, _) = sealed.authenticate(Trust::Anyone)?;
        Ok(Unfolded {
            text,
            signatures,
            bundle,
        })
    }

    /// Puts the bundle with `signature`, by the key `id`, in the place of `path`.
    fn add(mut self, path: &Path, signature: Vec<u8>, id: KeyId) -> Result<Signed> {
        if self.signatures.contains(&signature) {
            return Ok(Signed::Already(id));
        }
        if self.signatures.len() >= MAX_SIGNATURES {
            let error = anyhow!("{} has {MAX_SIGNATURES} signatures already", path.display());
            return Err(error).class(Class::Usage);
        }
        self.signatures.push(signature);
        let created = self.bundle.manifest().created;
        let mut draft = Draft::create(path)?;
        write_front(draft.file(), &self.text, &self.signatures, created)
            .and_then(|()| self.bundle.copy_members(draft.file()))
            .with_context(|| format!("signing {}", path.display()))?;
        draft.commit()?;
        Ok(Signed::Added(id))
    }
}
