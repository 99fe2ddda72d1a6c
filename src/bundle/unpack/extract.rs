//! Puts the members of one piece of an archive on disk.
//!
//! Everything happens beneath the target directory, entry by entry relative
//! to open directories, and nothing that exists is ever replaced: whatever an
//! archive says, it cannot write elsewhere or through a link of its own.
//!
//! Per file: data, owner, mode, attributes with capabilities last, time.
//! Directories' times and default ACLs wait for the end, in [`DirEnds`], and all of
//! the target's own.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, anyhow};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, FallocateFlags, OFlag, fallocate, openat};
use nix::sys::stat::{
    Mode, SFlag, UtimensatFlags, fchmod, fstat, fstatat, futimens, makedev, mkdirat, mknodat,
    utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchown, fchownat, linkat, symlinkat};

use super::dir_ends::{DirEnds, RootEnd};
use crate::archive::batch::{Batch, Member, Part};
use crate::bad_bundle;
use crate::failure::{Class, with_class};
use crate::tree::acl;
use crate::tree::dirs::{Dirs, Missing};
use crate::tree::meta::{Kind, Meta, Mtime};
use crate::tree::path::{show, split};
use crate::tree::xattrs::{self, CAPABILITY, SELINUX, Xattr};

/// What to do with device nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Devices {
    /// Make them.
    Make,
    /// Refuse an archive that has any.
    Refuse,
}

/// What is given back of a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rights {
    /// Everything, or unpacking fails.
    All,
    /// What an ordinary user may: files become the caller's, without setuid and
    /// setgid, and attributes that only root may set are left out.
    OfCaller,
}

/// What may be made.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// What to do with device nodes.
    pub devices: Devices,
    /// What is given back of the tree.
    pub rights: Rights,
    /// The size of the whole payload: no file in it is larger, but for holes.
    pub payload_bytes: u64,
}

/// What could not be given back, counted over all threads.
#[derive(Debug, Default)]
pub struct Lost {
    /// Labels the running kernel did not take.
    pub labels: AtomicU64,
    /// Owners and attributes that only root may set.
    pub rights: AtomicU64,
}

/// Smaller files are written at once, and the file system sees their size.
const MIN_RESERVED_BYTES: u64 = 1 << 20;

/// One thread's way to the target.
pub struct Extractor<'a> {
    dirs: Dirs,
    limits: Limits,
    lost: &'a Lost,
}

/// A file whose data comes in several pieces, for several threads to write.
pub struct Spanning {
    file: File,
    path: Vec<u8>,
    meta: Meta,
    xattrs: Vec<Xattr>,
    is_sparse: bool,
    /// Bytes that are still to be written.
    left: AtomicU64,
}

/// What a file gets after its data.
struct Attributes<'a> {
    meta: &'a Meta,
    xattrs: &'a [Xattr],
    is_sparse: bool,
}

