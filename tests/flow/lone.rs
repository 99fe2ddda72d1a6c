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
use crate::incident::Incident;
use crate::machine::{Machine, scratch};
use crate::release::make_bundle;
use crate::{apply, repair, rollback, stage};

/// What the process is told, by environment variables.
pub const FLOW: &str = "VA_UPGRADE_TEST_FLOW";
const MACHINE: &str = "VA_UPGRADE_TEST_MACHINE";
const BUNDLE: &str = "VA_UPGRADE_TEST_BUNDLE";
const INCIDENT: &str = "VA_UPGRADE_TEST_INCIDENT";
const WORDS: &str = "VA_UPGRADE_TEST_WORDS";

/// Added to the class of an error, so that its number is told from what the test
/// harness ends with.
const STATUS: i32 = 40;

/// The flows that change what boots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    FirstApply,
    LaterApply,
    Activate,
    Discard,
    AfterBoot,
    Confirm,
    Rollback,
    Repair,
}

impl Flow {
    pub const ALL: [Flow; 8] = [
        Flow::FirstApply,
        Flow::LaterApply,
        Flow::Activate,
        Flow::Discard,
        Flow::AfterBoot,
        Flow::Confirm,
        Flow::Rollback,
        Flow::Repair,
    ];

    /// Makes the machine that the flow starts on.
    fn prepare(self, bundles: &Path) -> Machine {
        match self {
            Flow::FirstApply => Machine::fresh(),
            Flow::Activate => {
                let machine = Machine::fresh();
                stage::write_only(&machine, &make_bundle(bundles, "9.4.1")).unwrap();
                machine
            }
            Flow::Discard => armed(bundles),
            Flow::AfterBoot | Flow::Confirm => {
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
            Flow::Activate => stage::activate(machine).map(drop),
            Flow::Discard => stage::discard(machine).map(|dropped| assert!(dropped.is_some())),
            Flow::Confirm => machine.confirm().map(|is_new| assert!(is_new)),
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

    /// Returns where the machine of each run is.
    pub fn place(&self) -> PathBuf {
        self.scratch.path().join("machine")
    }

    /// Runs the flow on a copy of the machine, below the words of another program;
    /// something comes within the call of the given number.
    pub fn run(&self, below: &[String], incident: Option<(usize, Incident)>) -> Ran {
        let root = self.place();
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
        let incident = incident.map(|(step, incident)| format!("{step} {incident}"));
        let told = self.scratch.path().join("words");
        let _ = fs::remove_file(&told);
        let output = Command::new(words[0])
            .args(&words[1..])
            .env(FLOW, format!("{:?}", self.flow))
            .env(MACHINE, &root)
            .env(BUNDLE, &self.bundle)
            .env(INCIDENT, incident.unwrap_or_default())
            .env(WORDS, &told)
            .output()
            .unwrap();
        let told = fs::read_to_string(told).unwrap_or_default();
        Ran::new(Machine::found(&root), &output, &told)
    }
}

/// How a flow ended, and what it left.
pub struct Ran {
    pub machine: Machine,
    /// `None` for a flow that was killed.
    pub outcome: Option<Result<(), Class>>,
    /// Whether the incident came before the flow was over.
    pub is_met: bool,
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

    fn new(machine: Machine, output: &Output, told: &str) -> Ran {
        lose_mounts(&machine);
        let words = [&output.stdout, &output.stderr].map(|out| String::from_utf8_lossy(out));
        let words = words.concat() + told;
        let outcome = match output.status {
            status if status.signal() == Some(Signal::SIGKILL as i32) => None,
            status => Some(outcome_of(status, &words)),
        };
        Ran {
            machine,
            outcome,
            is_met: outcome.is_none() || told.contains("\nmet\n"),
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
    if let Some((step, incident)) = env::var(INCIDENT).unwrap().split_once(' ') {
        machine.meet_at(step.parse().unwrap(), incident.parse().unwrap());
    }
    let outcome = flow.run(&machine, Path::new(&env::var(BUNDLE).unwrap()));
    let met = if machine.has_met() { "met" } else { "" };
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
    // The outputs may have no reader, and a test may have files fail.
    let told = format!("{log}\n{met}\n{error}");
    let _ = fs::write(env::var(WORDS).unwrap(), told);
    std::process::exit(status);
}
