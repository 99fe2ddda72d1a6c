//! Keys: the one a bundle is signed with, and those an appliance trusts.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Error, Result, bail, ensure};
use ed25519_dalek::pkcs8::{DecodePrivateKey, DecodePublicKey, EncodePublicKey};
use ed25519_dalek::{Signature, Signer, VerifyingKey};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::failure::{Class, Classify};
use crate::input;

/// The length of an Ed25519 signature.
pub const SIGNATURE_BYTES: usize = 64;
const MAX_PEM_BYTES: u64 = 64 << 10;
const MAX_REVOKED_BYTES: u64 = 1 << 20;

/// Names a key: the first 16 hex digits of SHA-256 over its DER public key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct KeyId(String);

impl KeyId {
    fn of(key: &VerifyingKey) -> Result<KeyId> {
        let der = key.to_public_key_der().context("encoding a public key")?;
        let digest = Sha256::digest(der.as_bytes());
        let hex = digest.iter().take(8).map(|byte| format!("{byte:02x}"));
        Ok(KeyId(hex.collect()))
    }

    /// Returns the id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A private key to sign bundles with.
#[derive(Clone)]
pub struct SigningKey(ed25519_dalek::SigningKey);

impl SigningKey {
    /// Returns the id of its public half.
    ///
    /// # Errors
    /// When the key cannot be encoded.
    pub fn id(&self) -> Result<KeyId> {
        KeyId::of(&self.0.verifying_key())
    }

    /// Signs `message`.
    pub fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_BYTES] {
        self.0.sign(message).to_bytes()
    }
}

/// Loads a private key as `openssl genpkey -algorithm ed25519` makes it.
///
/// # Errors
/// Class [`Class::Usage`] when the file is not such a key.
pub fn load_signing_key(path: &Path) -> Result<SigningKey> {
    let load = || -> Result<SigningKey> {
        let pem = input::read_text(path, MAX_PEM_BYTES)?;
        let key = ed25519_dalek::SigningKey::from_pkcs8_pem(&pem)
            .ok()
            .context(
                "it is not an Ed25519 private key in PEM; make one with \
             `openssl genpkey -algorithm ed25519`",
            )?;
        Ok(SigningKey(key))
    };
    load()
        .with_context(|| format!("reading key {}", path.display()))
        .class(Class::Usage)
}

/// The keys an appliance trusts, and those it no longer does.
#[derive(Debug, Default)]
pub struct Keyring {
    keys: Vec<(KeyId, VerifyingKey)>,
    revoked: BTreeSet<KeyId>,
}

/// Who signed a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signedness {
    /// A trusted key.
    Trusted(KeyId),
    /// Only a key that has been revoked.
    Revoked(KeyId),
    /// No key of the keyring.
    Unknown,
}

impl Keyring {
    /// Loads every `*.pem` of `trusted` and the ids in the file `revoked`; both may be
    /// absent. Nobody but their owner may be able to change them.
    ///
    /// # Errors
    /// Class [`Class::Usage`] when one of them is there and unusable: a key
    /// that is silently left out would look like a bundle nobody signed.
    pub fn load(trusted: &Path, revoked: &Path) -> Result<Keyring> {
        let load = || -> Result<Keyring> {
            Ok(Keyring {
                keys: load_keys(trusted)?,
                revoked: load_revoked(revoked)?,
            })
        };
        load().class(Class::Usage)
    }

    /// Loads the one public key in the file `path`.
    ///
    /// # Errors
    /// Class [`Class::Usage`] when it is no such key.
    pub fn of_key(path: &Path) -> Result<Keyring> {
        let load = || parse_key(&input::read_text(path, MAX_PEM_BYTES)?);
        let key = load()
            .with_context(|| format!("reading key {}", path.display()))
            .class(Class::Usage)?;
        Ok(Keyring {
            keys: vec![key],
            revoked: BTreeSet::new(),
        })
    }

    /// Lists the keys that are trusted and not revoked.
    pub fn trusted(&self) -> impl Iterator<Item = &KeyId> {
        let ids = self.keys.iter().map(|(id, _)| id);
        ids.filter(|id| !self.revoked.contains(id))
    }

