//! Packs a tree into a bundle.
//!
//! 1. Walk the tree and note every path under its [`Group`](group::Group) ([`mod@list`]).
//! 2. Write the tar stream group by group, digesting each entry on the way ([`emit`]);
//!    [`pack_chunks`] packs it into an unnamed file beside the output.
//! 3. Write manifest, signature, index members and payload into a draft of the output.
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
use std::path::Path;

use anyhow::{Context, Result, ensure};
use nix::sys::statvfs::fstatvfs;

use super::codec::Codec;
use super::format::container;
use super::format::files::FILES;
use super::format::index::{Index, MAX_CHUNK_BYTES};
use super::format::manifest::{
    BootFiles, FORMAT, INDEX, IndexMember, MAX_CREATED, Manifest, Payload, TreeSummary,
};
use super::keyring::SigningKey;
use crate::archive::block::BLOCK;
use crate::cpu::CpuLevel;
use crate::failure::{Class, Classify};
use crate::progress::{Progress, Step};
use crate::refuse;
use crate::sha::Sha;
use crate::system::draft::{self, Draft};
use crate::tree::attributes::Tree;
use chunks::{Packing, pack_chunks};
use emit::Emitter;
use likeness::Likeness;
use list::list;
use plan::{PackMode, PackPlan};
use release::Release;

/// No root file system becomes smaller than one in so many.
const LARGEST_GAIN: u64 = 20;

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

/// Packs `tree` into the bundle `out`, replacing it whole.
///
/// The same tree, release, facts and options give the same bytes, whatever
/// the number of threads.
///
/// # Errors
/// When the tree cannot be read or the bundle not be written. Class
/// `Refused` when it becomes larger than the release allows.
pub fn pack<'a>(
    tree: impl Into<Tree<'a>>,
    release: &Release,
    facts: &TreeFacts,
    options: &PackOptions,
    out: &Path,
    progress: &dyn Progress,
) -> Result<Manifest> {
    let tree = tree.into();
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
    require_short_manifest(release, facts, options)?;
    progress.start(Step::ListFiles, None);
    let listing = list(tree, release, out)?;
    listing.tell_left_out(progress);

    progress.start(Step::Pack, Some(listing.tar_bytes));
    let scratch = draft::scratch(out)?;
    require_space(&scratch, listing.tar_bytes, out)?;
    let packing = Packing {
        threads: options.threads,
        plan: options.plan,
        progress,
    };
    let ((summary, files), chunks) = pack_chunks(scratch.try_clone()?, &packing, |chunks| {
        let mut emitter = Emitter::new(tree, options.clamp, chunks)?;
        let mut likeness = Likeness::new(tree.root, options.plan.window_bytes)?;
        emitter.emit(listing.spills, &mut likeness)?;
        emitter.finish()
    })
    .with_context(|| format!("packing {}", tree.root.display()))?;

    let index = Index {
        description: release.description.clone(),
        meta: release.meta.clone(),
        chunks,
    };
    let members = [(INDEX, index.render()?), (FILES, files)];
    let manifest = describe(release, facts, options, summary, &index, &members);
    write_bundle(&manifest, &members, release, options, scratch, out)?;
    progress.finish();
    Ok(manifest)
}

/// Refuses when there is less room than any codec needs.
fn require_space(scratch: &File, tar_bytes: u64, out: &Path) -> Result<()> {
    let space =
        fstatvfs(scratch).with_context(|| format!("asking for space for {}", out.display()))?;
    let free = space.blocks_available() * space.fragment_size();
    let least = tar_bytes / LARGEST_GAIN;
    if free < least {
        refuse!(
            "there are {} MiB free for {}, which will have at least {} MiB; make room or name \
             another place",
            free >> 20,
            out.display(),
            least.div_ceil(1 << 20)
        );
    }
    Ok(())
}

fn describe(
    release: &Release,
    facts: &TreeFacts,
    options: &PackOptions,
    tree: TreeSummary,
    index: &Index,
    members: &[(&str, Vec<u8>)],
) -> Manifest {
    let described = |(name, content): &(&str, Vec<u8>)| IndexMember {
        name: (*name).to_owned(),
        bytes: content.len() as u64,
        sha256: Sha::of(content),
    };
    Manifest {
        format: FORMAT,
        product: release.product.clone(),
        version: release.version.clone(),
        min_version: release.min_version.clone(),
        architecture: facts.architecture.clone(),
        cpu_level: release.cpu_level.unwrap_or(facts.cpu_level),
        created: options.created,
        clamped: options.clamp.is_some(),
        boot: facts.boot.clone(),
        tree,
        payload: Payload {
            member: options.plan.codec.member().to_owned(),
            codec: options.plan.codec,
            packed_bytes: index.chunks.iter().map(|chunk| chunk.packed).sum(),
            size_bytes: index.chunks.iter().map(|chunk| chunk.size).sum(),
        },
        index: members.iter().map(described).collect(),
    }
}

/// Makes sure, before hours of packing, that the manifest will be short enough.
fn require_short_manifest(
    release: &Release,
    facts: &TreeFacts,
    options: &PackOptions,
) -> Result<()> {
    let tree = TreeSummary {
        entries: u64::MAX,
        inodes: u64::MAX,
        data_bytes: u64::MAX,
        digest: Sha::of(b""),
    };
    let members = [INDEX, FILES].map(|name| (name, Vec::new()));
    let manifest = describe(release, facts, options, tree, &Index::default(), &members);
    manifest.render().map(drop).class(Class::Usage)
}

fn write_bundle(
    manifest: &Manifest,
    members: &[(&str, Vec<u8>)],
    release: &Release,
    options: &PackOptions,
    payload: File,
    out: &Path,
) -> Result<()> {
    let text = manifest.render()?;
    let signatures: Vec<Vec<u8>> = options
        .key
        .iter()
        .map(|key| key.sign(text.as_bytes()).to_vec())
        .collect();
    let mut draft = Draft::create(out)?;
    let write = |file: &mut File| -> Result<()> {
        container::write_front(file, text.as_bytes(), &signatures, manifest.created)?;
        for (name, content) in members {
            container::write_member(file, name, content, manifest.created)?;
        }
        container::write_payload(file, manifest, &payload)
    };
    write(draft.file()).with_context(|| format!("writing {}", out.display()))?;
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
