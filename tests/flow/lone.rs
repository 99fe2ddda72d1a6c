//! A flow in a process of its own: this executable once more, whose system calls
//! and signals the caller chooses.

use std::env;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output};

use anyhow::Result;
use nix::sys::signal::Signal;
use va_upgrade::failure::{Class, class_of};
use va_upgrade::signals;
use va_upgrade::upgrade::trial::{Outcome, after_boot};

use crate::apply::armed;
use crate::machine::{Machine, scratch};
use crate::release::make_bundle;
use crate::{apply, repair, rollback};

/// What the process is told, by environment variables.
const FLOW: &str = "VA_UPGRADE_TEST_FLOW";
const MACHINE: &str = "VA_UPGRADE_TEST_MACHINE";
const BUNDLE: &str = "VA_UPGRADE_TEST_BUNDLE";
const SIGNAL: &str = "VA_UPGRADE_TEST_SIGNAL";

/// Added to the class of an error, so that its number is told from what the test
/// harness ends with.
const STATUS: i32 = 40;

/// The flows that change what boots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    FirstApply,
    LaterApply,
    AfterBoot,
    Rollback,
    Repair,
}

impl Flow {
    pub const ALL: [Flow; 5] = [
        Flow::FirstApply,
        Flow::LaterApply,
        Flow::AfterBoot,
        Flow::Rollback,
        Flow::Repair,
    ];

    /// Makes the machine that the flow starts on.
    fn prepare(self, bundles: &Path) -> Machine {
        match self {
            Flow::FirstApply => Machine::fresh(),
            Flow::AfterBoot => {
                let machine = armed(bundles);
                machine.boot("back", "trial");
                machine
            }
            Flow::LaterApply | Flow::Rollback => rollback::upgrade(bundles),
            Flow::Repair => {
                let machine = rollback::upgrade(bundles);
                machine.install_foreign_grub();
                machine.write("/boot/va/env2", "cut short");
                machine
            }
        }
    }

    fn run(self, machine: &Machine, bundle: &Path) -> Result<()> {
        match self {
            Flow::FirstApply | Flow::LaterApply => apply::run(machine, bundle).map(drop),
            Flow::AfterBoot => {
                let outcome = machine.with_appliance(after_boot)?;
                assert!(matches!(outcome, Outcome::Confirmed(_)), "{outcome:?}");
                Ok(())
            }
            Flow::Rollback => rollback::run(machine).map(drop),
            Flow::Repair => repair::run(machine).map(drop),
        }
    }
}

/// A flow and what it starts on, copied for each of its runs.
pub struct Stage {
    pub flow: Flow,
    scratch: tempfile::TempDir,
    machine: Machine,
    /// What an `apply` is given.
    pub bundle: PathBuf,
}

impl Stage {
    pub fn new(flow: Flow) -> Stage {
        let scratch = scratch();
        let machine = flow.prepare(scratch.path());
        let bundle = make_bundle(scratch.path(), "9.5.0");
        Stage {
            flow,
            scratch,
            machine,
            bundle,
        }
    }

    /// Returns the machine as it is before each run.
    pub fn before(&self) -> &Machine {
        &self.machine
    }

    /// Runs the flow on a copy of the machine, below the words of another program;
    /// a signal comes within the call of the given number.
    pub fn run(&self, below: &[String], signal: Option<(usize, Signal)>) -> Ran {
        let root = self.scratch.path().join("machine");
        let _ = fs::remove_dir_all(&root);
        let mut copy = Command::new("cp");
        let copied = copy
            .args(["-a", "--"])
            .arg(self.machine.at("/"))
            .arg(&root)
            .status();
        assert!(copied.unwrap().success());
        let program = env::current_exe().unwrap();
        let mut words = below.iter().map(String::as_str).collect::<Vec<_>>();
        words.push(program.to_str().unwrap());
        words.extend([
            "--exact",
            "lone::a_flow_runs_alone",
            "--ignored",
            "--nocapture",
            "--test-threads=1",
        ]);
        let signal = signal.map(|(step, signal)| format!("{step} {signal}"));
        let output = Command::new(words[0])
            .args(&words[1..])
            .env(FLOW, format!("{:?}", self.flow))
            .env(MACHINE, &root)
            .env(BUNDLE, &self.bundle)
            .env(SIGNAL, signal.unwrap_or_default())
            .output()
            .unwrap();
        Ran::new(Machine::found(&root), &output)
    }
}

