//! The ways out of an initramfs that dracut made, of a bare kernel without disks.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use va_upgrade::boot::{appended, deadline};

use crate::lab::dracut::Dracut;
use crate::lab::qemu::{Hardware, Qemu};
use crate::lab::rootfs::Debian;

/// Longer than any machine takes for what is tried here.
const LIMIT: Duration = Duration::from_secs(30 * 60);

/// What the kernels of both families unpack.
const PACKINGS: [&str; 8] = [
    "cat",
    "gzip",
    "bzip2",
    "xz --check=crc32",
    "xz --format=lzma",
    "lzop",
    "lz4 -l",
    "zstd",
];

/// A start of a bare kernel with an initramfs of dracut and our archive behind it.
pub struct Start<'a> {
    /// Both.
    pub dracut: &'a Dracut,
    /// The command that packs the initramfs.
    pub packing: &'a str,
    /// The deadline of the trial that it is.
    pub seconds: u64,
    /// More words for the kernel.
    pub words: &'a str,
    /// A disk, raw, that the machine writes.
    pub disk: Option<&'a Path>,
}

impl Start<'_> {
    /// Returns the console of the machine, which has restarted.
    pub fn run(&self) -> Result<String> {
        let work = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
        let at = |name: &str| work.path().join(name);
        let (image, console) = (at("initramfs"), at("console"));
        self.make_initramfs(&image)?;
        let mut qemu = Qemu::start(&self.qemu_words(&image, &console), &at("qemu.log"))?;
        let started = Instant::now();
        let packing = self.packing;
        loop {
            let text =
                String::from_utf8_lossy(&fs::read(&console).unwrap_or_default()).into_owned();
            let last: String = text.lines().rev().take(20).collect::<Vec<_>>().join("\n");
            if !qemu.alive()? {
                let is_restart = text.contains("Resetting") || text.contains("Restarting system");
                ensure!(is_restart, "{packing}: it ended: {last}");
                return Ok(text);
            }
            let is_off = text.contains("System halted") || text.contains("Power down");
            ensure!(
                !is_off,
                "{packing}: nobody is there to start it again: {last}"
            );
            ensure!(started.elapsed() < LIMIT, "{packing}: it hangs: {last}");
            sleep(Duration::from_millis(500));
        }
    }

    fn make_initramfs(&self, image: &Path) -> Result<()> {
        self.dracut.pack(self.packing, image)?;
        let archive = deadline::archive(self.seconds, &[]);
        let addition = appended::behind(&File::open(image)?, &archive)?;
        File::options()
            .append(true)
            .open(image)?
            .write_all(&addition)?;
        Ok(())
    }

    fn qemu_words(&self, image: &Path, console: &Path) -> Vec<String> {
        let shown = |path: &Path| path.to_string_lossy().into_owned();
        let mut words = Hardware::default().words();
        words.extend(["-no-reboot".into(), "-kernel".into()]);
        words.push(shown(&self.dracut.kernel()));
        words.extend(["-initrd".into(), shown(image), "-append".into()]);
        words.push(format!(
            "console=ttyS0 no_timer_check rd.shell=0 rd.emergency=reboot panic=10 va.slot=back va.why=trial {}",
            self.words
        ));
        words.extend(["-serial".into(), format!("file:{}", shown(console))]);
        if let Some(disk) = self.disk {
            let drive = format!("if=virtio,format=raw,file={}", shown(disk));
            words.extend(["-drive".into(), drive]);
        }
        words
    }
}

#[test]
#[ignore = "starts virtual machines"]
fn a_trial_that_dracut_gives_up_on_restarts_however_its_initramfs_is_packed() -> Result<()> {
    for (debian, packings) in [
        (Debian::Bullseye, &PACKINGS[1..2]),
        (Debian::Bookworm, &PACKINGS[..]),
    ] {
        let dracut = Dracut::of(debian)?;
        for packing in packings {
            let console = Start {
                dracut: &dracut,
                packing,
                seconds: 3600,
                words: "root=nonsense:x",
                disk: None,
            }
            .run()?;
            assert!(console.contains("Refusing to continue"), "{packing}");
        }
    }
    Ok(())
}

#[test]
#[ignore = "starts virtual machines"]
fn a_hang_in_dracut_ends_at_the_deadline() -> Result<()> {
    let dracut = Dracut::of(Debian::Bookworm)?;
    for packing in ["lz4 -l", "zstd"] {
        let words = "root=/dev/nowhere rd.retry=7200 rd.timeout=0";
        let console = Start {
            dracut: &dracut,
            packing,
            seconds: 20,
            words,
            disk: None,
        }
        .run()?;
        assert!(!console.contains("Refusing to continue"), "{packing}");
    }
    Ok(())
}
