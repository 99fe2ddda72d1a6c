//! Each change of a file fails in every flow: strace(1) has the kernel refuse the
//! call as on a full or dying disk, for once or from then on, or ends the process.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use va_upgrade::failure::Class;
use va_upgrade::slot::Slot;

use crate::apply::{self, assert_trial_is_whole, state};
use crate::lone::{Flow, Ran, Stage};
use crate::machine::Machine;
use crate::{boots, repair, rollback, stage};

/// The calls that change files, but for those that open one.
const CALLS: [&str; 19] = [
    "write",
    "pwrite64",
    "copy_file_range",
    "sendfile",
    "ftruncate",
    "fsync",
    "fdatasync",
    "?rename",
    "renameat",
    "?renameat2",
    "?mkdir",
    "mkdirat",
    "?symlink",
    "symlinkat",
    "?link",
    "linkat",
    "?unlink",
    "unlinkat",
    "?rmdir",
];

/// A call that changes a file of the machine.
#[derive(Clone, Debug)]
struct Change {
    name: String,
    path: String,
    /// Which of the thread's calls of this name for this file it is.
    number: usize,
    /// How many calls of each name the thread has made with it.
    counts: BTreeMap<String, usize>,
}

/// What becomes of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It fails for once.
    Once,
    /// It fails, and so does whatever else would change a file, as when the kernel
    /// makes a file system read-only.
    FromThenOn,
    /// The process is killed within it.
    Killed,
}

impl Change {
    /// Returns the words of strace(1) that bring it about.
    fn inject(&self, fate: Fate, log: &str) -> Vec<String> {
        let mut words = strace(log);
        let what = match fate {
            Fate::Once => format!("error={}", self.errno()),
            Fate::Killed => {
                // What is stopped by seccomp(2) takes no signal.
                words.retain(|word| word != "--seccomp-bpf");
                "signal=KILL".to_owned()
            }
            Fate::FromThenOn => {
                for call in CALLS {
                    let name = call.trim_start_matches('?');
                    let before = self.counts.get(name).copied().unwrap_or_default();
                    // The harness has written a few lines, in a thread of its own.
                    let least = if name == "write" { 6 } else { 1 };
                    let first = (before + usize::from(name != self.name)).max(least);
                    words.push("-e".to_owned());
                    words.push(format!("inject={call}:error=EROFS:when={first}+"));
                }
                return words;
            }
        };
        let inject = format!("inject={}:{what}:when={}", self.name, self.number);
        words.extend(["-P", &self.path, "-e", &inject].map(str::to_owned));
        words
    }

    fn errno(&self) -> &'static str {
        match self.name.as_str() {
            "write" | "copy_file_range" | "openat" | "mkdir" | "mkdirat" => "ENOSPC",
            _ => "EIO",
        }
    }
}

/// Returns the words of strace(1) that write each such call to `log`.
fn strace(log: &str) -> Vec<String> {
    let trace = format!("trace=openat,{}", CALLS.join(","));
    let words = [
        "strace",
        "-f",
        "--seccomp-bpf",
        "-y",
        "-s0",
        "-o",
        log,
        "-e",
        &trace,
    ];
    words.map(str::to_owned).to_vec()
}

/// The calls in a log of strace: the thread, the name of the call, and the rest.
fn calls(log: &str) -> Vec<[String; 3]> {
    let text = fs::read_to_string(log).unwrap();
    let parse = |line: &str| {
        let (thread, call) = line.split_once(' ')?;
        let (name, rest) = call.trim_start().split_once('(')?;
        Some([thread, name, rest].map(str::to_owned))
    };
    text.lines().filter_map(parse).collect()
}

/// Returns the paths below `root` that strace shows in a call.
fn paths<'a>(call: &'a str, root: &str) -> Vec<&'a str> {
    // What it returned stands behind.
    let call = call.rsplit_once(") = ").map_or(call, |(call, _)| call);
    let words = call.split(['<', '>', '"']);
    words.filter(|word| word.starts_with(root)).collect()
}

