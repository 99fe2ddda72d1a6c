//! Files on the data volume get the ids that another system's accounts have.
//!
//! The files stay, so that whoever has one open keeps it; what changes is who owns
//! them, and whom their ACLs name. It can be done again after any interruption: see
//! [`IdMap::in_two_steps`]. A hard link is a name of what has been changed already.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use nix::dir::{Dir, OwningIter};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};
use nix::unistd::{Gid, Uid, fchownat};
use serde::{Deserialize, Serialize};

use super::rules::DataRule;
use crate::accounts::{IdMap, Ids, rewrite_acl, rewrite_owner};
use crate::signals;
use crate::tree::acl;
use crate::tree::dirs::{Dirs, Missing, OPEN_DIR};
use crate::tree::path::{show, split};
use crate::tree::xattrs::CAPABILITY;

/// How deep directories may lie in each other; each on the way is kept open.
const MAX_DEPTH: usize = 400;

/// How many faults are told one by one.
const MAX_FAULTS: usize = 10;

const SET_ID: u32 = 0o6000;

/// The files of the data volume at `data` that follow the accounts.
pub struct Owned<'a> {
    /// Where the data volume is mounted.
    pub data: &'a Path,
    /// Which directories follow, and which in them do not.
    pub rules: &'a [DataRule],
}

/// What a change of owner takes away and what has to be given back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Privileges {
    /// The file, relative to the data volume.
    path: Vec<u8>,
    /// The inode's number.
    inode: u64,
    mode: u32,
    capability: Option<Vec<u8>>,
}

/// How a pass over the files ended.
#[derive(Debug, Default)]
pub struct Passed {
    /// How many got other ids.
    pub changed: u64,
    /// What could not be changed, and why; no more than a person reads.
    pub faults: Vec<String>,
    /// How many could not in all.
    pub failed: u64,
}

/// One pass over the files.
pub struct Pass<'a> {
    /// From which ids to which.
    pub map: &'a IdMap,
    /// Only files that were made before this moment, in nanoseconds since 1970: the
    /// system that runs has made the others, under its own ids.
    pub since: Option<u64>,
    /// Keeps what a file is about to lose; with `None`, it has it back.
    pub keep: &'a mut dyn FnMut(Option<&Privileges>) -> Result<()>,
}

/// An inode that is looked at, whatever becomes of its name.
struct Inode {
    file: OwnedFd,
    stat: FileStat,
}

impl Inode {
    fn open(dir: &Dir, name: &OsStr) -> Result<Inode> {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = openat(dir, name, flags, Mode::empty())?;
        let stat = fstat(&file)?;
        Ok(Inode { file, stat })
    }

    fn kind(&self) -> SFlag {
        SFlag::from_bits_truncate(self.stat.st_mode) & SFlag::S_IFMT
    }

