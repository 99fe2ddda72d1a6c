//! Proves that a payload decodes and is the tree that the manifest speaks of.

use std::collections::HashMap;

use anyhow::{Context, Result, bail, ensure};

use super::contents::MAX_NAME_BYTES;
use super::landmarks::LandmarkProof;
use super::visit::{Entry, NAME_OVERHEAD, Visitor, visit};
use crate::bundle::format::files::{FileLine, FilesReader};
use crate::bundle::format::index::Chunk;
use crate::bundle::format::manifest::TreeSummary;
use crate::bundle::open::bundle::Bundle;
use crate::failure::{Class, Classify};
use crate::progress::Progress;
use crate::sha::Sha;
use crate::tree::content::ContentHasher;
use crate::tree::digest::{InodeHasher, TreeSum};
use crate::tree::file_hasher::FileHasher;
use crate::tree::meta::{Kind, Meta};
use crate::tree::path::{show, split};
use crate::tree::xattrs::check_values;

/// Checks every byte after the manifest, decodes every chunk, reads every
/// header and compares the tree with the manifest (how many names and inodes it
/// has, and the digest of all of it), the members with what the index says of each
/// chunk and, of a file, with the list of its files. Writes nothing.
///
/// # Errors
/// Class [`Class::BadBundle`] when anything is not as it should be.
pub fn verify_deep(bundle: &mut Bundle, progress: &dyn Progress) -> Result<()> {
    let listed = bundle.files()?;
    let mut proof = TreeProof::default();
    if let Some(member) = &listed {
        proof.files = Some(FilesReader::new(&member[..])?);
    }
    let checking = format!("checking the tree in {}", bundle.label());
    visit(bundle, &mut proof, progress)?;
    proof
        .finish(&bundle.manifest().tree)
        .class(Class::BadBundle)
        .context(checking)
}

/// Sees a tree go by and checks that it is one.
#[derive(Default)]
struct TreeProof<'f> {
    files: Option<FilesReader<&'f [u8]>>,
    landmarks: LandmarkProof,
    seen: HashMap<Box<[u8]>, Seen>,
    /// The file whose data go by.
    current: Option<Current>,
    inodes: u64,
    name_bytes: usize,
}

struct Current {
    path: Box<[u8]>,
    meta: Meta,
    inode: FileHasher,
    content: ContentHasher,
}

struct Seen {
    digest: Sha,
    is_dir: bool,
}

impl TreeProof<'_> {
    fn end_file(&mut self) -> Result<()> {
        let Some(current) = self.current.take() else {
            return Ok(());
        };
        let content = current.content.finish();
        let line = FileLine::new(&current.path, &current.meta, false, b"", content);
        self.compare_with_list(Some(line))?;
        let digest = current.inode.finish();
        let is_dir = false;
        self.seen.insert(current.path, Seen { digest, is_dir });
        Ok(())
    }

    /// Compares a name with the next in the list of files; without one, the list
    /// must be at its end.
    fn compare_with_list(&mut self, line: Option<FileLine>) -> Result<()> {
        let Some(files) = &mut self.files else {
            return Ok(());
        };
        let listed = files.next_line()?;
        ensure!(
            listed == line,
            "the list of files says {:?}, the payload {:?}",
            listed.map(|line| line.path),
            line.map(|line| line.path)
        );
        Ok(())
    }

    fn add(&mut self, entry: &Entry) -> Result<()> {
        self.name_bytes += NAME_OVERHEAD + entry.path.len();
        ensure!(
            self.name_bytes <= MAX_NAME_BYTES,
            "the names take more than {MAX_NAME_BYTES} bytes"
        );
        ensure!(!self.seen.contains_key(entry.path), "it comes twice");
        let path = entry.path.into();
        if entry.is_hard_link {
            let digest = match self.seen.get(entry.link_end) {
                Some(first) if !first.is_dir => first.digest,
                _ => bail!("it is a link to {}, which is no file", show(entry.link_end)),
            };
            let is_dir = false;
            self.seen.insert(path, Seen { digest, is_dir });
            let line = FileLine::new(entry.path, entry.meta, true, entry.link_end, None);
            return self.compare_with_list(Some(line));
        }
        self.inodes += 1;
        check_values(entry.xattrs)?;
        let mut xattrs = entry.xattrs.to_vec();
        xattrs.sort_unstable();
        if entry.meta.kind == Kind::File {
            self.current = Some(Current {
                path,
                meta: *entry.meta,
                inode: FileHasher::of_inode(entry.meta, &xattrs),
                content: ContentHasher::new(entry.meta.size_bytes),
            });
            return Ok(());
        }
        let digest = InodeHasher::new(entry.meta, &xattrs, entry.link_end).finish();
        let is_dir = entry.meta.kind == Kind::Dir;
        self.seen.insert(path, Seen { digest, is_dir });
        let line = FileLine::new(entry.path, entry.meta, false, entry.link_end, None);
        self.compare_with_list(Some(line))
    }

    /// Compares the tree with the manifest's words about it.
    fn finish(mut self, tree: &TreeSummary) -> Result<()> {
        self.end_file()?;
        self.compare_with_list(None)?;
        let mut sum = TreeSum::default();
        sum.inodes = self.inodes;
        for (path, seen) in &self.seen {
            let (parent, _) = split(path);
            let is_inside = self.seen.get(parent).is_some_and(|parent| parent.is_dir);
            ensure!(
                is_inside,
                "member {} is in {}, which is no directory",
                show(path),
                show(parent)
            );
            sum.add(path, &seen.digest);
        }
        ensure!(
            (sum.entries, sum.inodes) == (tree.entries, tree.inodes),
            "it has {} names of {} inodes, the manifest says {} of {}",
            sum.entries,
            sum.inodes,
            tree.entries,
            tree.inodes
        );
        ensure!(
            sum.finish() == tree.digest,
            "its digest is not the manifest's"
        );
        Ok(())
    }
}

impl Visitor for TreeProof<'_> {
    fn entry(&mut self, entry: &Entry) -> Result<()> {
        self.end_file()
            .and_then(|()| self.add(entry))
            .with_context(|| format!("member {}", show(entry.path)))
            .class(Class::BadBundle)
    }

    fn data(&mut self, offset: u64, data: &[u8]) -> Result<()> {
        if let Some(current) = &mut self.current {
            current.inode.data(offset, data);
            current.content.data(offset, data);
        }
        Ok(())
    }

    fn begins(&mut self, chunks: &[Chunk], begin: u64, path: &[u8]) -> Result<()> {
        let compared = self.landmarks.begin(chunks, begin, path);
        compared.class(Class::BadBundle)
    }

    fn ends(&mut self, chunks: &[Chunk], end: u64) -> Result<()> {
        self.landmarks.end(chunks, end).class(Class::BadBundle)
    }
}
