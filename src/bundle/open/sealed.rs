//! What comes before the payload, unread, and who signed it.

use std::fmt;
use std::fs::{File, Metadata};
use std::io::{self, BufReader, Read};
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::bundle::{Bundle, Source};
use super::feed::damaged;
use crate::bad_bundle;
use crate::bundle::archive::block::{BLOCK, padding};
use crate::bundle::format::container::{self, MAX_SIGNATURE_BYTES, MAX_SIGNATURES};
use crate::bundle::format::manifest::{MAX_MANIFEST_BYTES, Manifest};
use crate::bundle::keyring::{KeyId, Keyring, Signedness};
use crate::failure::{Class, Classify};

/// Whose bundles are accepted.
#[derive(Clone, Copy, Debug)]
pub enum Trust<'k> {
    /// Those signed by a trusted key.
    Signed(&'k Keyring),
    /// Those, and bundles without any signature.
    SignedOrUnsigned(&'k Keyring),
    /// Everybody's; for showing a bundle, not for using it.
    Anyone,
}

/// A bundle whose manifest nobody has looked at yet.
pub struct Sealed<'a> {
    label: String,
    source: Source<'a>,
    manifest: Vec<u8>,
    signatures: Vec<Vec<u8>>,
    /// The headers of manifest, signatures and payload.
    headers: Vec<[u8; BLOCK]>,
    payload_at: u64,
    payload_bytes: u64,
}

impl fmt::Debug for Sealed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealed({})", self.label)
    }
}