    /// Lists the trusted keys that signed `message`, each once.
    pub fn signers_of(&self, message: &[u8], signatures: &[Vec<u8>]) -> Vec<KeyId> {
        let is_by = |key: &VerifyingKey| {
            let mut signatures = signatures.iter();
            signatures.any(|bytes| {
                let signature = Signature::from_slice(bytes);
                signature.is_ok_and(|s| key.verify_strict(message, &s).is_ok())
            })
        };
        let trusted = self
            .keys
            .iter()
            .filter(|(id, _)| !self.revoked.contains(id));
        trusted
            .filter(|(_, key)| is_by(key))
            .map(|(id, _)| id.clone())
            .collect()
    }

    /// Tells who signed `message`; one signature by a trusted key suffices.
    pub fn signer_of(&self, message: &[u8], signatures: &[Vec<u8>]) -> Signedness {
        let mut verdict = Signedness::Unknown;
        for bytes in signatures {
            let Ok(signature) = Signature::from_slice(bytes) else {
                continue;
            };
            for (id, key) in &self.keys {
                if key.verify_strict(message, &signature).is_err() {
                    continue;
                }
                if !self.revoked.contains(id) {
                    return Signedness::Trusted(id.clone());
                }
                verdict = Signedness::Revoked(id.clone());
            }
        }
        verdict
    }
}

fn load_keys(dir: &Path) -> Result<Vec<(KeyId, VerifyingKey)>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.with_context(|| format!("reading {}", dir.display()))?,
    };
    fs::metadata(dir)
        .map_err(Into::into)
        .and_then(|meta| input::check_owner_alone_writes(&meta))
        .with_context(|| format!("trusting the keys in {}", dir.display()))?;
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry
            .with_context(|| format!("reading {}", dir.display()))?
            .path();
        if path.extension().is_some_and(|e| e == "pem") {
            paths.push(path);
        }
    }
    paths.sort();
    paths.iter().map(|path| load_key(path)).collect()
}

fn load_key(path: &Path) -> Result<(KeyId, VerifyingKey)> {
    let load = || {
        let (pem, meta) = input::read_file(path, MAX_PEM_BYTES)?;
        input::check_owner_alone_writes(&meta)?;
        parse_key(&pem)
    };
    load().with_context(|| format!("reading trusted key {}", path.display()))
}

fn parse_key(pem: &str) -> Result<(KeyId, VerifyingKey)> {
    ensure!(
        !pem.contains("PRIVATE KEY"),
        "it is a private key; keep it off the appliance and put its public half here \
         (`openssl pkey -pubout`)"
    );
    let key = VerifyingKey::from_public_key_pem(pem)
        .ok()
        .context("it is not an Ed25519 public key in PEM")?;
    Ok((KeyId::of(&key)?, key))
}

