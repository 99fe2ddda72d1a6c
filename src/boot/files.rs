//! A slot's directory on `/boot`: kernel, initramfs, boot entry, record.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use super::record::{BootFile, SlotRecord, Source};
use super::{appended, configured, deadline, entry};
use crate::linux::initramfs;
use crate::paths::{BOOT, BOOT_DIR};
use crate::refuse;
use crate::sha::Sha;
use crate::slot::Slot;
use crate::system::{Lock, System, files};

pub(super) const INITRAMFS: &str = "initrd";
pub(super) const ENTRY: &str = "entry.cfg";

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
    /// The names and contents of systemd.link(5) files that the initramfs gets, too:
    /// udev names each card once, perhaps there.
    pub links: &'a [(String, Vec<u8>)],
}

/// Returns a slot's directory on `/boot`.
pub fn dir(sys: &dyn System, slot: Slot) -> PathBuf {
    sys.at(BOOT_DIR).join(slot.name())
}

/// Writes a slot's boot files and reads them back. The record comes last: a
/// directory without one is not bootable. The kernel keeps its release in its
/// name, by which kdump and the FIPS check find it.
///
/// # Errors
/// When a file cannot be written or does not read back.
pub fn write(sys: &dyn System, slot: Slot, set: &BootSet, _lock: &Lock) -> Result<()> {
    let dir = dir(sys, slot);
    let kernel = kernel_name(set);
    let text = entry::render(slot, set.version, [&kernel, INITRAMFS], set.args)?;
    let mut names = copy_pair(&dir, slot, "", set)?;
    files::write_atomic(&dir.join(ENTRY), text.as_bytes(), 0o644)?;
    names.push(ENTRY.to_owned());
    record_of(&dir, &names, set)?.save(&dir)?;
    names.push(SlotRecord::FILE.to_owned());
    remove_others(&dir, &names)
}

/// Returns what a kernel's file is called beside its initramfs.
pub(super) fn kernel_name(set: &BootSet) -> String {
    format!("vmlinuz-{}", set.kernel_release)
}

/// Copies kernel and initramfs to `place`, empty or a directory's name and a
/// slash, in the directory `dir` of `slot`; returns the names of both there, and
/// of what else the kernel needs beside it.
pub(super) fn copy_pair(dir: &Path, slot: Slot, place: &str, set: &BootSet) -> Result<Vec<String>> {
    let to = dir.join(place);
    fs::create_dir_all(&to).with_context(|| format!("making {}", to.display()))?;
    let kernel = kernel_name(set);
    let mut names = vec![format!("{place}{kernel}"), format!("{place}{INITRAMFS}")];
    copy(set.kernel, &to.join(&kernel), &[])?;
    if let Some(sum) = kernel_sum(set.kernel)? {
        let name = format!("{place}.{kernel}.hmac");
        let line = format!("{sum}  {BOOT_DIR}/{}/{place}{kernel}\n", slot.name());
        files::write_atomic(&dir.join(&name), line.as_bytes(), 0o644)?;
        names.push(name);
    }
    let addition = set
        .deadline_seconds
        .map(|seconds| deadline::archive(seconds, set.links));
    let addition = addition.unwrap_or_default();
    copy(set.initramfs, &to.join(INITRAMFS), &addition)?;
    Ok(names)
}

/// Describes the files `names` of `dir`, which are those of `set`.
pub(super) fn record_of(dir: &Path, names: &[String], set: &BootSet) -> Result<SlotRecord> {
    let described: Result<Vec<BootFile>> = names.iter().map(|name| describe(dir, name)).collect();
    Ok(SlotRecord {
        version: set.version.to_owned(),
        kernel: set.kernel_release.to_owned(),
        files: described?,
        args: set.args.to_vec(),
        source: Some(Source::of(set.kernel, set.initramfs)?),
    })
}