impl<'a> Extractor<'a> {
    /// Opens the target directory.
    pub fn new(
        target: &Path,
        open_dirs: usize,
        limits: Limits,
        lost: &'a Lost,
    ) -> Result<Extractor<'a>> {
        Ok(Extractor {
            dirs: Dirs::new(target, open_dirs, Missing::Make)?,
            limits,
            lost,
        })
    }

    /// Makes a directory, but for what must wait until its content is there.
    pub fn make_dir(&mut self, path: &[u8], member: &Member, ends: &mut DirEnds) -> Result<()> {
        if path.is_empty() {
            ends.push_root(member.meta, &member.xattrs);
            return Ok(());
        }
        let mut make = || -> Result<()> {
            let (parent, name) = split(path);
            let parent = self.dirs.get(parent)?;
            match mkdirat(parent.as_fd(), OsStr::from_bytes(name), Mode::S_IRWXU) {
                // It was made for an earlier member, or is described twice.
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(errno) => return Err(errno.into()),
            }
            let dir = File::from(self.dirs.get(path)?.try_clone()?);
            self.set_owner_and_mode(&dir, &member.meta)?;
            // A default ACL would be inherited by what comes into it.
            let is_default = |x: &&Xattr| x.name == acl::DEFAULT;
            for xattr in member.xattrs.iter().filter(|x| !is_default(x)) {
                self.label(xattr, xattrs::set_open(&dir, &xattr.name, &xattr.value))?;
            }
            let default = member.xattrs.iter().find(is_default);
            ends.push(path, member.meta.mtime, default.map(|x| &x.value[..]));
            Ok(())
        };
        make().with_context(|| format!("making directory {}", show(path)))
    }

    /// Gives directories what had to wait for their content.
    pub fn end_dirs(&mut self, ends: &DirEnds) -> Result<()> {
        ends.visit(&mut |path, mtime, default| {
            let mut end = || -> Result<()> {
                let dir = File::from(self.dirs.get(path)?.try_clone()?);
                if let Some(default) = default {
                    xattrs::set_open(&dir, acl::DEFAULT, default)
                        .map_err(|error| explain_xattr(acl::DEFAULT, default, error))?;
                }
                set_mtime(&dir, mtime)
            };
            end().with_context(|| format!("finishing directory {}", show(path)))
        })
    }

    /// Gives the target itself, open as `dir`, what the archive says of the root.
    pub fn end_root(&self, dir: &File, root: &RootEnd) -> Result<()> {
        let end = || -> Result<()> {
            for xattr in &root.xattrs {
                self.label(xattr, xattrs::set_open(dir, &xattr.name, &xattr.value))?;
            }
            set_mtime(dir, root.meta.mtime)?;
            self.set_owner_and_mode(dir, &root.meta)
        };
        end().context("finishing the root of the tree")
    }

    /// Makes anything but a directory; data of regular files is in `parts`.
    pub fn make(&mut self, batch: &Batch, member: &Member, piece: &[u8]) -> Result<()> {
        let path = batch.path(member);
        match member.meta.kind {
            _ if member.is_hard_link => self.link(path, batch.link_end(member)),
            Kind::File => self.make_file(batch, member, piece),
            _ => self.make_node(path, batch.link_end(member), member),
        }
        .with_context(|| format!("unpacking {}", show(path)))
    }

    /// Makes a file whose data goes on in the next piece.
    pub fn begin_spanning(&mut self, batch: &Batch, member: &Member) -> Result<Spanning> {
        let path = batch.path(member);
        let payload_bytes = self.limits.payload_bytes;
        if member.stored > payload_bytes {
            bad_bundle!(
                "unpacking {}: it has {} bytes, the whole payload {payload_bytes}",
                show(path),
                member.stored
            );
        }
        let mut make = || -> Result<File> {
            let file = self.create(path, &member.meta)?;
            if !member.is_sparse() && member.stored >= MIN_RESERVED_BYTES {
                reserve(&file, member.stored)?;
            }
            Ok(file)
        };
        let file = make().with_context(|| format!("unpacking {}", show(path)))?;
        Ok(Spanning {
            file,
            path: path.to_vec(),
            meta: member.meta,
            xattrs: member.xattrs.clone(),
            is_sparse: member.is_sparse(),
            left: AtomicU64::new(member.stored),
        })
    }

    /// Writes parts of a file; whoever writes the last one finishes the file.
    pub fn write_spanning(
        &self,
        spanning: &Arc<Spanning>,
        parts: &[Part],
        piece: &[u8],
    ) -> Result<()> {
        let write = || -> Result<()> {
            let mut written = 0;
            for part in parts {
                let data = part.of(piece);
                spanning.file.write_all_at(data, part.offset)?;
                written += data.len() as u64;
            }
            if spanning.left.fetch_sub(written, Ordering::AcqRel) == written {
                let attributes = Attributes {
                    meta: &spanning.meta,
                    xattrs: &spanning.xattrs,
                    is_sparse: spanning.is_sparse,
                };
                self.finish_file(&spanning.file, &attributes)?;
            }
            Ok(())
        };
        write().with_context(|| format!("unpacking {}", show(&spanning.path)))
    }

    fn make_file(&mut self, batch: &Batch, member: &Member, piece: &[u8]) -> Result<()> {
        let file = self.create(batch.path(member), &member.meta)?;
        for part in batch.parts(member) {
            file.write_all_at(part.of(piece), part.offset)?;
        }
        self.finish_file(
            &file,
            &Attributes {
                meta: &member.meta,
                xattrs: &member.xattrs,
                is_sparse: member.is_sparse(),
            },
        )
    }

    /// Makes an empty file, with its mode as far as that is safe while the
    /// owner is still us and the group perhaps the directory's.
    fn create(&mut self, path: &[u8], meta: &Meta) -> Result<File> {
        const CREATE: OFlag = OFlag::O_WRONLY
            .union(OFlag::O_CREAT)
            .union(OFlag::O_EXCL)
            .union(OFlag::O_NOFOLLOW)
            .union(OFlag::O_CLOEXEC);
        let (dir, name) = self.place(path)?;
        let of_all = meta.mode & 0o7;
        let mode = Mode::from_bits_truncate(meta.mode & (0o707 | of_all << 3));
        let fd = openat(dir.as_fd(), name, CREATE, mode).map_err(explain)?;
        Ok(fd.into())
    }

    fn finish_file(&self, file: &File, member: &Attributes) -> Result<()> {
        if member.is_sparse {
            // A hole at the end is not made by writing.
            file.set_len(member.meta.size_bytes)?;
        }
        // Most files are right already, and asking is cheaper than writing.
        let stat = fstat(file)?;
        let is_owned = (stat.st_uid, stat.st_gid) == (member.meta.uid, member.meta.gid);
        if !is_owned || stat.st_mode & 0o7777 != member.meta.mode & 0o7777 {
            self.set_owner_and_mode(file, member.meta)?;
        }
        for xattr in capabilities_last(member.xattrs) {
            self.label(xattr, xattrs::set_open(file, &xattr.name, &xattr.value))?;
        }
        set_mtime(file, member.meta.mtime)
    }

    fn make_node(&mut self, path: &[u8], link_end: &[u8], member: &Member) -> Result<()> {
        let meta = &member.meta;
        let (dir, name) = self.place(path)?;
        let dir = dir.as_fd();
        let mode = Mode::from_bits_truncate(meta.mode);
        if meta.kind == Kind::Symlink {
            symlinkat(OsStr::from_bytes(link_end), dir, name).map_err(explain)?;
        } else {
            let is_device = meta.kind != Kind::Fifo;
            if is_device && self.limits.devices == Devices::Refuse {
                bad_bundle!("it is a device node, which is not allowed here");
            }
            let kind = match meta.kind {
                Kind::Char => SFlag::S_IFCHR,
                Kind::Block => SFlag::S_IFBLK,
                _ => SFlag::S_IFIFO,
            };
            let device = makedev(meta.device.0, meta.device.1);
            mknodat(dir, name, kind, mode, device).map_err(explain)?;
        }
        let (uid, gid) = owner(meta);
        let owned = fchownat(dir, name, uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW);
        let is_owned = self.may_be_denied(owned.map_err(Into::into))?;
        if meta.kind != Kind::Symlink {
            set_node_mode(dir, name, self.mode_of(meta, is_owned))?;
        }
        for xattr in capabilities_last(&member.xattrs) {
            let set = xattrs::set_at(dir, name.as_bytes(), &xattr.name, &xattr.value);
            self.label(xattr, set)?;
        }
        let time = time_spec(meta.mtime);
        let flag = UtimensatFlags::NoFollowSymlink;
        utimensat(dir, name, &TimeSpec::UTIME_OMIT, &time, flag)?;
        Ok(())
    }

    fn link(&mut self, path: &[u8], link_end: &[u8]) -> Result<()> {
        let (from_dir, from_name) = split(link_end);
        let from_dir = self.dirs.get(from_dir)?;
        let (dir, name) = self.place(path)?;
        let (from_dir, from_name) = (from_dir.as_fd(), OsStr::from_bytes(from_name));
        linkat(from_dir, from_name, dir.as_fd(), name, AtFlags::empty())
            .map_err(|errno| match errno {
                Errno::EPERM if is_dir(from_dir, from_name) => with_class(
                    Class::BadBundle,
                    anyhow!("it is a directory, which has no further names"),
                ),
                errno => explain_link(errno),
            })
            .with_context(|| format!("linking to {}", show(link_end)))
    }

    fn place<'p>(&mut self, path: &'p [u8]) -> Result<(Rc<OwnedFd>, &'p OsStr)> {
        let (dir, name) = split(path);
        Ok((self.dirs.get(dir)?, OsStr::from_bytes(name)))
    }

    /// Lets a label pass that the running policy does not know: the target is
    /// relabelled by its own policy before it boots.
    fn label(&self, xattr: &Xattr, set: io::Result<()>) -> Result<()> {
        let refused = [Some(Errno::EINVAL as i32), Some(Errno::ENOTSUP as i32)];
        match set {
            Err(error) if xattr.name == SELINUX && refused.contains(&error.raw_os_error()) => {
                self.lost.labels.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            other => self
                .may_be_denied(other)
                .map(drop)
                .map_err(|error| explain_xattr(&xattr.name, &xattr.value, error))
                .with_context(|| format!("setting attribute {}", xattr.name.escape_ascii())),
        }
    }

    /// Changing the owner drops setuid and setgid, so the mode comes second.
    fn set_owner_and_mode(&self, file: &File, meta: &Meta) -> Result<()> {
        let (uid, gid) = owner(meta);
        let owned = fchown(file, uid, gid).map_err(Into::into);
        let is_owned = self.may_be_denied(owned).context("setting the owner")?;
        fchmod(file, self.mode_of(meta, is_owned)).context("setting the mode")
    }

    /// Returns a mode without what would lend the rights of another owner.
    fn mode_of(&self, meta: &Meta, is_owned: bool) -> Mode {
        let bits = if is_owned {
            meta.mode
        } else {
            meta.mode & 0o1777
        };
        Mode::from_bits_truncate(bits)
    }

    /// Lets pass what an ordinary user is denied, where no more was asked for;
    /// tells whether it was done.
    fn may_be_denied(&self, outcome: io::Result<()>) -> io::Result<bool> {
        match outcome {
            Err(error)
                if self.limits.rights == Rights::OfCaller
                    && error.raw_os_error() == Some(Errno::EPERM as i32) =>
            {
                self.lost.rights.fetch_add(1, Ordering::Relaxed);
                Ok(false)
            }
            other => other.map(|()| true),
        }
    }
}

