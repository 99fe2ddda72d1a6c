//! Opens a source in a process of its own, which can be paused and killed.
//!
//! The process is this test program again, running the one "test" below.

#![expect(
    clippy::disallowed_methods,
    reason = "starting and killing the process is what is tested"
)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use va_upgrade::failure::{Class, class_of};
use va_upgrade::progress::{Note, Progress, Step};
use va_upgrade::signals;
use va_upgrade::source::{self, Reader, SourceOptions};
use va_upgrade::system::Host;

/// What the process saw.
#[derive(Debug, Default)]
pub struct Seen {
    /// Path to content; directories end in a slash, links start with "->".
    pub tree: BTreeMap<String, String>,
    pub notes: Vec<String>,
    pub steps: Vec<String>,
    /// The class is the number of the exit code.
    pub error: Option<(i32, String)>,
    pub closed: bool,
}

impl Seen {
    /// Returns the refusal; anything else is a failed test.
    pub fn refusal(&self) -> &str {
        match &self.error {
            Some((3, text)) => text,
            other => panic!("not refused: {other:?}, {:?}", self.tree),
        }
    }

    pub fn assert_opened(&self) {
        assert_eq!(self.error, None);
        assert!(self.closed);
    }

    pub fn paths(&self) -> Vec<&str> {
        self.tree.keys().map(String::as_str).collect()
    }
}

/// A process that opens a source.
pub struct Opener {
    child: Child,
    output: BufReader<ChildStdout>,
    temp: PathBuf,
    source: PathBuf,
    /// What it is told when it may go on.
    word: &'static str,
}

const SIGNALLED: &str = "signalled";

impl Opener {
    /// Starts one that stops at the step whose title starts with `pause`;
    /// "opened" is a step too, the last one.
    pub fn start(source: &Path, root: Option<&str>, pause: Option<&str>) -> Opener {
        Opener::start_with_tools(source, root, pause, None)
    }

    /// Like [`Opener::start`], with programs in `tools` before all others.
    pub fn start_with_tools(
        source: &Path,
        root: Option<&str>,
        pause: Option<&str>,
        tools: Option<&Path>,
    ) -> Opener {
        let wanted = [("VA_TEST_ROOT", root), ("VA_TEST_PAUSE", pause)];
        let settings: Vec<(&str, &str)> = wanted
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)))
            .collect();
        Opener::spawn(source, &settings, tools)
    }

    fn spawn(source: &Path, settings: &[(&str, &str)], tools: Option<&Path>) -> Opener {
        let temp = source.with_extension("tmpdir");
        fs::create_dir_all(&temp).unwrap();
        // As in the real program, no thread may be left that a signal ends at
        // once; the test runner's own main thread would be one.
        let mut command = Command::new("env");
        command
            .arg("--block-signal=INT,TERM,HUP")
            .arg(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "opener::the_process_that_opens"])
            .args(["--nocapture", "--test-threads=1"])
            .env("VA_TEST_SOURCE", source)
            .env("TMPDIR", &temp)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        for name in ["VA_TEST_ROOT", "VA_TEST_PAUSE", "VA_TEST_READER"] {
            command.env_remove(name);
        }
        command.envs(settings.iter().copied());
        if let Some(tools) = tools {
            let path = std::env::var("PATH").unwrap();
            command.env("PATH", format!("{}:{path}", tools.display()));
        }
        let mut child = command.spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Opener {
            child,
            output,
            temp,
            source: source.to_owned(),
            word: "",
        }
    }

    /// Starts one that lets no kernel of this machine look into the image, with programs
    /// in `tools` before all others.
    pub fn untrusting(source: &Path, tools: Option<&Path>) -> Opener {
        Opener::spawn(source, &[("VA_TEST_READER", "guest")], tools)
    }

    /// Returns the mounts that the process's threads have.
    pub fn mounts(&self) -> String {
        let threads = fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let mounts = threads.map(|thread| thread.unwrap().path().join("mounts"));
        mounts
            .filter_map(|mounts| fs::read_to_string(mounts).ok())
            .collect()
    }

    /// Waits until it has stopped at its step.
    pub fn wait_for_pause(&mut self) {
        let mut line = String::new();
        while self.output.read_line(&mut line).unwrap() > 0 {
            if line.starts_with("@paused") {
                return;
            }
            line.clear();
        }
        panic!("the process ended before its pause");
    }

    pub fn signal(&mut self, signal: &str) {
        self.word = SIGNALLED;
        super::disk::run("kill", &[signal, &self.child.id().to_string()]);
    }

    /// Lets it go on, and returns what it saw until its end.
    pub fn finish(mut self) -> Seen {
        // It may have been killed.
        drop(
            self.child
                .stdin
                .take()
                .unwrap()
                .write_all(format!("{}\n", self.word).as_bytes()),
        );
        let mut seen = Seen::default();
        for line in self.output.lines() {
            let line = line.unwrap();
            let Some((kind, value)) = line.strip_prefix('@').and_then(|l| l.split_once(' ')) else {
                continue;
            };
            match kind {
                "tree" => {
                    let (path, content): (String, String) = serde_json::from_str(value).unwrap();
                    seen.tree.insert(path, content);
                }
                "note" => seen.notes.push(value.into()),
                "step" => seen.steps.push(value.into()),
                "error" => seen.error = Some(serde_json::from_str(value).unwrap()),
                "closed" => seen.closed = true,
                _ => {}
            }
        }
        self.child.wait().unwrap();
        assert_nothing_left(&self.source, &self.temp);
        seen
    }
}