fn load_revoked(path: &Path) -> Result<BTreeSet<KeyId>> {
    // A link that leads nowhere is a list that is lost, not none.
    if let Err(error) = fs::symlink_metadata(path)
        && error.kind() == ErrorKind::NotFound
    {
        return Ok(BTreeSet::new());
    }
    let read = || {
        let (text, meta) = input::read_file(path, MAX_REVOKED_BYTES)?;
        input::check_owner_alone_writes(&meta)?;
        Ok::<_, Error>(text)
    };
    let text = read().with_context(|| format!("reading {}", path.display()))?;
    let mut revoked = BTreeSet::new();
    for (number, line) in text.lines().enumerate() {
        let id = line.split('#').next().unwrap_or_default().trim();
        if id.is_empty() {
            continue;
        }
        if id.len() != 16 || !id.bytes().all(|b| b.is_ascii_hexdigit()) {
            bail!(
                "{} line {}: {id:.40?} is not a key id of 16 hex digits",
                path.display(),
                number + 1
            );
        }
        revoked.insert(KeyId(id.to_ascii_lowercase()));
    }
    Ok(revoked)
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, symlink};

    pub fn key(seed: u8) -> SigningKey {
        SigningKey(ed25519_dalek::SigningKey::from_bytes(&[seed; 32]))
    }

    pub fn trust(dir: &Path, name: &str, key: &SigningKey) {
        let public = key.0.verifying_key();
        let pem = public.to_public_key_pem(LineEnding::LF).unwrap();
        fs::create_dir_all(dir).unwrap();
        fs::write(dir.join(name), pem).unwrap();
    }

    #[test]
    fn any_trusted_signature_suffices_and_a_revoked_one_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let (trusted, revoked) = (dir.path().join("trusted.d"), dir.path().join("revoked"));
        trust(&trusted, "a.pem", &key(1));
        trust(&trusted, "b.pem", &key(2));
        fs::write(trusted.join("README"), "not a key").unwrap();
        let (one, two) = (key(1).id().unwrap(), key(2).id().unwrap());
        let sign = |seed: u8| key(seed).sign(b"text").to_vec();
        let ring = Keyring::load(&trusted, &revoked).unwrap();
        assert_eq!(
            ring.signer_of(b"text", &[sign(3), vec![1], sign(2)]),
            Signedness::Trusted(two.clone())
        );
        assert_eq!(ring.signer_of(b"text", &[sign(3)]), Signedness::Unknown);
        assert_eq!(ring.signer_of(b"texts", &[sign(1)]), Signedness::Unknown);

        fs::write(&revoked, format!("# old\n{one} # lost\n")).unwrap();
        let ring = Keyring::load(&trusted, &revoked).unwrap();
        assert_eq!(ring.trusted().collect::<Vec<_>>(), [&two]);
        assert_eq!(
            ring.signer_of(b"text", &[sign(1)]),
            Signedness::Revoked(one)
        );
        assert_eq!(
            ring.signer_of(b"text", &[sign(1), sign(2)]),
            Signedness::Trusted(two)
        );
    }

    #[test]
    fn absent_places_are_an_empty_keyring_and_unusable_ones_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let none = dir.path().join("none");
        assert_eq!(Keyring::load(&none, &none).unwrap().trusted().count(), 0);
        fs::write(dir.path().join("bad.pem"), "hello").unwrap();
        let error = format!("{:#}", Keyring::load(dir.path(), &none).unwrap_err());
        assert!(error.contains("bad.pem"), "{error}");
        let list = dir.path().join("revoked");
        fs::write(&list, "abc\n").unwrap();
        let error = format!("{:#}", Keyring::load(&none, &list).unwrap_err());
        assert!(error.contains("line 1"), "{error}");
    }

    #[test]
    fn a_list_of_the_revoked_that_is_lost_is_not_none() {
        let dir = tempfile::tempdir().unwrap();
        let (none, list) = (dir.path().join("none"), dir.path().join("revoked"));
        symlink(dir.path().join("gone"), &list).unwrap();
        let error = format!("{:#}", Keyring::load(&none, &list).unwrap_err());
        assert!(error.contains("revoked: No such file"), "{error}");
        fs::remove_file(&list).unwrap();
        mkfifo(&list, Mode::S_IRWXU).unwrap();
        let error = format!("{:#}", Keyring::load(&none, &list).unwrap_err());
        assert!(error.contains("not a regular file"), "{error}");
    }

    #[test]
    fn keys_that_others_may_put_there_or_change_are_not_trusted() {
        let dir = tempfile::tempdir().unwrap();
        let (trusted, list) = (dir.path().join("trusted.d"), dir.path().join("revoked"));
        trust(&trusted, "a.pem", &key(1));
        let file = trusted.join("a.pem");
        fs::write(&list, "").unwrap();
        for (path, right) in [(&trusted, 0o755), (&file, 0o644), (&list, 0o644)] {
            for bit in [0o020, 0o002] {
                fs::set_permissions(path, Permissions::from_mode(right | bit)).unwrap();
                let error = format!("{:#}", Keyring::load(&trusted, &list).unwrap_err());
                let name = path.file_name().unwrap().to_str().unwrap();
                assert!(error.contains(name) && error.contains("chmod"), "{error}");
            }
            fs::set_permissions(path, Permissions::from_mode(right)).unwrap();
        }
        assert_eq!(Keyring::load(&trusted, &list).unwrap().trusted().count(), 1);
        // A pipe is not waited for.
        mkfifo(&trusted.join("b.pem"), Mode::S_IRWXU).unwrap();
        let error = format!("{:#}", Keyring::load(&trusted, &list).unwrap_err());
        assert!(error.contains("b.pem: it is not a regular file"), "{error}");
    }
}