impl<'a> Sealed<'a> {
    /// Opens the bundle in the file at `path`.
    ///
    /// # Errors
    /// Class [`Class::BadBundle`] when it is not a bundle, [`Class::Refused`]
    /// when there is nothing to open.
    pub fn open(path: &Path) -> Result<Sealed<'static>> {
        let label = path.display().to_string();
        let file = File::open(path)
            .with_context(|| format!("opening the bundle {label}"))
            .class(Class::Refused)?;
        let meta = file.metadata();
        if meta.as_ref().is_ok_and(Metadata::is_dir) {
            bad_bundle!("{label} is a directory, not a bundle; name a .vab file");
        }
        let is_file = meta.is_ok_and(|m| m.is_file());
        if !is_file {
            // A pipe or a device by its name is still a stream.
            return Sealed::read(label, Source::Stream(Box::new(file)));
        }
        Sealed::read(label, Source::File(file))
    }

    /// Opens the bundle that comes from `stream`; `label` names it in messages.
    ///
    /// # Errors
    /// Class [`Class::BadBundle`] when it is not a bundle.
    pub fn from_stream(label: &str, stream: impl Read + Send + 'a) -> Result<Sealed<'a>> {
        Sealed::read(label.to_owned(), Source::Stream(Box::new(stream)))
    }

    fn read(label: String, mut source: Source<'a>) -> Result<Sealed<'a>> {
        let front = match &mut source {
            // Whole reads of a file are cheap and the payload is read by offset.
            Source::File(file) => Front::read(&mut BufReader::new(file)),
            Source::Stream(stream) => Front::read(stream),
        };
        let front = front.map_err(|error| damaged(&label, error))?;
        Ok(Sealed {
            label,
            source,
            payload_at: front.bytes_read,
            payload_bytes: front.payload_bytes,
            manifest: front.manifest,
            signatures: front.signatures,
            headers: front.headers,
        })
    }

    /// Returns the bytes that are signed.
    pub fn signed_bytes(&self) -> &[u8] {
        &self.manifest
    }

    /// Returns the raw signatures, in the order they were added.
    pub fn signatures(&self) -> &[Vec<u8>] {
        &self.signatures
    }

    /// Checks who signed the bundle, then reads its manifest.
    ///
    /// Returns the key that vouches for it, or none where `trust` asks for none.
    ///
    /// # Errors
    /// Class [`Class::BadBundle`] when the bundle is damaged or not trusted.
    pub fn authenticate(self, trust: Trust) -> Result<(Bundle<'a>, Option<KeyId>)> {
        let key = self.check_signatures(trust)?;
        let manifest =
            Manifest::parse(&self.manifest).map_err(|error| damaged(&self.label, error))?;
        self.check_headers(&manifest)
            .map_err(|error| damaged(&self.label, error))?;
        let bundle = Bundle::new(self.label, self.source, manifest, self.payload_at);
        Ok((bundle, key))
    }

    fn check_signatures(&self, trust: Trust) -> Result<Option<KeyId>> {
        let label = &self.label;
        let (keyring, is_unsigned_fine) = match trust {
            Trust::Signed(keyring) => (keyring, false),
            Trust::SignedOrUnsigned(keyring) => (keyring, true),
            Trust::Anyone => return Ok(None),
        };
        if self.signatures.is_empty() {
            if is_unsigned_fine {
                return Ok(None);
            }
            bad_bundle!(
                "{label} is not signed; sign it with `va-upgrade sign`, \
                 or accept it with --allow-unsigned"
            );
        }
        match keyring.signer_of(&self.manifest, &self.signatures) {
            Signedness::Trusted(key) => Ok(Some(key)),
            Signedness::Revoked(key) => bad_bundle!(
                "{label} is signed by key {key}, which has been revoked; \
                 get a bundle signed with another key"
            ),
            Signedness::Unknown => {
                let mut known: Vec<&str> = keyring.trusted().map(KeyId::as_str).collect();
                if known.is_empty() {
                    known.push("none");
                }
                bad_bundle!(
                    "{label} is damaged or signed by nobody this system trusts \
                     (trusted keys: {}); copy it again, or put the signer's public key among the trusted ones",
                    known.join(", ")
                )
            }
        }
    }

    /// Compares every header with the one we would write.
    fn check_headers(&self, manifest: &Manifest) -> Result<()> {
        let created = manifest.created;
        let mut expected = vec![container::header(
            container::MANIFEST,
            self.manifest.len() as u64,
            created,
        )];
        for (i, signature) in self.signatures.iter().enumerate() {
            let name = container::signature_member(i + 1);
            expected.push(container::header(&name, signature.len() as u64, created));
        }
        let payload = &manifest.payload;
        expected.push(container::header(
            &payload.member,
            payload.packed_bytes,
            created,
        ));
        ensure!(
            self.payload_bytes == payload.packed_bytes,
            "its payload has {} bytes, the manifest says {}",
            self.payload_bytes,
            payload.packed_bytes
        );
        ensure!(self.headers == expected, "one of its headers is altered");
        Ok(())
    }
}

/// What comes before the payload.
#[derive(Default)]
struct Front {
    manifest: Vec<u8>,
    signatures: Vec<Vec<u8>>,
    headers: Vec<[u8; BLOCK]>,
    payload_bytes: u64,
    bytes_read: u64,
}

impl Front {
    fn read(input: &mut impl Read) -> Result<Front> {
        let mut front = Front::default();
        let (name, size) = front.header(input)?;
        ensure!(
            name == container::MANIFEST,
            "it does not start with a manifest"
        );
        front.manifest = front.member(input, &name, size, MAX_MANIFEST_BYTES)?;
        loop {
            let (name, size) = front.header(input)?;
            if name != container::signature_member(front.signatures.len() + 1) {
                front.payload_bytes = size;
                return Ok(front);
            }
            ensure!(
                front.signatures.len() < MAX_SIGNATURES,
                "it has more than {MAX_SIGNATURES} signatures"
            );
            let signature = front.member(input, &name, size, MAX_SIGNATURE_BYTES)?;
            front.signatures.push(signature);
        }
    }

    fn header(&mut self, input: &mut impl Read) -> Result<(String, u64)> {
        let mut block = [0; BLOCK];
        if let Err(error) = input.read_exact(&mut block) {
            ensure!(
                error.kind() != io::ErrorKind::UnexpectedEof,
                "it ends before its payload begins"
            );
            return Err(error.into());
        }
        let header = tar::Header::from_byte_slice(&block);
        let name = header.path_bytes().escape_ascii().to_string();
        let size = header.entry_size().ok().context("it is not a tar")?;
        self.bytes_read += BLOCK as u64;
        self.headers.push(block);
        Ok((name, size))
    }

    fn member(
        &mut self,
        input: &mut impl Read,
        name: &str,
        size: u64,
        limit: u64,
    ) -> Result<Vec<u8>> {
        let content = container::read_member(input, name, size, limit)?;
        self.bytes_read += size + padding(size) as u64;
        Ok(content)
    }
}
