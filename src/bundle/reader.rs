//! Opens a bundle, from a file or a stream, and proves it genuine.
//!
//! 1. [`Sealed`] holds what comes before the payload, unread.
//! 2. [`Sealed::authenticate`] checks the signatures over the raw manifest;
//!    only then is the manifest parsed and believed.
//! 3. [`Bundle`] hands out the payload, chunk by chunk, or checks it whole.

use std::fmt;
use std::fs::{File, Metadata};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::{Context, Error, Result, anyhow, ensure};

use super::keyring::{KeyId, Keyring, Signedness};
use super::manifest::{Chunk, Codec, MAX_MANIFEST_BYTES, Manifest, Sha};
use super::outer::{self, BLOCK, MAX_SIGNATURE_BYTES, MAX_SIGNATURES};
use crate::bad_bundle;
use crate::failure::{Class, Classify};
use crate::progress::Progress;
use crate::refuse;
use crate::system::signals;

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

/// Where the bytes come from.
enum Source<'a> {
    File(File),
    Stream(Box<dyn Read + Send + 'a>),
}

/// A bundle whose manifest has been authenticated.
pub struct Bundle<'a> {
    label: String,
    source: Source<'a>,
    manifest: Manifest,
    payload_at: u64,
}

impl fmt::Debug for Sealed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealed({})", self.label)
    }
}

