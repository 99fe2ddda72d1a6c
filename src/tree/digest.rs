//! The digest of a tree: the same for every way of storing and reading it.
//!
//! Each entry is hashed by itself and the hashes are added up, so that order
//! does not matter and memory stays constant. Left out is what unpacking
//! cannot promise: atime, ctime, sizes of directories, and SELinux labels,
//! which the running policy may refuse to store or to show.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result};
use nix::fcntl::{AtFlags, readlinkat};
use nix::sys::stat::fstatat;
use sha2::{Digest, Sha256};

use super::dirs::{Dirs, Missing};
use super::holes::{Piece, data_extents, read_data};
use super::meta::{Kind, Meta};
use super::path::{show, split};
use super::unsteady;
use super::walk::{Found, open_file, walk};
use super::xattrs::{self, SELINUX, Xattr};
use crate::progress::Progress;
use crate::sha::Sha;

/// The unit in which file data is compared with zeros.
const BLOCK: usize = 64 << 10;
const READ_BYTES: usize = 256 << 10;
const BATCH: usize = 64;
const OPEN_DIRS: usize = 32;

/// The sum over the entries of a tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TreeSum {
    limbs: [u64; 4],
    /// How many names.
    pub entries: u64,
    /// How many inodes.
    pub inodes: u64,
}

impl TreeSum {
    /// Adds the name `path` of the inode with the digest `inode`.
    pub fn add(&mut self, path: &[u8], inode: &Sha) {
        let mut hasher = Sha256::new();
        hasher.update((path.len() as u64).to_le_bytes());
        hasher.update(path);
        hasher.update(inode.0);
        let digest: [u8; 32] = hasher.finalize().into();
        let mut limbs = [0; 4];
        for (limb, bytes) in limbs.iter_mut().zip(digest.as_chunks::<8>().0) {
            *limb = u64::from_le_bytes(*bytes);
        }
        self.add_limbs(limbs);
        self.entries += 1;
    }

    /// Adds the sum over other entries.
    pub fn merge(&mut self, other: &TreeSum) {
        self.add_limbs(other.limbs);
        self.entries += other.entries;
        self.inodes += other.inodes;
    }

    fn add_limbs(&mut self, limbs: [u64; 4]) {
        let mut carry = false;
        for (own, other) in self.limbs.iter_mut().zip(limbs) {
            let (sum, over) = own.overflowing_add(other);
            let (sum, over_again) = sum.overflowing_add(u64::from(carry));
            *own = sum;
            carry = over || over_again;
        }
    }

    /// Returns the digest of the tree.
    pub fn finish(&self) -> Sha {
        let mut hasher = Sha256::new();
        hasher.update(b"va-upgrade tree 1");
        for limb in self.limbs {
            hasher.update(limb.to_le_bytes());
        }
        hasher.update(self.entries.to_le_bytes());
        hasher.update(self.inodes.to_le_bytes());
        Sha(hasher.finalize().into())
    }
}

/// Digests one inode: metadata first, then data as it comes.
pub struct InodeHasher {
    hasher: Sha256,
    block: Vec<u8>,
    done: u64,
}

