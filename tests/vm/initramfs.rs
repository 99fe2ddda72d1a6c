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

/// Starts `dracut`'s kernel with its initramfs, packed and with our archive behind
/// it; returns the console of a machine that has restarted.
fn restarted(dracut: &Dracut, packing: &str, seconds: u64, words: &str) -> Result<String> {
    let work = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let at = |name: &str| work.path().join(name);
    let image = at("initramfs");
    dracut.pack(packing, &image)?;
    let addition = appended::behind(&File::open(&image)?, &deadline::archive(seconds, &[]))?;
    File::options()
        .append(true)
        .open(&image)?
        .write_all(&addition)?;

    let shown = |path: &Path| path.to_string_lossy().into_owned();
    let console = at("console");
    let mut args = Hardware::default().words();
    args.extend([
        "-no-reboot".into(),
        "-kernel".into(),
        shown(&dracut.kernel()),
    ]);
    args.extend(["-initrd".into(), shown(&image), "-append".into()]);
    args.push(format!(
        "console=ttyS0 rd.shell=0 rd.emergency=reboot panic=10 va.slot=back va.why=trial {words}"
    ));
    args.extend(["-serial".into(), format!("file:{}", shown(&console))]);
    let mut qemu = Qemu::start(&args, &at("qemu.log"))?;
    let started = Instant::now();
    loop {
        let text = String::from_utf8_lossy(&fs::read(&console).unwrap_or_default()).into_owned();
        let last: String = text.lines().rev().take(20).collect::<Vec<_>>().join("\n");
        if !qemu.alive()? {
            ensure!(text.contains("Resetting"), "{packing}: it ended: {last}");
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

#[test]
#[ignore = "starts virtual machines"]
fn a_trial_that_dracut_gives_up_on_restarts_however_its_initramfs_is_packed() -> Result<()> {
    for (debian, packings) in [
        (Debian::Bullseye, &PACKINGS[1..2]),
        (Debian::Bookworm, &PACKINGS[..]),
    ] {
        let dracut = Dracut::of(debian)?;
        for packing in packings {
            let console = restarted(&dracut, packing, 3600, "root=nonsense:x")?;
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
        let console = restarted(&dracut, packing, 20, words)?;
        assert!(!console.contains("Refusing to continue"), "{packing}");
    }
    Ok(())
}
