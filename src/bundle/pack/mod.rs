//! Packs a tree into a bundle.
//!
//! 1. Walk the tree and note every path under its [`Group`](group::Group) ([`mod@list`]).
//! 2. Write the tar stream group by group, digesting each entry on the way ([`emit`]);
//!    [`pack_chunks`] packs it into an unnamed file beside the output.
//! 3. Write manifest, signature and payload into a draft of the output.
//! 4. Put the draft in the output's place.
//!
//! Until step 4 nothing is seen at the output's path, and nothing stays after
//! a failure.

pub mod chunks;
pub mod emit;
pub mod group;
pub mod likeness;
pub mod list;
pub mod order;
pub mod plan;
pub mod release;
pub mod spill;

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::archive::block::BLOCK;
use super::codec::Codec;
use super::format::container;
use super::format::manifest::{
    BootFiles, Chunk, FORMAT, MAX_CHUNK_BYTES, MAX_CREATED, Manifest, Payload, TreeSummary,
};
use super::keyring::SigningKey;
use crate::cpu::CpuLevel;
use crate::progress::{Progress, Step};
use crate::refuse;
use crate::system::draft::{self, Draft};
use chunks::{Packing, pack_chunks};
use emit::Emitter;
use likeness::Likeness;
use list::list;
use plan::{PackMode, PackPlan};
use release::Release;

/// What the packer is told about a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeFacts {
    /// What GRUB loads.
    pub boot: BootFiles,
    /// What the system demands of the CPU.
    pub cpu_level: CpuLevel,
    /// The machine architecture, as `uname -m` prints it.
    pub architecture: String,
}

/// How to pack.
pub struct PackOptions {
    /// How many threads pack.
    pub threads: usize,
    /// When the bundle is made, in seconds since 1970.
    pub created: u64,
    /// How the payload is packed.
    pub plan: PackPlan,
    /// The key to sign with; without one the bundle is unsigned.
    pub key: Option<SigningKey>,
    /// The latest time that a file keeps, in seconds since 1970; later ones
    /// become it.
    pub clamp: Option<i64>,
}

impl PackOptions {
    /// Gives the default mode of xz on `threads` threads, unsigned, with all
    /// times as they are.
    pub fn new(threads: usize, created: u64) -> PackOptions {
        PackOptions {
            threads,
            created,
            plan: PackPlan::new(Codec::Xz, PackMode::Default),
            key: None,
            clamp: None,
        }
    }
}

/// Packs the tree at `root` into the bundle `out`, replacing it whole.
///
/// The same tree, release, facts and options give the same bytes, whatever
/// the number of threads.
///
/// # Errors
/// When the tree cannot be read or the bundle not be written. Class
/// `Refused` when it becomes larger than the release allows.
pub fn pack(
    root: &Path,
    release: &Release,
    facts: &TreeFacts,
    options: &PackOptions,
    out: &Path,
    progress: &dyn Progress,
) -> Result<Manifest> {
    let chunk_bytes = options.plan.chunk_bytes;
    ensure!(
        chunk_bytes >= BLOCK && chunk_bytes.is_multiple_of(BLOCK),
        "a chunk of {chunk_bytes} bytes is not a whole number of blocks"
    );
    ensure!(
        chunk_bytes as u64 <= MAX_CHUNK_BYTES,
        "a chunk of {chunk_bytes} bytes is larger than {MAX_CHUNK_BYTES}"
    );
    ensure!(
        options.created <= MAX_CREATED,
        "the time {} is after the year 2242",
        options.created
    );
    progress.start(Step::ListFiles, None);
    let listing = list(root, release, out)?;
    listing.tell_left_out(progress);

    progress.start(Step::Pack, Some(listing.tar_bytes));
    let scratch = draft::scratch(out)?;
    let packing = Packing {
        threads: options.threads,
        plan: options.plan,
        progress,
    };
    let (tree, chunks) = pack_chunks(scratch.try_clone()?, &packing, |chunks| {
        let mut emitter = Emitter::new(root, options.clamp, chunks)?;
        let mut likeness = Likeness::new(root, options.plan.window_bytes)?;
        emitter.emit(listing.spills, &mut likeness)?;
        Ok(emitter.summary())
    })
    .with_context(|| format!("packing {}", root.display()))?;

    let manifest = describe(release, facts, options, tree, chunks);
    write_bundle(&manifest, release, options, scratch, out)?;
    progress.finish();
    Ok(manifest)
}

fn describe(
    release: &Release,
    facts: &TreeFacts,
    options: &PackOptions,
    tree: TreeSummary,
    chunks: Vec<Chunk>,
) -> Manifest {
    Manifest {
        format: FORMAT,
        product: release.product.clone(),
        version: release.version.clone(),
        min_version: release.min_version.clone(),
        architecture: facts.architecture.clone(),
        cpu_level: release.cpu_level.unwrap_or(facts.cpu_level),
        created: options.created,
        boot: facts.boot.clone(),
        tree,
        payload: Payload {
            member: options.plan.codec.member().to_owned(),
            codec: options.plan.codec,
            packed_bytes: chunks.iter().map(|chunk| chunk.packed).sum(),
            size_bytes: chunks.iter().map(|chunk| chunk.size).sum(),
        },
        chunks,
    }
}

fn write_bundle(
    manifest: &Manifest,
    release: &Release,
    options: &PackOptions,
    mut payload: File,
    out: &Path,
) -> Result<()> {
    let text = manifest.render()?;
    let signatures: Vec<Vec<u8>> = options
        .key
        .iter()
        .map(|key| key.sign(text.as_bytes()).to_vec())
        .collect();
    payload.seek(SeekFrom::Start(0))?;
    let mut draft = Draft::create(out)?;
    container::write_members(
        draft.file(),
        manifest,
        text.as_bytes(),
        &signatures,
        payload,
    )
    .with_context(|| format!("writing {}", out.display()))?;
    let size = draft.file().metadata()?.len();
    if let Some(limit) = release.size_limit
        && size > limit
    {
        refuse!(
            "the bundle has {size} bytes, more than the size_limit {limit} of release.yaml; \
             exclude files or raise the limit"
        );
    }
    draft.commit()
}