/// Removes what another kernel left in a slot's directory.
fn remove_others(dir: &Path, names: &[String]) -> Result<()> {
    let remove = || -> Result<()> {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let is_ours = names.iter().any(|name| entry.file_name() == **name);
            match entry.file_type()?.is_dir() {
                _ if is_ours => {}
                true => files::remove_tree(&entry.path())?,
                false => fs::remove_file(entry.path())?,
            }
        }
        Ok(())
    };
    remove().with_context(|| format!("tidying {}", dir.display()))
}

/// Returns the sum that stands in a kernel's `.hmac` file, where it has one: with
/// `fips=1` dracut(8) looks for such a file beside the kernel that GRUB loaded
/// and compares, or starts nothing. It names the kernel by its path.
fn kernel_sum(kernel: &Path) -> Result<Option<String>> {
    let name = kernel.file_name().unwrap_or_default().to_string_lossy();
    let path = kernel.with_file_name(format!(".{name}.hmac"));
    let text = match fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.with_context(|| format!("reading {}", path.display()))?,
    };
    let sum = text.split_whitespace().next();
    let sum = sum.filter(|sum| sum.bytes().all(|byte| byte.is_ascii_hexdigit()));
    Ok(sum.map(str::to_owned))
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

/// Returns whether `slot`, which runs with the kernel arguments `cmdline`, has boot
/// files of ours that are whole and start what runs. After a start by another
/// menu they may be of a kernel that the system no longer has.
pub fn is_adopted(sys: &dyn System, slot: Slot, cmdline: &str) -> bool {
    let dir = dir(sys, slot);
    let Ok(Some(record)) = SlotRecord::load(&dir) else {
        return false;
    };
    let is_ours = entry::booted_by(cmdline).slot == Some(slot);
    let is_running = || running_release(sys).is_ok_and(|release| release == record.kernel);
    record.faults(&dir, false).is_empty() && (is_ours || is_running())
}

/// Returns what `uname -r` prints.
fn running_release(sys: &dyn System) -> Result<String> {
    let path = sys.at("/proc/sys/kernel/osrelease");
    let release =
        fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    Ok(release.trim().to_owned())
}

/// Writes the boot files of the running system, in `slot`, unless it [has
/// them](is_adopted): the kernel it runs, that kernel's initramfs, its own command line.
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
    if is_adopted(sys, slot, cmdline) {
        return Ok(());
    }
    let found = running_kernel(sys)?;
    let set = BootSet {
        version,
        kernel_release: &found.release,
        kernel: &found.kernel,
        initramfs: &found.initramfs,
        args: &own_arguments(sys, cmdline)?,
        deadline_seconds: None,
        links: &[],
    };
    write(sys, slot, &set, lock)
}

/// Returns the arguments that the running system's own entry gets; see
/// [`entry::own_arguments`].
///
/// # Errors
/// When its boot configuration cannot be read, or one cannot be written in an
/// entry.
pub fn own_arguments(sys: &dyn System, cmdline: &str) -> Result<Vec<String>> {
    let configured = configured::words_by_file(&sys.at("/"))?.concat();
    let args = entry::own_arguments(cmdline, &configured);
    entry::check(&args)?;
    Ok(args)
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
    let release = running_release(sys)?;
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

pub(super) fn describe(dir: &Path, name: &str) -> Result<BootFile> {
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

/// Copies `from` with the archive `addition` behind it, and compares what then is there.
fn copy(from: &Path, to: &Path, addition: &[u8]) -> Result<()> {
    let write = || -> Result<()> {
        // A temporary name: what may boot meanwhile stays whole.
        let mut temp = to.to_owned().into_os_string();
        temp.push(".new");
        let temp = PathBuf::from(temp);
        let mut source = File::open(from)?;
        // An initramfs may hold keys; nobody gets at them meanwhile either.
        let mut file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temp)?;
        file.set_permissions(source.metadata()?.permissions())?;
        io::copy(&mut source, &mut file)?;
        if !addition.is_empty() {
            file.write_all(&appended::behind(&source, addition)?)?;
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
