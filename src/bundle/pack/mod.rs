//! Packs a tree into a bundle.
//!
//! 1. Walk the tree and note every path under its [`Group`].
//! 2. Write the tar stream group by group, digesting each entry on the way;
//!    [`pack_chunks`] packs it into an unnamed file beside the output.
//! 3. Write manifest, signature and payload into a draft of the output.
//! 4. Put the draft in the output's place.
//!
//! Until step 4 nothing is seen at the output's path, and nothing stays after
//! a failure.

pub mod chunks;
pub mod group;
pub mod likeness;
pub mod order;
pub mod plan;
pub mod release;
pub mod spill;

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use nix::fcntl::{AtFlags, readlinkat};
use nix::sys::stat::{FileStat, fstat, fstatat};

use super::archive::block::{BLOCK, END, padding};
use super::archive::write::NewMember;
use super::codec::Codec;
use super::format::container;
use super::format::manifest::{
    BootFiles, Chunk, FORMAT, MAX_CHUNK_BYTES, MAX_CREATED, Manifest, Payload, TreeSummary,
};
use super::keyring::SigningKey;
use crate::cpu::CpuLevel;
use crate::progress::{Progress, Step};
use crate::refuse;
use crate::sha::Sha;
use crate::system::draft::{self, Draft};
use crate::tree::acl;
use crate::tree::digest::{InodeHasher, TreeSum};
use crate::tree::dirs::{Dirs, Missing};
use crate::tree::holes::{Extent, data_extents};
use crate::tree::meta::{Kind, Meta};
use crate::tree::path::{show, split};
use crate::tree::walk::{Found, LeftOut, OPEN_DIRS, open_file, walk};
use crate::tree::xattrs::{self, Xattr};
use chunks::{ChunkWriter, Packing, pack_chunks};
use group::Group;
use likeness::Likeness;
use plan::{PackMode, PackPlan};
use release::Release;
use spill::Spill;

/// What a file's data is rounded up to in a slot.
const SLOT_BLOCK: u64 = 4096;

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
}

