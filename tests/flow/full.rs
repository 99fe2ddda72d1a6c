//! A `/boot`, or every file system, that is full in the middle of a flow: the kernel
//! then writes less than it was asked to, and nothing more after that.
//!
//! It is a file system in memory of so many pages, in a mount namespace of the flow's
//! own; what it holds in the end is copied back.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use va_upgrade::failure::Class;

use crate::boots;
use crate::lone::{Flow, Ran, Stage};
use crate::writes::{judge_apply, judge_state};

/// What a file takes at least, in bytes.
const PAGE: u64 = 4096;

/// Mounts it, runs the rest of the words, and copies back what is there. A disk as
/// such is never full.
const SCRIPT: &str = r#"dir=$1 aside=$2 size=$3; shift 3
cp -a "$dir" "$aside" && mount -t tmpfs -o "size=$size" none "$dir" || exit 1
cp -a "$aside/." "$dir" || exit 1
if [ -d "$dir/dev" ]; then
    rm -rf "$aside.dev"; cp -a "$dir/dev" "$aside.dev" || exit 1
    mount --bind "$aside.dev" "$dir/dev" || exit 1
fi
"$@"; status=$?
rm -rf "$aside" && cp -a "$dir" "$aside" || exit 1
exit $status"#;

/// What is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Full {
    Boot,
    All,
}

/// Counts the pages that the files below `dir` take.
fn pages(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    let count = entries.map(|entry| match entry.metadata().unwrap() {
        meta if meta.is_dir() => pages(&entry.path()),
        meta => (meta.blocks() * 512).div_ceil(PAGE),
    });
    count.sum()
}

/// Runs the flow with so many pages free.
fn run(stage: &Stage, full: Full, free: u64) -> Ran {
    let dir = match full {
        Full::Boot => stage.place().join("boot"),
        Full::All => stage.place(),
    };
    let aside = dir.with_extension("aside");
    let held = match full {
        Full::Boot => stage.before().at("/boot"),
        Full::All => stage.before().at("/"),
    };
    let size = (pages(&held) + free) * PAGE;
    let mut below = vec!["unshare".to_owned(), "--mount".to_owned()];
    if !nix::unistd::geteuid().is_root() {
        below.push("--map-root-user".to_owned());
    }
    below.extend(["sh", "-c", SCRIPT, "sh"].map(str::to_owned));
    below.extend([&dir, &aside].map(|path| path.to_str().unwrap().to_owned()));
    below.push(size.to_string());
    let ran = stage.run(&below, None);
    fs::remove_dir_all(&dir).unwrap();
    fs::rename(&aside, &dir).unwrap();
    ran
}

#[test]
fn a_boot_partition_that_fills_up_in_the_middle_leaves_a_flow_done_or_undone() {
    fill(Full::Boot, 1);
}

#[test]
fn file_systems_that_fill_up_in_the_middle_leave_a_flow_done_or_undone() {
    fill(Full::All, 3);
}

/// Runs each flow with a few more pages free each time, until nothing is missing.
fn fill(full: Full, stride: usize) {
    for flow in Flow::ALL {
        let stage = Stage::new(flow);
        let mut failures = 0;
        for free in (0..).step_by(stride) {
            let ran = run(&stage, full, free);
            let what = format!("{flow:?}, {full:?} with {free} pages free: {}", ran.words);
            if flow != Flow::Repair {
                assert_eq!(boots::fault(&ran.machine), None, "{what}");
            }
            match flow {
                Flow::FirstApply | Flow::LaterApply => judge_apply(&stage, &ran, &what),
                _ => judge_state(&stage, &ran, &what),
            }
            if ran.outcome != Some(Ok(())) {
                failures += 1;
                assert!(ran.error().contains("No space left"), "{what}");
            } else if !ran.words.contains("No space left") {
                break;
            }
        }
        let is_apply = matches!(flow, Flow::FirstApply | Flow::LaterApply);
        assert!(
            failures > 5 || !is_apply,
            "{flow:?} failed {failures} times"
        );
    }
}

#[test]
fn a_kernel_of_which_only_a_part_was_written_is_none() {
    let stage = Stage::new(Flow::FirstApply);
    // More than one page, so that a part of it fits.
    let initramfs = "old initramfs ".repeat(2000);
    stage
        .before()
        .write("/boot/initrd.img-5.10.0-1", &initramfs);
    for free in 1..8 {
        let ran = run(&stage, Full::Boot, free);
        let what = format!("with {free} pages free: {}", ran.words);
        let is_undone = matches!(ran.outcome, Some(Err(Class::Undone)));
        assert!(is_undone && ran.error().contains("No space left"), "{what}");
        assert_eq!(boots::fault(&ran.machine), None, "{what}");
        judge_apply(&stage, &ran, &what);
    }
}