/// Returns the changes that the flow makes.
fn changes(stage: &Stage, log: &str, fate: Fate) -> Vec<Change> {
    let ran = stage.run(&strace(log), None);
    assert_eq!(ran.outcome, Some(Ok(())), "{}", ran.words);
    let root = ran.machine.at("/").to_str().unwrap().to_owned();
    let calls = calls(log);
    let is_ours = |call: &&[String; 3]| !paths(&call[2], &root).is_empty();
    let flow_thread = calls.iter().find(is_ours).unwrap()[0].clone();
    let mut totals: BTreeMap<String, BTreeMap<String, usize>> = BTreeMap::new();
    let mut by_path: BTreeMap<[String; 3], usize> = BTreeMap::new();
    let mut found = Vec::new();
    for [thread, name, rest] in &calls {
        let counts = totals.entry(thread.clone()).or_default();
        *counts.entry(name.clone()).or_default() += 1;
        let paths: BTreeSet<&str> = paths(rest, &root).into_iter().collect();
        for path in &paths {
            *by_path
                .entry([thread.clone(), name.clone(), (*path).to_owned()])
                .or_default() += 1;
        }
        let Some(path) = paths.last().map(|path| (*path).to_owned()) else {
            continue;
        };
        let is_change = name != "openat" || rest.contains("O_CREAT");
        // The programs of the fake machine have failures of their own.
        let is_theirs = ["/grub/i386-pc", "/.va-upgrade-saved/", "/devices/"]
            .iter()
            .any(|theirs| rest.contains(theirs))
            || [
                "/run/va-upgrade/slot",
                "/run/va-upgrade/other",
                "/grub",
                "/grub-1",
                "/grub-2",
            ]
            .iter()
            .any(|theirs| path.ends_with(theirs));
        // Counted is in the thread of the flow.
        let is_counted = match fate {
            Fate::FromThenOn => *thread == flow_thread && name != "openat",
            _ => true,
        };
        if is_change && !is_theirs && is_counted {
            let number = by_path[&[thread.clone(), name.clone(), path.clone()]];
            let counts = counts.clone();
            found.push(Change {
                name: name.clone(),
                path,
                number,
                counts,
            });
        }
    }
    found
}

/// Returns the call that was made to fail, or within which the process ended.
fn hit(log: &str) -> String {
    let text = fs::read_to_string(log).unwrap();
    let is_hit = |line: &&str| line.contains("(INJECTED)") || line.contains("killed by");
    text.lines().find(is_hit).unwrap_or_default().to_owned()
}

/// Tells whether the error names a file of the call that failed, by its last name.
fn names_culprit(ran: &Ran, hit: &str) -> bool {
    let root = ran.machine.at("/");
    paths(hit, root.to_str().unwrap()).into_iter().any(|path| {
        let name = path.rsplit('/').next().unwrap();
        ran.error().contains(name.trim_end_matches(".new"))
    })
}

/// Runs a flow with each of its changes failing, one at a time.
fn walk(flow: Flow, fate: Fate, judge: fn(&Stage, &Ran, &str)) {
    let stage = Stage::new(flow);
    let log = tempfile::NamedTempFile::new().unwrap();
    let log = log.path().to_str().unwrap();
    let found = changes(&stage, log, fate);
    assert!(found.len() > 10, "{found:?}");
    // Without seccomp(2), strace takes long.
    let is_long = fate == Fate::Killed && std::env::var_os("VA_UPGRADE_ALL").is_none();
    let stride = if is_long { found.len().div_ceil(25) } else { 1 };
    for change in found.into_iter().step_by(stride) {
        let ran = stage.run(&change.inject(fate, log), None);
        let hit = hit(log);
        let what = format!("{flow:?} {fate:?} {change:?}: {hit}\n{}", ran.words);
        let is_hit = !hit.is_empty() || ran.outcome.is_none();
        assert!(is_hit || fate == Fate::FromThenOn, "nothing failed: {what}");
        // What a repair starts from is the GRUB of another.
        let is_as_before = ran.machine.boot_area() == stage.before().boot_area();
        if flow != Flow::Repair || !is_as_before {
            assert_eq!(boots::fault(&ran.machine), None, "{what}");
        }
        judge(&stage, &ran, &what);
        if fate == Fate::Once && ran.outcome != Some(Ok(())) {
            assert!(names_culprit(&ran, &hit), "not named: {what}");
        }
    }
}