impl PackOptions {
    /// Gives the default mode of xz on `threads` threads, unsigned.
    pub fn new(threads: usize, created: u64) -> PackOptions {
        PackOptions {
            threads,
            created,
            plan: PackPlan::new(Codec::Xz, PackMode::Default),
            key: None,
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
    listing.left_out.report(progress);

    progress.start(Step::Pack, Some(listing.tar_bytes));
    let scratch = draft::scratch(out)?;
    let packing = Packing {
        threads: options.threads,
        plan: options.plan,
        progress,
    };
    let (tree, chunks) = pack_chunks(scratch.try_clone()?, &packing, |chunks| {
        let mut emitter = Emitter::new(root, chunks)?;
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

struct Listing {
    spills: Vec<Spill>,
    left_out: LeftOut,
    /// About how long the tar stream will be.
    tar_bytes: u64,
}

fn list(root: &Path, release: &Release, out: &Path) -> Result<Listing> {
    let mut spills = Vec::new();
    for group in Group::ALL {
        spills.push(Spill::new(out, group)?);
    }
    let mut first_names: HashMap<(u64, u64), Box<[u8]>> = HashMap::new();
    let mut tar_bytes = 0;
    let left_out = walk(root, &release.globs()?, &mut |found: &Found| {
        // Nearly every entry has a pax header of two blocks before its own.
        tar_bytes += 3 * BLOCK as u64;
        if found.meta.kind == Kind::Dir && has_default_acl(found)? {
            spills[Group::EarlyDirs as usize].push(found.path, b"")?;
        }
        if found.links() > 1 {
            if let Some(first) = first_names.get(&found.inode()) {
                return spills[Group::Links as usize].push(found.path, first);
            }
            first_names.insert(found.inode(), found.path.into());
        }
        let stored = u64::try_from(found.stat.st_blocks).unwrap_or(0) * 512;
        let stored = stored.min(found.meta.size_bytes);
        tar_bytes += stored.next_multiple_of(BLOCK as u64);
        spills[Group::of(found)? as usize].push(found.path, b"")
    })
    .with_context(|| format!("listing {}", root.display()))?;
    Ok(Listing {
        spills,
        left_out,
        tar_bytes,
    })
}

fn has_default_acl(found: &Found) -> Result<bool> {
    let xattrs = xattrs::read_at(found.dir.as_fd(), found.name.as_bytes())?;
    Ok(xattrs.iter().any(|x| x.name == acl::DEFAULT))
}

impl LeftOut {
    fn report(&self, progress: &dyn Progress) {
        for path in &self.swap_files {
            progress.note(&format!("left out swap file /{}", show(path)));
        }
        if self.sockets > 0 {
            progress.note(&format!("left out {} sockets", self.sockets));
        }
    }
}

/// Writes the tar stream.
struct Emitter<'a, 'b> {
    dirs: Dirs,
    chunks: &'a mut ChunkWriter<'b>,
    header: Vec<u8>,
    sum: TreeSum,
    data_bytes: u64,
    /// Digests of inodes with several names.
    linked: HashMap<(u64, u64), Sha>,
}

impl<'a, 'b> Emitter<'a, 'b> {
    fn new(root: &Path, chunks: &'a mut ChunkWriter<'b>) -> Result<Emitter<'a, 'b>> {
        Ok(Emitter {
            dirs: Dirs::new(root, OPEN_DIRS, Missing::Fail)?,
            chunks,
            header: Vec::new(),
            sum: TreeSum::default(),
            data_bytes: 0,
            linked: HashMap::new(),
        })
    }

    fn emit(&mut self, spills: Vec<Spill>, likeness: &mut Likeness) -> Result<()> {
        for (group, spill) in Group::ALL.into_iter().zip(spills) {
            self.chunks.begin_group(group)?;
            let counted = self.sum;
            spill.drain(likeness, &mut |path, first_name| {
                self.entry(path, first_name)
                    .with_context(|| format!("reading {}", show(path)))
            })?;
            if group == Group::EarlyDirs {
                // They come again and count then.
                self.sum = counted;
            }
        }
        self.chunks.write(&END)
    }

    fn entry(&mut self, path: &[u8], first_name: &[u8]) -> Result<()> {
        let (dir, name) = split(path);
        let dir = self.dirs.get(dir)?;
        let name = OsStr::from_bytes(if name.is_empty() { b"." } else { name });
        let stat = fstatat(dir.as_fd(), name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        let meta = Meta::from_stat(&stat).context("it has become a socket")?;
        let member = NewMember {
            path,
            meta: &meta,
            link_end: first_name,
            is_hard_link: !first_name.is_empty(),
            xattrs: &[],
            extents: &[],
        };
        if member.is_hard_link {
            self.write_header(&member)?;
            let inode = (stat.st_dev, stat.st_ino);
            let digest = self.linked.get(&inode).context("it has been replaced")?;
            self.sum.add(path, digest);
            return Ok(());
        }
        let hasher = match meta.kind {
            Kind::File => {
                let file = open_file(&dir, name)?;
                let stat = fstat(&file)?;
                self.file(path, &file, &stat)?
            }
            kind => {
                let link_end = match kind {
                    Kind::Symlink => readlinkat(dir.as_fd(), name)?.into_vec(),
                    _ => Vec::new(),
                };
                let xattrs = xattrs::read_at(dir.as_fd(), name.as_bytes())?;
                self.write_header(&NewMember {
                    link_end: &link_end,
                    xattrs: &xattrs,
                    ..member
                })?;
                InodeHasher::new(&meta, &xattrs, &link_end)
            }
        };
        let digest = hasher.finish();
        self.sum.add(path, &digest);
        self.sum.inodes += 1;
        if stat.st_nlink > 1 && meta.kind != Kind::Dir {
            self.linked.insert((stat.st_dev, stat.st_ino), digest);
        }
        Ok(())
    }

    fn file(&mut self, path: &[u8], file: &File, stat: &FileStat) -> Result<InodeHasher> {
        let meta = Meta::from_stat(stat)
            .filter(|meta| meta.kind == Kind::File)
            .context("it is no longer a file")?;
        let xattrs: Vec<Xattr> = xattrs::read_open(file)?;
        let extents = data_extents(file, stat)?;
        self.write_header(&NewMember {
            path,
            meta: &meta,
            link_end: b"",
            is_hard_link: false,
            xattrs: &xattrs,
            extents: &extents,
        })?;
        let mut hasher = InodeHasher::new(&meta, &xattrs, b"");
        let mut at = 0;
        for extent in &extents {
            hasher.hole(extent.offset - at);
            let mut look = |data: &[u8]| hasher.data(data);
            self.chunks
                .write_file(file, extent.offset, extent.length, &mut look)?;
            at = extent.end();
        }
        hasher.hole(meta.size_bytes - at);
        let stored: u64 = extents.iter().map(|e: &Extent| e.length).sum();
        self.chunks.write(&END[..padding(stored)])?;
        self.data_bytes += stored.next_multiple_of(SLOT_BLOCK);
        Ok(hasher)
    }

    fn write_header(&mut self, member: &NewMember) -> Result<()> {
        self.header.clear();
        member.write(&mut self.header);
        let data: u64 = member.extents.iter().map(|e| e.length).sum();
        let bytes = self.header.len() as u64 + data.next_multiple_of(BLOCK as u64);
        self.chunks.begin_member(member.path, bytes)?;
        self.chunks.write(&self.header)
    }

    fn summary(&self) -> TreeSummary {
        TreeSummary {
            entries: self.sum.entries,
            inodes: self.sum.inodes,
            data_bytes: self.data_bytes,
            digest: self.sum.finish(),
        }
    }
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