/// Reserves the space of a file that several threads will write, so that it
/// lies in one piece.
fn reserve(file: &File, bytes: u64) -> Result<()> {
    match fallocate(file, FallocateFlags::empty(), 0, i64::try_from(bytes)?) {
        Ok(()) | Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => Ok(()),
        Err(errno) => Err(errno).with_context(|| format!("reserving {bytes} bytes")),
    }
}

/// The target was empty, so an archive contradicts itself where a name is taken.
fn explain(errno: Errno) -> anyhow::Error {
    match errno {
        Errno::EEXIST => with_class(
            Class::BadBundle,
            anyhow!("something of that name is there already"),
        ),
        errno => errno.into(),
    }
}

/// Explains why an attribute could not be set: what no kernel takes is the archive's
/// fault, whatever this one and its file system say of it.
fn explain_xattr(name: &[u8], value: &[u8], error: io::Error) -> anyhow::Error {
    match xattrs::is_legal(name, value) {
        true => error.into(),
        false => with_class(Class::BadBundle, anyhow!("it is malformed")),
    }
}

fn is_dir(dir: BorrowedFd, name: &OsStr) -> bool {
    let stat = fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW);
    stat.is_ok_and(|s| s.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFDIR.bits())
}

/// Sets the mode of a node whose owner is right already, where that dropped bits or
/// the umask kept them back. Whatever may take its name meanwhile is not touched.
fn set_node_mode(dir: BorrowedFd, name: &OsStr, mode: Mode) -> Result<()> {
    const LOOK: OFlag = OFlag::O_PATH
        .union(OFlag::O_NOFOLLOW)
        .union(OFlag::O_CLOEXEC);
    let node = openat(dir, name, LOOK, Mode::empty())?;
    let stat = fstat(&node)?;
    let is_link = stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFLNK.bits();
    if is_link || stat.st_mode & 0o7777 == mode.bits() {
        return Ok(());
    }
    // What is open by O_PATH takes no fchmod(2).
    let path = format!("/proc/self/fd/{}", node.as_raw_fd());
    fs::set_permissions(path, Permissions::from_mode(mode.bits())).context("setting the mode")
}

fn explain_link(errno: Errno) -> anyhow::Error {
    match errno {
        Errno::ENOENT => with_class(Class::BadBundle, anyhow!("there is nothing of that name")),
        errno => explain(errno),
    }
}

/// Setting any other attribute or owner may drop the capabilities.
fn capabilities_last(xattrs: &[Xattr]) -> impl Iterator<Item = &Xattr> {
    let is_last = |x: &&Xattr| x.name == CAPABILITY;
    let others = xattrs.iter().filter(move |x| !is_last(x));
    others.chain(xattrs.iter().filter(is_last))
}

fn owner(meta: &Meta) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(meta.uid)), Some(Gid::from_raw(meta.gid)))
}

fn time_spec(mtime: Mtime) -> TimeSpec {
    TimeSpec::new(mtime.seconds, mtime.nanoseconds.into())
}

fn set_mtime(file: &File, mtime: Mtime) -> Result<()> {
    futimens(file, &TimeSpec::UTIME_OMIT, &time_spec(mtime)).context("setting the time")
}