/// A failed `apply` has changed nothing, or only the slot it was to write.
pub fn judge_apply(stage: &Stage, ran: &Ran, what: &str) {
    let (before, after) = (stage.before(), &ran.machine);
    match ran.outcome {
        Some(Ok(())) => {
            let target = if stage.flow == Flow::FirstApply {
                Slot::Back
            } else {
                Slot::Root
            };
            assert_trial_is_whole(after, target, what);
        }
        Some(Err(Class::Undone | Class::Unexpected | Class::Refused)) => {
            assert!(after.boot_area() == before.boot_area(), "{what}");
            let paths: &[&str] = match stage.flow {
                Flow::FirstApply => &["/boot"],
                _ => &["/boot/va/back", "/boot/va/grub-1", "/boot/grub"],
            };
            for path in paths {
                let relative = |machine: &Machine| {
                    let found = machine.snapshot(path).into_iter();
                    let root = machine.at("/");
                    found
                        .map(|(path, content)| {
                            (path.strip_prefix(&root).unwrap().to_owned(), content)
                        })
                        .collect::<BTreeMap<_, _>>()
                };
                assert!(relative(before) == relative(after), "{path}: {what}");
            }
            assert_eq!(
                state(after).map(|state| state.next()),
                state(before).map(|state| state.next()),
                "{what}"
            );
        }
        other => panic!("{other:?}: {what}"),
    }
}

/// A flow of one write to the boot state: it counts, or that of before does.
pub fn judge_state(stage: &Stage, ran: &Ran, what: &str) {
    let decided = |machine| {
        state(machine).map(|state| match stage.flow {
            Flow::Activate | Flow::Discard => state.next(),
            _ => state.committed(),
        })
    };
    let before = decided(stage.before());
    match (stage.flow, ran.outcome) {
        (Flow::Repair, _) => assert_eq!(decided(&ran.machine), before, "{what}"),
        (_, Some(Ok(()))) => assert_ne!(decided(&ran.machine), before, "{what}"),
        (_, Some(Err(Class::Unexpected | Class::Refused | Class::Undone))) => {
            assert_eq!(decided(&ran.machine), before, "{what}");
        }
        other => panic!("{other:?}: {what}"),
    }
}

/// Whatever a flow was stopped by, it can be done once the disk is well again.
fn judge_resumable(stage: &Stage, ran: &Ran, what: &str) {
    if stage.flow == Flow::Repair {
        ran.machine.be_damaged();
    }
    let again = match stage.flow {
        Flow::FirstApply | Flow::LaterApply => apply::run(&ran.machine, &stage.bundle).map(drop),
        Flow::Repair => repair::run(&ran.machine).map(drop),
        Flow::AfterBoot | Flow::Confirm => ran.machine.confirm().map(drop),
        Flow::Activate => stage::activate(&ran.machine).map(drop),
        Flow::Discard => stage::discard(&ran.machine).map(drop),
        Flow::Rollback => {
            let next = state(&ran.machine).map(|state| state.next());
            let is_done = next != state(stage.before()).map(|state| state.next());
            if is_done {
                Ok(())
            } else {
                rollback::run(&ran.machine).map(drop)
            }
        }
    };
    if let Err(error) = again {
        panic!("the next try fails: {error:#}\nafter {what}");
    }
    assert_eq!(boots::fault(&ran.machine), None, "{what}");
}

#[test]
fn a_change_of_a_file_that_fails_leaves_what_is_no_apply_done_or_undone() {
    let is_apply = |flow: &Flow| matches!(flow, Flow::FirstApply | Flow::LaterApply);
    for flow in Flow::ALL.into_iter().filter(|flow| !is_apply(flow)) {
        walk(flow, Fate::Once, judge_state);
    }
}

#[test]
fn a_process_that_is_killed_at_any_change_of_a_file_leaves_a_machine_to_go_on_with() {
    for flow in Flow::ALL {
        walk(flow, Fate::Killed, judge_resumable);
    }
}

#[test]
fn a_disk_that_becomes_read_only_at_any_change_leaves_a_machine_to_go_on_with() {
    for flow in Flow::ALL {
        walk(flow, Fate::FromThenOn, judge_resumable);
    }
}

#[test]
fn a_change_of_a_file_that_fails_undoes_an_apply() {
    for flow in [Flow::FirstApply, Flow::LaterApply] {
        walk(flow, Fate::Once, judge_apply);
    }
}