    /// Names it for the calls that know no open inode.
    fn place(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.file.as_raw_fd()))
    }

    fn acls(&self) -> Result<Vec<(&'static [u8], Vec<u8>)>> {
        let mut found = Vec::new();
        if self.kind() == SFlag::S_IFLNK {
            return Ok(found);
        }
        for name in [acl::ACCESS, acl::DEFAULT] {
            if name == acl::DEFAULT && self.kind() != SFlag::S_IFDIR {
                continue;
            }
            match xattr::get_deref(self.place(), OsStr::from_bytes(name)) {
                Ok(value) => found.extend(value.map(|value| (name, value))),
                Err(error) if error.raw_os_error() == Some(Errno::ENOTSUP as i32) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(found)
    }

    /// Returns when it was made; where the file system does not say, when it was last
    /// changed.
    fn since(&self) -> u64 {
        let born = fs::metadata(self.place()).and_then(|meta| meta.created());
        let born = born.ok().filter(|_| self.kind() != SFlag::S_IFLNK);
        let changed = || {
            let seconds = u64::try_from(self.stat.st_ctime).unwrap_or(0);
            let nanoseconds = u32::try_from(self.stat.st_ctime_nsec).unwrap_or(0);
            UNIX_EPOCH + Duration::new(seconds, nanoseconds)
        };
        let time = born.unwrap_or_else(changed).duration_since(UNIX_EPOCH);
        u64::try_from(time.unwrap_or_default().as_nanos()).unwrap_or(u64::MAX)
    }

    fn capability(&self) -> Result<Option<Vec<u8>>> {
        match xattr::get_deref(self.place(), OsStr::from_bytes(CAPABILITY)) {
            Err(error) if error.raw_os_error() == Some(Errno::ENOTSUP as i32) => Ok(None),
            other => Ok(other?),
        }
    }

    fn give_back(&self, lost: &Privileges) -> Result<()> {
        fs::set_permissions(self.place(), Permissions::from_mode(lost.mode))?;
        if let Some(value) = &lost.capability {
            xattr::set_deref(self.place(), OsStr::from_bytes(CAPABILITY), value)?;
        }
        Ok(())
    }
}

impl Owned<'_> {
    /// Returns the ids that the files have.
    ///
    /// # Errors
    /// When there are too many, or the volume cannot be read.
    pub fn ids(&self) -> Result<Ids> {
        let mut ids = Ids::default();
        self.visit(&mut |_, inode| {
            ids.add(Some(inode.stat.st_uid), Some(inode.stat.st_gid))?;
            for (_, value) in inode.acls()? {
                let mut named = (Vec::new(), Vec::new());
                acl::ids(&value, &mut named.0, &mut named.1);
                for id in named.0 {
                    ids.add(Some(id), None)?;
                }
                for id in named.1 {
                    ids.add(None, Some(id))?;
                }
            }
            Ok(())
        })?;
        Ok(ids)
    }

    /// Gives the files that have an id of the map the one it leads to. What cannot be
    /// changed is told, and stays as it is.
    ///
    /// # Errors
    /// When what was begun cannot be noted, or a signal came.
    pub fn pass(&self, pass: &mut Pass) -> Result<Passed> {
        let mut passed = Passed::default();
        self.visit(&mut |path, inode| {
            match change(path, inode, pass) {
                Ok(has_changed) => passed.changed += u64::from(has_changed),
                Err(Fault::Stops(error)) => return Err(error),
                Err(Fault::Skips(error)) => {
                    passed.failed += 1;
                    if passed.faults.len() < MAX_FAULTS {
                        passed.faults.push(format!("{}: {error:#}", show(path)));
                    }
                }
            }
            Ok(())
        })?;
        nix::unistd::syncfs(File::open(self.data)?).context("writing to the data volume")?;
        Ok(passed)
    }

    /// Gives a file back what a change of its owner took, where a run was cut short
    /// between the two.
    ///
    /// # Errors
    /// When it cannot be.
    pub fn give_back(&self, lost: &Privileges) -> Result<()> {
        let (parent, name) = split(&lost.path);
        let mut dirs = Dirs::new(self.data, 1, Missing::Fail)?;
        let Ok(dir) = dirs.get(parent) else {
            return Ok(());
        };
        let dir = Dir::openat(&*dir, ".", OPEN_DIR, Mode::empty())?;
        let Ok(inode) = Inode::open(&dir, OsStr::from_bytes(name)) else {
            return Ok(());
        };
        match inode.stat.st_ino == lost.inode && inode.kind() == SFlag::S_IFREG {
            true => inode.give_back(lost),
            // Somebody has put another file there, with what it is to have.
            false => Ok(()),
        }
    }

    fn visit(&self, visit: &mut dyn FnMut(&[u8], &Inode) -> Result<()>) -> Result<()> {
        for rule in self.rules.iter().filter(|rule| rule.follows()) {
            for dir in rule.dirs() {
                let dir = dir.as_os_str().as_bytes();
                self.visit_dir(dir, visit)
                    .with_context(|| format!("looking at {} on the data volume", show(dir)))?;
            }
        }
        Ok(())
    }

    /// Tells whether what is at `path` follows: the first rule that names it, or a
    /// directory it is in, says so.
    fn follows(&self, path: &[u8]) -> bool {
        let path = Path::new(OsStr::from_bytes(path));
        let rule = self.rules.iter().find(|rule| rule.is_for(path));
        rule.is_some_and(DataRule::follows)
    }

    fn visit_dir(
        &self,
        top: &[u8],
        visit: &mut dyn FnMut(&[u8], &Inode) -> Result<()>,
    ) -> Result<()> {
        let mut dirs = Dirs::new(self.data, 1, Missing::Fail)?;
        // Where nobody has made it there is nothing to do.
        let Ok(top_dir) = dirs.get(top) else {
            return Ok(());
        };
        let start = Dir::openat(&*top_dir, ".", OPEN_DIR, Mode::empty())?;
        let own_device = fstat(&start)?.st_dev;
        let mut path = top.to_vec();
        if self.follows(&path) {
            visit(&path, &Inode::open(&start, OsStr::new("."))?)?;
        }
        let again = Dir::openat(&start, ".", OPEN_DIR, Mode::empty())?;
        let mut open: Vec<(Dir, OwningIter, usize)> = vec![(start, again.into_iter(), path.len())];
        while let Some((dir, names, length)) = open.last_mut() {
            path.truncate(*length);
            let Some(entry) = names.next() else {
                open.pop();
                continue;
            };
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            signals::check()?;
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name.as_bytes());
            // What has gone meanwhile is nobody's.
            let Ok(inode) = Inode::open(dir, name) else {
                continue;
            };
            if inode.stat.st_dev != own_device {
                continue;
            }
            if self.follows(&path) {
                visit(&path, &inode)?;
            }
            if inode.kind() == SFlag::S_IFDIR {
                ensure!(
                    open.len() < MAX_DEPTH,
                    "directories lie more than {MAX_DEPTH} deep in each other"
                );
                let (dir, _, _) = open.last().context("no directory is open")?;
                if let Ok(below) = Dir::openat(dir, name, OPEN_DIR, Mode::empty()) {
                    let again = Dir::openat(&below, ".", OPEN_DIR, Mode::empty())?;
                    let length = path.len();
                    open.push((below, again.into_iter(), length));
                }
            }
        }
        Ok(())
    }
}