/// Opens a source, looks at it and closes it.
pub fn open(source: &Path, root: Option<&str>) -> Seen {
    Opener::start(source, root, None).finish()
}

/// Checks that no loop device uses the source or its temporary files any more,
/// and that no temporary file is there.
fn assert_nothing_left(source: &Path, temp: &Path) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let left = leftovers(source, temp);
        if left.is_empty() {
            break;
        }
        // A killed process's mounts are taken down a moment after it is gone.
        assert!(Instant::now() < deadline, "left behind: {left:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
    fs::remove_dir(temp).unwrap();
}

fn leftovers(source: &Path, temp: &Path) -> Vec<String> {
    let mut left: Vec<String> = fs::read_dir(temp)
        .unwrap()
        .map(|entry| format!("{:?}", entry.unwrap().path()))
        .collect();
    for device in fs::read_dir("/sys/block").unwrap() {
        let file = device.unwrap().path().join("loop/backing_file");
        let backing = fs::read_to_string(&file).unwrap_or_default();
        let backing = Path::new(backing.trim_end());
        if backing == source || backing.starts_with(temp) {
            left.push(format!("{file:?}: {backing:?}"));
        }
    }
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    left.extend(
        mounts
            .lines()
            .filter(|line| line.starts_with("va-upgrade "))
            .map(str::to_owned),
    );
    left
}

#[test]
#[ignore = "not a test of its own: other tests run it in a process"]
fn the_process_that_opens() {
    let Some(source) = std::env::var_os("VA_TEST_SOURCE").map(PathBuf::from) else {
        return;
    };
    let printer = Printer {
        pause: std::env::var("VA_TEST_PAUSE").ok(),
        output: Mutex::new(()),
    };
    // The test runner has begun a line.
    println!();
    signals::watch().unwrap();
    let host = Host::new(false);
    host.enter_private_mounts().unwrap();
    let options = SourceOptions {
        root: std::env::var("VA_TEST_ROOT").ok(),
        reader: match std::env::var_os("VA_TEST_READER") {
            Some(_) => Reader::Guest,
            None => Reader::Kernel,
        },
        ..SourceOptions::default()
    };
    let work = || -> anyhow::Result<()> {
        let opened = source::open(&host, &source, &options, &printer)?;
        printer.print_tree(opened.root(), opened.root());
        printer.enter("opened");
        signals::check()?;
        opened.close()?;
        println!("@closed .");
        Ok(())
    };
    if let Err(error) = work() {
        let class: Class = class_of(&error);
        let text = serde_json::to_string(&(class as i32, format!("{error:#}"))).unwrap();
        println!("@error {text}");
    }
}

struct Printer {
    pause: Option<String>,
    output: Mutex<()>,
}

impl Printer {
    fn print_tree(&self, root: &Path, dir: &Path) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path
                .strip_prefix(root)
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned();
            let meta = path.symlink_metadata().unwrap();
            let pair = if meta.is_dir() {
                (name + "/", String::new())
            } else if meta.is_symlink() {
                (
                    name,
                    format!("->{}", fs::read_link(&path).unwrap().display()),
                )
            } else {
                (name, fs::read_to_string(&path).unwrap())
            };
            println!("@tree {}", serde_json::to_string(&pair).unwrap());
            if meta.is_dir() {
                self.print_tree(root, &path);
            }
        }
    }
}

impl Printer {
    /// Says where the opener is, and waits there when told to.
    fn enter(&self, step: &str) {
        let _one = self.output.lock().unwrap();
        println!("@step {step}");
        if self
            .pause
            .as_ref()
            .is_some_and(|pause| step.starts_with(pause.as_str()))
        {
            println!("@paused {step}");
            let mut word = String::new();
            std::io::stdin().read_line(&mut word).unwrap();
            // A signal takes a moment to be noticed.
            while word.starts_with(SIGNALLED) && signals::check().is_ok() {
                std::thread::yield_now();
            }
        }
    }
}

impl Progress for Printer {
    fn start(&self, step: Step, _total_bytes: Option<u64>) {
        self.enter(&step.to_string());
    }

    fn advance(&self, _bytes: u64) {}

    fn finish(&self) {}

    fn tell(&self, note: Note) {
        println!("@note {note}");
    }
}