/// How a flow ended, and what it left.
pub struct Ran {
    pub machine: Machine,
    /// `None` for a flow that was killed.
    pub outcome: Option<Result<(), Class>>,
    /// Whether the signal came before the flow was over.
    pub is_signalled: bool,
    /// What the flow said, with its calls of the machine.
    pub words: String,
}

impl Ran {
    /// Returns the error it ended with; empty for none.
    pub fn error(&self) -> &str {
        self.words
            .split_once("\nerror: ")
            .map_or("", |(_, error)| error)
    }

    fn new(machine: Machine, output: &Output) -> Ran {
        lose_mounts(&machine);
        let words = [&output.stdout, &output.stderr].map(|out| String::from_utf8_lossy(out));
        let words = words.concat();
        let outcome = match output.status {
            status if status.signal() == Some(Signal::SIGKILL as i32) => None,
            status => Some(outcome_of(status, &words)),
        };
        Ran {
            machine,
            outcome,
            is_signalled: outcome.is_none() || words.contains("signalled"),
            words,
        }
    }
}

/// Undoes the mounts of a process that was killed, as the kernel does.
fn lose_mounts(machine: &Machine) {
    for volume in ["/devices/VA-back", "/devices/VA-root"].map(|path| machine.at(path)) {
        let is_away = !volume.exists();
        let points = ["/run/va-upgrade/slot", "/run/va-upgrade/other"];
        match points
            .map(|path| machine.at(path))
            .iter()
            .find(|p| p.exists())
        {
            Some(point) if is_away => fs::rename(point, &volume).unwrap(),
            _ => fs::create_dir_all(&volume).unwrap(),
        }
    }
}

fn outcome_of(status: ExitStatus, words: &str) -> Result<(), Class> {
    let class = [
        Class::Unexpected,
        Class::Refused,
        Class::BadBundle,
        Class::Undone,
        Class::Locked,
        Class::Stuck,
    ];
    match status.code() {
        Some(STATUS) => Ok(()),
        code => Err(class
            .into_iter()
            .find(|class| code == Some(STATUS + *class as i32))
            .unwrap_or_else(|| panic!("{status}: {words}"))),
    }
}

#[test]
#[ignore = "other tests run it, in a process of its own"]
#[expect(clippy::disallowed_methods, reason = "its status is the flow's")]
fn a_flow_runs_alone() {
    let Ok(name) = env::var(FLOW) else { return };
    signals::watch().unwrap();
    let named = |flow: &Flow| format!("{flow:?}") == name;
    let flow = Flow::ALL.into_iter().find(named).unwrap();
    let machine = Machine::found(Path::new(&env::var(MACHINE).unwrap()));
    if flow == Flow::Repair {
        machine.be_damaged();
    }
    if let Some((step, signal)) = env::var(SIGNAL).unwrap().split_once(' ') {
        machine.signal_at(step.parse().unwrap(), signal.parse().unwrap());
    }
    let outcome = flow.run(&machine, Path::new(&env::var(BUNDLE).unwrap()));
    let signalled = if signals::check().is_err() {
        "signalled"
    } else {
        ""
    };
    let log = machine.log();
    let mut status = STATUS;
    let error = match outcome {
        Ok(()) => String::new(),
        Err(error) => {
            status += class_of(&error) as i32;
            format!("error: {error:#}")
        }
    };
    assert!(
        machine.mounts().is_empty(),
        "{log}\n{error}\na mount is left"
    );
    if let Err(error) = machine.with_appliance(|appliance| appliance.lock()) {
        assert_ne!(class_of(&error), Class::Locked, "the lock is left");
    }
    // Unlike `println!`, this fails nothing where there is no reader.
    va_upgrade::stderr::say(&format!("{log}\n{signalled}\n{error}"));
    std::process::exit(status);
}
