//! Initramfs images that a real dracut makes, for a bare kernel.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use va_upgrade::system::{Cmd, System};

use super::cache::cached;
use super::host;
use super::rootfs::Debian;

/// Runs dracut in the root `$1`; `$2` gets the kernel and the archive, not packed.
const MAKE: &str = r#"set -e
    mkdir "$2"
    for dir in proc sys dev; do mount --rbind "/$dir" "$1/$dir"; done
    kernel=$(basename "$1"/lib/modules/*)
    chroot "$1" dracut --quiet --no-hostonly --no-compress --kver "$kernel" /tmp/initramfs
    mv "$1/tmp/initramfs" "$1/boot/vmlinuz-$kernel" "$2"
    mv "$2/vmlinuz-$kernel" "$2/vmlinuz""#;

/// Packs `$1` the way `$3` says, behind an archive of the kind that microcode comes
/// in, into `$2`.
const PACK: &str = r#"set -e
    cd "$(dirname "$2")"
    mkdir -p kernel/x86/microcode
    echo lab >kernel/x86/microcode/lab
    find kernel | cpio --quiet -o -H newc >"$2"
    sh -c "$3" <"$1" >>"$2""#;

/// A kernel and an initramfs made by dracut.
pub struct Dracut {
    dir: PathBuf,
}

impl Dracut {
    /// Makes those of a Debian release.
    pub fn of(debian: Debian) -> Result<Dracut> {
        let tar = debian.tar()?;
        let name = format!("dracut-{}", debian.number());
        let inputs = [&*tar.to_string_lossy(), MAKE];
        let what = format!("the initramfs of Debian {}'s dracut", debian.number());
        let dir = cached(&name, &what, &inputs, |path| {
            let work = tempfile::tempdir_in(path.parent().context("a path without a parent")?)?;
            let untar = Cmd::new("tar").arg("-xpf").arg(&tar).arg("-C");
            host().run(&untar.arg(work.path()))?;
            let make = Cmd::new("unshare")
                .args(["--mount", "sh", "-c", MAKE, "sh"])
                .arg(work.path())
                .arg(path)
                .limit(Duration::from_secs(30 * 60));
            host().run(&make).map(drop)
        })?;
        Ok(Dracut { dir })
    }

    /// Returns the kernel.
    pub fn kernel(&self) -> PathBuf {
        self.dir.join("vmlinuz")
    }

    /// Writes the initramfs to `path`, packed by the shell command `packing`.
    pub fn pack(&self, packing: &str, path: &Path) -> Result<()> {
        let cmd = Cmd::new("sh")
            .args(["-c", PACK, "sh"])
            .arg(self.dir.join("initramfs"))
            .arg(path)
            .arg(packing)
            .limit(Duration::from_secs(30 * 60));
        host().run(&cmd)?;
        fs::metadata(path).context("packing").map(drop)
    }
}