impl InodeHasher {
    /// Takes in everything but a file's data; `link_end` is a symlink's.
    pub fn new(meta: &Meta, xattrs: &[Xattr], link_end: &[u8]) -> InodeHasher {
        let mut hasher = Sha256::new();
        hasher.update([meta.kind as u8]);
        for number in [meta.mode, meta.uid, meta.gid, meta.mtime.nanoseconds] {
            hasher.update(number.to_le_bytes());
        }
        hasher.update(meta.mtime.seconds.to_le_bytes());
        for number in [meta.device.0, meta.device.1, meta.size_bytes] {
            hasher.update(number.to_le_bytes());
        }
        let mut update_sized = |bytes: &[u8]| {
            hasher.update((bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        update_sized(link_end);
        for xattr in xattrs.iter().filter(|x| x.name != SELINUX) {
            update_sized(&xattr.name);
            update_sized(&xattr.value);
        }
        InodeHasher {
            hasher,
            block: Vec::new(),
            done: 0,
        }
    }

    /// Takes in the next data of the file.
    pub fn data(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            if self.block.is_empty() && data.len() >= BLOCK {
                let (whole, rest) = data.split_at(BLOCK);
                update_block(&mut self.hasher, self.done, whole);
                self.done += BLOCK as u64;
                data = rest;
                continue;
            }
            let take = data.len().min(BLOCK - self.block.len());
            self.block.extend_from_slice(&data[..take]);
            data = &data[take..];
            self.flush_full();
        }
    }

    /// Takes in a hole, which counts as zeros.
    pub fn hole(&mut self, mut length: u64) {
        while length > 0 {
            if self.block.is_empty() {
                let whole = length - length % BLOCK as u64;
                self.done += whole;
                length -= whole;
            }
            let room = BLOCK - self.block.len();
            let take = usize::try_from(length).map_or(room, |l| l.min(room));
            self.block.resize(self.block.len() + take, 0);
            length -= take as u64;
            self.flush_full();
        }
    }

    fn flush_full(&mut self) {
        if self.block.len() == BLOCK {
            update_block(&mut self.hasher, self.done, &self.block);
            self.done += BLOCK as u64;
            self.block.clear();
        }
    }

    /// Returns the digest of the inode.
    pub fn finish(mut self) -> Sha {
        if !self.block.is_empty() {
            update_block(&mut self.hasher, self.done, &self.block);
        }
        Sha(self.hasher.finalize().into())
    }
}

/// Blocks of zeros are not hashed, so that holes cost nothing wherever the
/// file system happens to have them.
fn update_block(hasher: &mut Sha256, offset: u64, block: &[u8]) {
    let is_zero = |part: &[u8]| part.iter().fold(0, |or, byte| or | byte) == 0;
    if !block.chunks(128).all(is_zero) {
        hasher.update(offset.to_le_bytes());
        hasher.update(block);
    }
}

/// Reads the tree at `root` back from the disk and returns its digest.
///
/// Equal to the manifest's `tree.digest` for a tree as unpacked.
///
/// # Errors
/// When an entry cannot be read.
pub fn digest_tree(root: &Path, threads: usize, progress: &dyn Progress) -> Result<Sha> {
    let threads = threads.max(1);
    let (sender, receiver) = sync_channel(threads * 2);
    let receiver = Arc::new(Mutex::new(receiver));
    let shared = Tally::default();
    let mut sum = TreeSum::default();
    thread::scope(|scope| -> Result<()> {
        let workers: Vec<_> = (0..threads)
            .map(|_| {
                let receiver = Arc::clone(&receiver);
                let shared = &shared;
                scope.spawn(move || digest_batches(root, &receiver, shared))
            })
            .collect();
        // With the workers' clones gone, sending fails once all have failed.
        drop(receiver);
        let walked = send_paths(root, sender, &shared, &mut sum, progress);
        for worker in workers {
            sum.merge(&worker.join().expect("a digest thread does not panic")?);
        }
        progress.advance(shared.done.swap(0, Relaxed));
        walked
    })?;
    Ok(sum.finish())
}

/// What the threads of one [`digest_tree`] share.
#[derive(Default)]
struct Tally {
    /// Digests of inodes with several names.
    linked: Mutex<HashMap<(u64, u64), Sha>>,
    /// Bytes read and not yet reported; only one thread reports.
    done: AtomicU64,
}

type Batch = Vec<Vec<u8>>;

fn send_paths(
    root: &Path,
    sender: SyncSender<Batch>,
    shared: &Tally,
    sum: &mut TreeSum,
    progress: &dyn Progress,
) -> Result<()> {
    let mut seen = HashSet::new();
    let mut batch = Vec::with_capacity(BATCH);
    walk(root, &[], &mut |found: &Found| {
        if found.links() == 1 || seen.insert(found.inode()) {
            sum.inodes += 1;
        }
        batch.push(found.path.to_vec());
        if batch.len() == BATCH {
            progress.advance(shared.done.swap(0, Relaxed));
            sender.send(std::mem::take(&mut batch))?;
        }
        Ok(())
    })?;
    sender.send(batch)?;
    Ok(())
}

fn digest_batches(
    root: &Path,
    receiver: &Mutex<Receiver<Batch>>,
    shared: &Tally,
) -> Result<TreeSum> {
    let mut dirs = Dirs::new(root, OPEN_DIRS, Missing::Fail)?;
    let mut buffer = vec![0; READ_BYTES];
    let mut sum = TreeSum::default();
    loop {
        let next = receiver
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .recv();
        let Ok(batch) = next else {
            return Ok(sum);
        };
        for path in batch {
            let inode = digest_entry(&mut dirs, &path, shared, &mut buffer)
                .map_err(unsteady::explain)
                .with_context(|| format!("reading back {}", show(&path)))?;
            sum.add(&path, &inode);
        }
    }
}

fn digest_entry(dirs: &mut Dirs, path: &[u8], shared: &Tally, buffer: &mut [u8]) -> Result<Sha> {
    let (dir, name) = split(path);
    let dir = dirs.get(dir)?;
    let name = OsStr::from_bytes(if name.is_empty() { b"." } else { name });
    let stat = fstatat(dir.as_fd(), name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    let meta = Meta::from_stat(&stat).context("it has become a socket")?;
    let inode = (stat.st_dev, stat.st_ino);
    let is_linked = stat.st_nlink > 1 && meta.kind != Kind::Dir;
    let linked = || shared.linked.lock().unwrap_or_else(PoisonError::into_inner);
    if is_linked && let Some(known) = linked().get(&inode) {
        return Ok(*known);
    }
    let digest = match meta.kind {
        Kind::File => {
            let file = open_file(&dir, name)?;
            let mut hasher = InodeHasher::new(&meta, &xattrs::read_open(&file)?, b"");
            let extents = data_extents(&file, &stat)?;
            read_data(&file, &extents, meta.size_bytes, buffer, &mut |piece| {
                match piece {
                    Piece::Data(data) => {
                        hasher.data(data);
                        shared.done.fetch_add(data.len() as u64, Relaxed);
                    }
                    Piece::Hole(length) => hasher.hole(length),
                }
                Ok(())
            })?;
            hasher.finish()
        }
        kind => {
            let link_end = match kind {
                Kind::Symlink => readlinkat(dir.as_fd(), name)?.into_vec(),
                _ => Vec::new(),
            };
            let xattrs = xattrs::read_at(dir.as_fd(), name.as_bytes())?;
            InodeHasher::new(&meta, &xattrs, &link_end).finish()
        }
    };
    if is_linked {
        linked().insert(inode, digest);
    }
    Ok(digest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Silent;
    use std::fs::{self, File, Permissions};
    use std::os::unix::fs::{FileExt, PermissionsExt};

    fn content_digest(pieces: &[(&[u8], u64)]) -> Sha {
        let mut hasher = InodeHasher::new(&Meta::default(), &[], b"");
        for (data, hole) in pieces {
            hasher.data(data);
            hasher.hole(*hole);
        }
        hasher.finish()
    }

    #[test]
    fn holes_and_zeros_and_the_size_of_pieces_make_no_difference() {
        let zeros = vec![0; 300_000];
        let ones = vec![1; 100_000];
        let all = [&ones[..], &zeros, &ones].concat();
        let expected = content_digest(&[(&all, 0)]);
        assert_eq!(content_digest(&[(&ones, 300_000), (&ones, 0)]), expected);
        let split = [
            (&ones[..7], 0),
            (&ones[7..], 299_999),
            (&zeros[..1], 0),
            (&ones, 0),
        ];
        assert_eq!(content_digest(&split), expected);
        assert_ne!(content_digest(&[(&ones, 300_001), (&ones, 0)]), expected);
    }

    #[test]
    fn the_digest_ignores_order_and_notices_every_kind_of_change() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        fs::create_dir(at("d")).unwrap();
        fs::write(at("d/a"), vec![7; 200_000]).unwrap();
        fs::hard_link(at("d/a"), at("b")).unwrap();
        std::os::unix::fs::symlink("x", at("l")).unwrap();
        let digest = |threads| digest_tree(root.path(), threads, &Silent).unwrap();
        let mut seen = vec![digest(1)];
        assert_eq!(digest(4), seen[0]);
        let changes: [&dyn Fn(); 6] = [
            &|| {
                File::options()
                    .write(true)
                    .open(at("b"))
                    .unwrap()
                    .write_all_at(b"8", 150_000)
                    .unwrap()
            },
            &|| fs::set_permissions(at("d"), Permissions::from_mode(0o4711)).unwrap(),
            &|| xattr::set(at("d/a"), "user.x", b"1").unwrap(),
            &|| xattr::set(at("d/a"), "user.x", b"2").unwrap(),
            &|| fs::rename(at("l"), at("m")).unwrap(),
            &|| {
                let mtime = fs::metadata(at("b")).unwrap().modified().unwrap();
                fs::copy(at("b"), at("c")).unwrap();
                fs::rename(at("c"), at("b")).unwrap();
                let copy = File::options().write(true).open(at("b")).unwrap();
                copy.set_modified(mtime).unwrap();
            },
        ];
        for (i, change) in changes.iter().enumerate() {
            change();
            let now = digest(2);
            assert!(!seen.contains(&now), "change {i} went unnoticed");
            seen.push(now);
        }
    }
}
