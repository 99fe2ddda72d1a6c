//! A slot's directory on `/boot`: kernel, initramfs, boot entry, record.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::machine::{BOOT, BOOT_DIR, Machine};
use super::record::{BootFile, SlotRecord, sha256_file};
use crate::boot::{deadline, entry};
use crate::config::Config;
use crate::refuse;
use crate::slot::Slot;
use crate::system::files;

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
    /// Whether the initramfs gets the deadline of a trial; see [`deadline`].
    pub guarded: bool,
}

/// Returns a slot's directory on `/boot`.
pub fn dir(config: &Config, slot: Slot) -> PathBuf {
    config.at(BOOT_DIR).join(slot.name())
}

/// Writes a slot's boot files and reads them back. The record comes last: a
/// directory without one is not bootable.
///
/// # Errors
/// When a file cannot be written or does not read back.
pub fn write(config: &Config, slot: Slot, set: &BootSet) -> Result<()> {
    let dir = dir(config, slot);
    fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
    copy(set.kernel, &dir.join("vmlinuz"), &[])?;
    let addition = if set.guarded {
        deadline::archive(config.deadline_seconds)
    } else {
        Vec::new()
    };
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

/// Returns whether `slot` has boot files of ours, whole.
pub fn is_whole(config: &Config, slot: Slot) -> bool {
    let dir = dir(config, slot);
    let record = SlotRecord::load(&dir).ok().flatten();
    record.is_some_and(|record| record.faults(&dir, false).is_empty())
}

/// Writes the boot files of the running system where it has none of ours: the
/// kernel it runs, that kernel's initramfs, its own command line.
///
/// # Errors
/// Class `Refused` when its kernel or initramfs is not on `/boot`.
pub fn adopt(config: &Config, machine: &Machine, version: &str) -> Result<()> {
    if is_whole(config, machine.booted) {
        return Ok(());
    }
    let found = running_kernel(config)?;
    let set = BootSet {
        version,
        kernel_release: &found.release,
        kernel: &found.kernel,
        initramfs: &found.initramfs,
        args: &entry::own_arguments(&machine.cmdline),
        guarded: false,
    };
    write(config, machine.booted, &set)
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
pub fn running_kernel(config: &Config) -> Result<RunningKernel> {
    let path = config.at("/proc/sys/kernel/osrelease");
    let release =
        fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let release = release.trim().to_owned();
    let boot = config.at(BOOT);
    let kernel = boot.join(format!("vmlinuz-{release}"));
    let names = [
        format!("initrd.img-{release}"),
        format!("initramfs-{release}.img"),
    ];
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
        sha256: sha256_file(&path)?,
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