impl fmt::Debug for Bundle<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bundle({})", self.label)
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
        let bundle = Bundle {
            label: self.label,
            source: self.source,
            manifest,
            payload_at: self.payload_at,
        };
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
        let mut expected = vec![outer::header(
            outer::MANIFEST,
            self.manifest.len() as u64,
            created,
        )];
        for (i, signature) in self.signatures.iter().enumerate() {
            let name = outer::signature_member(i + 1);
            expected.push(outer::header(&name, signature.len() as u64, created));
        }
        let payload = &manifest.payload;
        expected.push(outer::header(
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
        ensure!(name == outer::MANIFEST, "it does not start with a manifest");
        front.manifest = front.member(input, &name, size, MAX_MANIFEST_BYTES)?;
        loop {
            let (name, size) = front.header(input)?;
            if name != outer::signature_member(front.signatures.len() + 1) {
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
        let content = outer::read_member(input, name, size, limit)?;
        self.bytes_read += size + outer::padding(size) as u64;
        Ok(content)
    }
}

impl<'a> Bundle<'a> {
    /// Returns the manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Checks every byte after the manifest against it, without unpacking.
    ///
    /// # Errors
    /// Class [`Class::BadBundle`] when a byte differs, is missing or is left
    /// over. A stream cannot be read twice and is refused.
    pub fn verify(&mut self, threads: usize, progress: &dyn Progress) -> Result<()> {
        let Source::File(file) = &mut self.source else {
            return Err(anyhow!(
                "{} is a stream; it is verified while it is unpacked",
                self.label
            ));
        };
        let packed = self.manifest.payload.packed_bytes;
        progress.start("verifying", Some(packed));
        check_tail(file, &self.manifest, self.payload_at)
            .map_err(|error| damaged(&self.label, error))?;
        let threads = threads.clamp(1, self.manifest.chunks.len().max(1));
        let feed = self.feed();
        thread::scope(|scope| {
            let workers: Vec<_> = (0..threads)
                .map(|_| scope.spawn(|| verify_chunks(&feed, progress)))
                .collect();
            workers
                .into_iter()
                .try_for_each(|w| w.join().expect("a verifying thread does not panic"))
        })?;
        progress.finish();
        Ok(())
    }

    pub(super) fn payload_at(&self) -> u64 {
        self.payload_at
    }

    /// Returns the name that messages call it by.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Hands the chunks of the payload out to several threads.
    pub(super) fn feed(&mut self) -> Feed<'_, 'a> {
        let order = (0..self.manifest.chunks.len()).collect();
        self.feed_in(order)
    }

    /// Hands out the chunks with the numbers in `order` only; of a file.
    pub(super) fn feed_of(&mut self, order: Vec<usize>) -> Result<Feed<'_, 'a>> {
        if let Source::Stream(_) = self.source {
            refuse!(
                "{} is a stream; parts of a bundle are only unpacked from a file",
                self.label
            );
        }
        Ok(self.feed_in(order))
    }

    fn feed_in(&mut self, order: Vec<usize>) -> Feed<'_, 'a> {
        Feed {
            order,
            label: &self.label,
            codec: self.manifest.payload.codec,
            chunks: &self.manifest.chunks,
            payload_at: self.payload_at,
            next: AtomicUsize::new(0),
            source: match &mut self.source {
                Source::File(file) => FeedSource::File(file),
                Source::Stream(stream) => FeedSource::Stream(Mutex::new(stream.as_mut())),
            },
        }
    }

    /// Checks what follows the payload; of a stream, all of which has been read.
    pub(super) fn check_end(&mut self) -> Result<()> {
        let packed = self.manifest.payload.packed_bytes;
        let checked = match &mut self.source {
            Source::File(file) => check_tail(file, &self.manifest, self.payload_at),
            Source::Stream(stream) => {
                outer::read_padding(stream, &self.manifest.payload.member, packed)
                    .and_then(|()| outer::read_end(stream))
            }
        };
        checked.map_err(|error| damaged(&self.label, error))
    }
}

fn check_tail(file: &mut File, manifest: &Manifest, payload_at: u64) -> Result<()> {
    let packed = manifest.payload.packed_bytes;
    let end = payload_at + packed;
    let whole = end + (outer::padding(packed) + outer::END.len()) as u64;
    let length = file.metadata()?.len();
    ensure!(
        length >= whole,
        "it is cut short: {length} of {whole} bytes"
    );
    file.seek(SeekFrom::Start(end))?;
    outer::read_padding(file, &manifest.payload.member, packed)?;
    outer::read_end(file)
}

fn verify_chunks(feed: &Feed, progress: &dyn Progress) -> Result<()> {
    let mut packed = Vec::new();
    while let Some((_, chunk)) = feed.next(&mut packed)? {
        progress.advance(chunk.packed);
    }
    Ok(())
}

/// The chunks of a payload, each proved genuine.
pub(super) struct Feed<'b, 'a> {
    label: &'b str,
    codec: Codec,
    chunks: &'b [Chunk],
    payload_at: u64,
    /// The numbers of the chunks that are handed out.
    order: Vec<usize>,
    next: AtomicUsize,
    source: FeedSource<'b, 'a>,
}

enum FeedSource<'b, 'a> {
    File(&'b File),
    Stream(Mutex<&'b mut (dyn Read + Send + 'a)>),
}

impl<'b> Feed<'b, '_> {
    /// Reads the next chunk into `packed` and checks its digest.
    pub(super) fn next(&self, packed: &mut Vec<u8>) -> Result<Option<(usize, &'b Chunk)>> {
        signals::check()?;
        let (index, chunk) = match &self.source {
            FeedSource::File(file) => {
                let Some((index, chunk)) = self.claim() else {
                    return Ok(None);
                };
                let length = resize(packed, chunk);
                let read =
                    file.read_exact_at(&mut packed[..length], self.payload_at + chunk.offset);
                read.map_err(|error| self.unreadable(index, error))?;
                (index, chunk)
            }
            FeedSource::Stream(stream) => {
                // Claimed under the lock, so that chunks come in order.
                let mut stream = lock(stream);
                let Some((index, chunk)) = self.claim() else {
                    return Ok(None);
                };
                let length = resize(packed, chunk);
                let read = stream.read_exact(&mut packed[..length]);
                read.map_err(|error| self.unreadable(index, error))?;
                (index, chunk)
            }
        };
        if Sha::of(packed) != chunk.sha256 {
            return Err(self.bad_chunk(index, anyhow!("its digest is not the manifest's")));
        }
        Ok(Some((index, chunk)))
    }

    /// Returns how the chunks are packed.
    pub(super) fn codec(&self) -> Codec {
        self.codec
    }

    /// Returns the chunk with the number `index`.
    pub(super) fn chunk(&self, index: usize) -> &'b Chunk {
        &self.chunks[index]
    }

    /// Tells whether the manifest says that there is a chunk with the number
    /// `index` and that it begins with a member.
    pub(super) fn begins_with_member(&self, index: usize) -> bool {
        let chunk = self.chunks.get(index);
        chunk
            .and_then(|c| c.index.as_ref())
            .is_some_and(|i| i.first == 0)
    }

    /// Makes the error for a chunk that turned out bad.
    pub(super) fn bad_chunk(&self, index: usize, error: Error) -> Error {
        let number = index + 1;
        let count = self.chunks.len();
        damaged(
            self.label,
            error.context(format!("chunk {number} of {count}")),
        )
    }

    fn claim(&self) -> Option<(usize, &'b Chunk)> {
        let at = self.next.fetch_add(1, Ordering::Relaxed);
        let index = *self.order.get(at)?;
        Some((index, self.chunks.get(index)?))
    }

    fn unreadable(&self, index: usize, error: io::Error) -> Error {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => self.bad_chunk(index, anyhow!("it is cut short")),
            _ => Error::new(error).context(format!("reading {}", self.label)),
        }
    }
}

/// The manifest has bounded the size.
fn resize(packed: &mut Vec<u8>, chunk: &Chunk) -> usize {
    let length = usize::try_from(chunk.packed).expect("bounded by the manifest");
    packed.resize(length, 0);
    length
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Says what is wrong with a bundle, in the words of one who can only get
/// another copy. A failing disk or network is not the bundle's fault.
fn damaged(label: &str, error: Error) -> Error {
    let is_io = error
        .downcast_ref::<io::Error>()
        .is_some_and(|e| e.kind() != io::ErrorKind::UnexpectedEof);
    if is_io {
        return error.context(format!("reading {label}"));
    }
    let text = format!("{label} is not a bundle or is damaged; copy it again");
    Err::<(), _>(error.context(text))
        .class(Class::BadBundle)
        .expect_err("made from an error")
}
