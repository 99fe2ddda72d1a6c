//! A slot's directory on `/boot`: kernel, initramfs, boot entry, record.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use super::record::{BootFile, SlotRecord};
use super::{deadline, entry};
use crate::linux::initramfs;
use crate::paths::{BOOT, BOOT_DIR};
use crate::refuse;
use crate::sha::Sha;
use crate::slot::Slot;
use crate::system::{Lock, System, files};

/// What a slot boots.
pub struct BootSet<'a> {
    /// The version of the system in the slot.
    pub version: &'a str,
    /// The kernel's release.
    pub kernel_release: &'a str,
    /// Where the kernel is copied from.
    pub kernel: &'a Path,
    /// Where the initramfs is copied from.
    pub initramfs: &'a Path,
    /// The kernel's arguments.
    pub args: &'a [String],
    /// The deadline of a trial that the initramfs gets; see [`deadline`].
    pub deadline_seconds: Option<u64>,
}

/// Returns a slot's directory on `/boot`.
pub fn dir(sys: &dyn System, slot: Slot) -> PathBuf {
    sys.at(BOOT_DIR).join(slot.name())
}

/// Writes a slot's boot files and reads them back. The record comes last: a
/// directory without one is not bootable.
///
/// # Errors
/// When a file cannot be written or does not read back.
pub fn write(sys: &dyn System, slot: Slot, set: &BootSet, _lock: &Lock) -> Result<()> {
    let dir = dir(sys, slot);
    fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
    copy(set.kernel, &dir.join("vmlinuz"), &[])?;
    let addition = set.deadline_seconds.map(deadline::archive);
    let addition = addition.unwrap_or_default();
    copy(set.initramfs, &dir.join("initrd"), &addition)?;
    let text = entry::render(slot, set.version, set.args)?;
    files::write_atomic(&dir.join("entry.cfg"), text.as_bytes(), 0o644)?;
    let described: Result<Vec<BootFile>> = ["vmlinuz", "initrd", "entry.cfg"]
        .iter()
        .map(|name| describe(&dir, name))
        .collect();
    SlotRecord {
        version: set.version.to_owned(),
        kernel: set.kernel_release.to_owned(),
        files: described?,
    }
    .save(&dir)
}

/// Removes a slot's boot files; absent is fine.
///
/// # Errors
/// When one cannot be removed.
pub fn remove(sys: &dyn System, slot: Slot, _lock: &Lock) -> Result<()> {
    files::remove_tree(&dir(sys, slot))
}

/// Loads the record of a slot's boot files; `None` when there is none.
///
/// # Errors
/// When it is there and cannot be read.
pub fn record(sys: &dyn System, slot: Slot) -> Result<Option<SlotRecord>> {
    SlotRecord::load(&dir(sys, slot))
}

/// Returns whether `slot` has boot files of ours, whole.
pub fn is_whole(sys: &dyn System, slot: Slot) -> bool {
    let dir = dir(sys, slot);
    let record = SlotRecord::load(&dir).ok().flatten();
    record.is_some_and(|record| record.faults(&dir, false).is_empty())
}

/// Writes the boot files of the running system, in `slot`, where it has none of
/// ours: the kernel it runs, that kernel's initramfs, its own command line.
///
/// # Errors
/// Class `Refused` when its kernel or initramfs is not on `/boot`.
pub fn adopt(
    sys: &dyn System,
    slot: Slot,
    cmdline: &str,
    version: &str,
    lock: &Lock,
) -> Result<()> {
    if is_whole(sys, slot) {
        return Ok(());
    }
    let found = running_kernel(sys)?;
    let set = BootSet {
        version,
        kernel_release: &found.release,
        kernel: &found.kernel,
        initramfs: &found.initramfs,
        args: &entry::own_arguments(cmdline),
        deadline_seconds: None,
    };
    write(sys, slot, &set, lock)
}

/// The running kernel as files on `/boot`.
pub struct RunningKernel {
    /// What `uname -r` prints.
    pub release: String,
    /// The kernel image.
    pub kernel: PathBuf,
    /// Its initramfs.
    pub initramfs: PathBuf,
}

/// Finds the files of the running kernel, by the names of both families.
///
/// # Errors
/// Class `Refused` when one is missing.
pub fn running_kernel(sys: &dyn System) -> Result<RunningKernel> {
    let path = sys.at("/proc/sys/kernel/osrelease");
    let release =
        fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let release = release.trim().to_owned();
    let boot = sys.at(BOOT);
    let kernel = boot.join(format!("vmlinuz-{release}"));
    let names = initramfs::names(&release);
    let initramfs = names
        .iter()
        .map(|name| boot.join(name))
        .find(|path| path.is_file());
    match initramfs {
        Some(initramfs) if kernel.is_file() => Ok(RunningKernel {
            release,
            kernel,
            initramfs,
        }),
        _ => refuse!(
            "/boot does not hold the running kernel vmlinuz-{release} and its initramfs, \
             so this system could not be kept bootable; reinstall that kernel package or reboot into an installed one"
        ),
    }
}

fn describe(dir: &Path, name: &str) -> Result<BootFile> {
    let path = dir.join(name);
    let size = path
        .metadata()
        .with_context(|| format!("reading {}", path.display()))?
        .len();
    Ok(BootFile {
        name: name.to_owned(),
        size,
        sha256: Sha::of_file(&path)?,
    })
}

/// Copies `from` with `addition` behind it, and compares what then is there.
fn copy(from: &Path, to: &Path, addition: &[u8]) -> Result<()> {
    let write = || -> Result<()> {
        // A temporary name: what may boot meanwhile stays whole.
        let temp = to.with_extension("new");
        let mut source = File::open(from)?;
        let mut file = File::create(&temp)?;
        let copied = io::copy(&mut source, &mut file)?;
        if !addition.is_empty() {
            // The kernel looks for the next archive at a multiple of four
            // bytes (initramfs buffer format).
            let padding = usize::try_from(copied.next_multiple_of(4) - copied)?;
            io::Write::write_all(&mut file, &[0; 3][..padding])?;
            io::Write::write_all(&mut file, addition)?;
        }
        file.sync_all()?;
        // What is compared comes from the disk, not from memory.
        posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
        let same = same_start(from, &temp)?;
        ensure!(same, "it does not read back as written");
        fs::rename(&temp, to)?;
        Ok(())
    };
    write().with_context(|| format!("copying {} to {}", from.display(), to.display()))
}

/// Returns whether `copy` begins with all of `original`.
fn same_start(original: &Path, copy: &Path) -> Result<bool> {
    use io::Read;
    let (mut a, mut b) = (File::open(original)?, File::open(copy)?);
    let (mut left, mut right) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        let n = a.read(&mut left)?;
        if n == 0 {
            return Ok(true);
        }
        if b.read_exact(&mut right[..n]).is_err() || left[..n] != right[..n] {
            return Ok(false);
        }
    }
}
