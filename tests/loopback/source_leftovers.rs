//! Nothing stays behind, wherever a signal ends the work: no loop device, no
//! mount, no temporary file. [`Opener::finish`] checks it after every run.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::disk::{Disk, FileSystem, Lvm, run, text, write_tool};
use super::opener::Opener;

/// An image that goes through every step: converted, joined, mounted.
fn image(dir: &Path) -> PathBuf {
    let root = FileSystem::make(
        dir,
        "ext4",
        "root",
        64,
        &[("etc/os-release", "ID=x\n"), ("sbin/init", "init")],
    );
    let disk = Disk::new(dir.join("disk.raw"), 140);
    disk.gpt(&[("8e00", 60), ("8e00", 60)]);
    {
        let lvm = Lvm::new(&disk, &[(1, 60), (2, 60)]);
        lvm.group("VA", &[0, 1]);
        lvm.volume("VA", "root", 64);
        lvm.put("VA", "root", &root);
    }
    let vmdk = dir.join("disk.vmdk");
    run(
        "qemu-img",
        &["convert", "-O", "vmdk", text(&disk.path), text(&vmdk)],
    );
    vmdk
}

const STEPS: [&str; 3] = ["reading disk.vmdk", "joining VA/root", "opened"];

#[test]
fn a_process_that_is_killed_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let image = image(dir.path());
    for step in STEPS {
        let mut opener = Opener::start(&image, None, Some(step));
        opener.wait_for_pause();
        opener.signal("-KILL");
        let seen = opener.finish();
        assert!(!seen.closed, "{step}");
    }
}

#[test]
fn a_process_that_is_interrupted_cleans_up_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let image = image(dir.path());
    for signal in ["-INT", "-TERM", "-HUP"] {
        for step in STEPS {
            let mut opener = Opener::start(&image, None, Some(step));
            opener.wait_for_pause();
            opener.signal(signal);
            let seen = opener.finish();
            let (_, text) = seen.error.expect(step);
            assert!(text.contains("interrupted"), "{step}: {text}");
        }
    }
}

/// Puts a `qemu-img` into `dir` whose conversions write their process id to the
/// file `started` and then never end.
fn endless_conversion(dir: &Path) -> PathBuf {
    let tools = dir.join("tools");
    fs::create_dir(&tools).unwrap();
    // It runs as nobody, who needs a way to it.
    for open_to_all in [dir, &tools] {
        fs::set_permissions(open_to_all, Permissions::from_mode(0o777)).unwrap();
    }
    let real = run("sh", &["-c", "command -v qemu-img"]);
    let script = format!(
        "#!/bin/sh\n\
         [ \"$1\" = convert ] || exec {} \"$@\"\n\
         echo $$ > {dir}/pid && mv {dir}/pid {dir}/started\n\
         exec sleep 1000\n",
        real.trim(),
        dir = dir.display()
    );
    write_tool(&tools.join("qemu-img"), &script);
    tools
}

fn wait_for(file: &Path) -> String {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Ok(text) = fs::read_to_string(file) {
            fs::remove_file(file).unwrap();
            return text.trim().to_owned();
        }
        assert!(Instant::now() < deadline, "no {}", file.display());
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_conversion_ends_with_a_signal_and_with_the_process_that_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let image = image(dir.path());
    let tools = endless_conversion(dir.path());
    let start = || Opener::start_with_tools(&image, None, None, Some(&tools));

    let mut opener = start();
    let tool = wait_for(&dir.path().join("started"));
    opener.signal("-TERM");
    let seen = opener.finish();
    let (_, text) = seen.error.unwrap();
    assert!(text.contains("interrupted"), "{text}");
    assert!(!Path::new("/proc").join(&tool).exists(), "the tool goes on");

    let mut opener = start();
    let tool = wait_for(&dir.path().join("started"));
    opener.signal("-KILL");
    let seen = opener.finish();
    assert!(!seen.closed);
    let deadline = Instant::now() + Duration::from_secs(60);
    while Path::new("/proc").join(&tool).exists() {
        assert!(Instant::now() < deadline, "the tool goes on");
        std::thread::sleep(Duration::from_millis(10));
    }
}