/// How a change goes wrong.
enum Fault {
    /// This file stays as it is.
    Skips(anyhow::Error),
    /// Nothing may be changed any more.
    Stops(anyhow::Error),
}

impl<E: Into<anyhow::Error>> From<E> for Fault {
    fn from(error: E) -> Fault {
        Fault::Skips(error.into())
    }
}

/// Gives an inode its new ids; returns whether it had an old one.
fn change(path: &[u8], inode: &Inode, pass: &mut Pass) -> std::result::Result<bool, Fault> {
    let stat = &inode.stat;
    let (uid, gid) = rewrite_owner(stat.st_uid, stat.st_gid, pass.map);
    let is_owned = (uid, gid) != (stat.st_uid, stat.st_gid);
    let mut acls = Vec::new();
    for (name, value) in inode.acls()? {
        let new = rewrite_acl(&value, pass.map)?;
        if new != value {
            acls.push((name, new, value));
        }
    }
    if !is_owned && acls.is_empty() {
        return Ok(false);
    }
    if let Some(since) = pass.since
        && inode.since() >= since
        && !is_half_done(inode, pass.map)?
    {
        return Ok(false);
    }
    for (name, new, _) in &acls {
        xattr::set_deref(inode.place(), OsStr::from_bytes(name), new)?;
    }
    if !is_owned {
        return Ok(true);
    }
    let is_file = inode.kind() == SFlag::S_IFREG;
    let capability = match is_file {
        true => inode.capability()?,
        false => None,
    };
    let loses = is_file && (stat.st_mode & SET_ID != 0 || capability.is_some());
    let lost = loses.then(|| Privileges {
        path: path.to_vec(),
        inode: stat.st_ino,
        mode: stat.st_mode & 0o7777,
        capability,
    });
    if lost.is_some() {
        (pass.keep)(lost.as_ref()).map_err(Fault::Stops)?;
    }
    let owner = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    fchownat(&inode.file, "", owner.0, owner.1, AtFlags::AT_EMPTY_PATH)?;
    if let Some(lost) = &lost {
        inode.give_back(lost)?;
        (pass.keep)(None).map_err(Fault::Stops)?;
    }
    Ok(true)
}

/// Tells whether a run that was cut short has begun with it: then it has an id that
/// no file had before.
fn is_half_done(inode: &Inode, map: &IdMap) -> Result<bool> {
    let reached = map.reversed();
    let (mut users, mut groups) = (vec![inode.stat.st_uid], vec![inode.stat.st_gid]);
    for (_, value) in inode.acls()? {
        acl::ids(&value, &mut users, &mut groups);
    }
    Ok(users.iter().any(|id| reached.users.contains_key(id))
        || groups.iter().any(|id| reached.groups.contains_key(id)))
}
