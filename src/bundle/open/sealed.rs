//! What comes before the payload, unread, and who signed it.

use std::fmt;
use std::io::{self, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

use super::bundle::{Bundle, Members};
use super::feed::damaged;
use super::input::{Input, Source};
use crate::archive::block::BLOCK;
use crate::bad_bundle;
use crate::bundle::format::container::{self, MANIFEST, MAX_SIGNATURE_BYTES, MAX_SIGNATURES};
use crate::bundle::format::files::FILES;
use crate::bundle::format::index::Index;
use crate::bundle::format::manifest::{INDEX, IndexMember, MAX_MANIFEST_BYTES, Manifest};
use crate::bundle::keyring::{KeyId, Keyring, Signedness};
use crate::failure::{Class, Classify};
use crate::input::{self, Patient};
use crate::sha::Sha;

/// The largest list of files that is kept of a stream; 100,000 files take 6 MiB.
const MAX_KEPT_BYTES: u64 = 32 << 20;

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
    /// Stands behind the header of what follows the signatures.
    input: Input<'a>,
    manifest: Vec<u8>,
    signatures: Vec<Vec<u8>>,
    /// The headers so far: of the manifest, the signatures and what follows them.
    headers: Vec<[u8; BLOCK]>,
}

impl fmt::Debug for Sealed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealed({})", self.label)
    }
}

impl<'a> Sealed<'a> {
    /// Opens the bundle in the file at `path`, at the beginning of a block device,
    /// or from a named pipe.
    ///
    /// # Errors
    /// Class [`Class::BadBundle`] when it is not a bundle, [`Class::Refused`]
    /// when there is nothing to open.
    pub fn open(path: &Path) -> Result<Sealed<'static>> {
        let label = path.display().to_string();
        let file = input::open(path)
            .with_context(|| format!("opening the bundle {label}"))
            .class(Class::Refused)?;
        let kind = file.metadata().map(|meta| meta.file_type());
        let source = match kind.with_context(|| format!("looking at {label}"))? {
            kind if kind.is_dir() => {
                bad_bundle!("{label} is a directory, not a bundle; name a .vab file")
            }
            kind if kind.is_file() => Source::File(file),
            kind if kind.is_block_device() => Source::Device(file),
            // A pipe by its name is still a stream.
            _ => Source::Stream(Box::new(Patient(file))),
        };
        Sealed::read(label, source)
    }

    /// Opens the bundle that comes from `stream`; `label` names it in messages.
    ///
    /// # Errors
    /// Class [`Class::BadBundle`] when it is not a bundle.
    pub fn from_stream(label: &str, stream: impl Read + Send + 'a) -> Result<Sealed<'a>> {
        Sealed::read(label.to_owned(), Source::Stream(Box::new(stream)))
    }

    fn read(label: String, source: Source<'a>) -> Result<Sealed<'a>> {
        let mut input = Input::new(source);
        let front = Front::read(&mut input).map_err(|error| damaged(&label, error))?;
        Ok(Sealed {
            label,
            input,
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

    /// Checks who signed the bundle, then reads its manifest and its index.
    ///
    /// Returns the key that vouches for it, or none where `trust` asks for none.
    ///
    /// # Errors
    /// Class [`Class::BadBundle`] when the bundle is damaged or not trusted.
    pub fn authenticate(mut self, trust: Trust) -> Result<(Bundle<'a>, Option<KeyId>)> {
        let key = self.check_signatures(trust)?;
        let manifest = Manifest::parse(&self.manifest);
        let manifest = manifest.map_err(|error| damaged(&self.label, error))?;
        let members_at = self.input.at - BLOCK as u64;
        let read = self
            .check_headers(&manifest)
            .and_then(|()| read_members(&mut self.input, &manifest));
        let members = read.map_err(|error| damaged(&self.label, error))?;
        let bundle = Bundle::new(self.label, self.input, manifest, members, members_at);
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

    /// Compares the headers so far with those we would write.
    fn check_headers(&self, manifest: &Manifest) -> Result<()> {
        let created = manifest.created;
        let manifest_bytes = self.manifest.len() as u64;
        let mut expected = vec![container::header(MANIFEST, manifest_bytes, created)];
        for (i, signature) in self.signatures.iter().enumerate() {
            let name = container::signature_member(i + 1);
            expected.push(container::header(&name, signature.len() as u64, created));
        }
        expected.push(member_header(manifest, 0));
        ensure!(self.headers == expected, "one of its headers is altered");
        Ok(())
    }
}

/// Returns the header of the `number`th index member, or behind the last one
/// that of the payload.
fn member_header(manifest: &Manifest, number: usize) -> [u8; BLOCK] {
    let payload = &manifest.payload;
    let (name, size) = match manifest.index.get(number) {
        Some(member) => (&member.name, member.bytes),
        None => (&payload.member, payload.packed_bytes),
    };
    container::header(name, size, manifest.created)
}

/// Reads the index members, each proved by its digest, up to the payload;
/// `input` stands behind the header of the first.
fn read_members(input: &mut Input, manifest: &Manifest) -> Result<Members> {
    let (mut index, mut list) = (None, None);
    let is_stream = input.source.by_offset().is_none();
    for (number, member) in manifest.index.iter().enumerate() {
        let is_index = member.name == INDEX;
        let is_list = is_stream && member.name == FILES && member.bytes <= MAX_KEPT_BYTES;
        let content = read_index_member(input, member, is_index || is_list)?;
        if is_index {
            let content = content.context("the index is not kept")?;
            index = Some(Index::parse(&content, &manifest.payload)?);
        } else {
            list = list.or(content);
        }
        let mut header = [0; BLOCK];
        input
            .read_exact(&mut header)
            .with_context(|| format!("reading what follows {}", member.name))?;
        ensure!(
            header == member_header(manifest, number + 1),
            "the header after {} is altered",
            member.name
        );
    }
    let index = index.context("it has no index")?;
    Ok(Members { index, list })
}

/// Reads one member and compares its digest; returns its content if `is_kept`.
fn read_index_member(
    input: &mut Input,
    member: &IndexMember,
    is_kept: bool,
) -> Result<Option<Vec<u8>>> {
    let mut content = Vec::new();
    let mut hasher = Sha256::new();
    let mut rest = (&mut *input).take(member.bytes);
    let mut buffer = vec![0; 64 << 10];
    let mut read = 0;
    loop {
        let length = rest
            .read(&mut buffer)
            .with_context(|| format!("reading member {}", member.name))?;
        if length == 0 {
            break;
        }
        read += length as u64;
        hasher.update(&buffer[..length]);
        if is_kept {
            content.extend_from_slice(&buffer[..length]);
        }
    }
    ensure!(
        read == member.bytes,
        "it ends inside member {}",
        member.name
    );
    ensure!(
        Sha(hasher.finalize().into()) == member.sha256,
        "the digest of member {} is not the manifest's",
        member.name
    );
    container::read_padding(input, &member.name, member.bytes)?;
    Ok(is_kept.then_some(content))
}

/// What comes before the index members.
#[derive(Default)]
struct Front {
    manifest: Vec<u8>,
    signatures: Vec<Vec<u8>>,
    headers: Vec<[u8; BLOCK]>,
}

impl Front {
    fn read(input: &mut impl Read) -> Result<Front> {
        let mut front = Front::default();
        let (name, size) = front.header(input)?;
        ensure!(name == MANIFEST, "it does not start with a manifest");
        front.manifest = container::read_member(input, &name, size, MAX_MANIFEST_BYTES)?;
        loop {
            let (name, size) = front.header(input)?;
            if name != container::signature_member(front.signatures.len() + 1) {
                return Ok(front);
            }
            ensure!(
                front.signatures.len() < MAX_SIGNATURES,
                "it has more than {MAX_SIGNATURES} signatures"
            );
            let signature = container::read_member(input, &name, size, MAX_SIGNATURE_BYTES)?;
            front.signatures.push(signature);
        }
    }

    fn header(&mut self, input: &mut impl Read) -> Result<(String, u64)> {
        let mut block = [0; BLOCK];
        if let Err(error) = input.read_exact(&mut block) {
            ensure!(
                error.kind() != io::ErrorKind::UnexpectedEof,
                "it ends before its index begins"
            );
            return Err(error.into());
        }
        let header = tar::Header::from_byte_slice(&block);
        let name = header.path_bytes().escape_ascii().to_string();
        let size = header.entry_size().ok().context("it is not a tar")?;
        self.headers.push(block);
        Ok((name, size))
    }
}
