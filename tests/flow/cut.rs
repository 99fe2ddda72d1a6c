//! Signals and closed terminals within every step of every flow, and others at work at the same time.

use nix::sys::signal::Signal;
use va_upgrade::failure::{Class, class_of};
use va_upgrade::system::Lock;

use crate::apply::{self, armed};
use crate::incident::Incident;
use crate::lone::{Flow, Stage};
use crate::machine::scratch;
use crate::release::make_bundle;
use crate::writes::{judge_apply, judge_state};
use crate::{boots, rollback};

#[test]
fn a_signal_within_any_step_leaves_a_flow_done_or_undone() {
    // The test harness has a thread of its own, which must not take them.
    let below = ["env", "--block-signal=INT,TERM,HUP"].map(str::to_owned);
    let signals = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];
    for flow in Flow::ALL {
        let is_stopped = meet_at_each_step(flow, &below, &signals.map(Incident::Signal));
        let is_long = matches!(flow, Flow::FirstApply | Flow::LaterApply);
        assert_eq!(is_stopped, is_long, "{flow:?}");
    }
}

#[test]
fn a_terminal_that_is_closed_within_any_step_leaves_a_flow_done_or_undone() {
    let below = ["env", "--block-signal=INT,TERM,HUP"].map(str::to_owned);
    for flow in Flow::ALL {
        let is_stopped = meet_at_each_step(flow, &below, &[Incident::Hangup]);
        let is_long = matches!(flow, Flow::FirstApply | Flow::LaterApply);
        assert_eq!(is_stopped, is_long, "{flow:?}");
    }
}

#[test]
fn outputs_that_nobody_reads_any_more_end_no_flow() {
    for flow in Flow::ALL {
        assert!(!meet_at_each_step(flow, &[], &[Incident::Unread]));
    }
}

/// Runs a flow once for each of its steps, with one of `incidents` coming within it;
/// tells whether any of these runs was stopped by a signal.
fn meet_at_each_step(flow: Flow, below: &[String], incidents: &[Incident]) -> bool {
    let stage = Stage::new(flow);
    let mut is_stopped = false;
    for step in 0.. {
        let incident = incidents[step % incidents.len()];
        let ran = stage.run(below, Some((step, incident)));
        if !ran.is_met {
            break;
        }
        let what = format!("{flow:?}, {incident} in step {step}: {}", ran.words);
        if flow != Flow::Repair {
            assert_eq!(boots::fault(&ran.machine), None, "{what}");
        }
        match flow {
            Flow::FirstApply | Flow::LaterApply => judge_apply(&stage, &ran, &what),
            _ => judge_state(&stage, &ran, &what),
        }
        if incident == Incident::Unread {
            assert_eq!(ran.outcome, Some(Ok(())), "{what}");
        }
        is_stopped |= ran.error().contains("interrupted by a signal");
    }
    is_stopped
}

#[test]
fn a_second_one_at_work_is_told_and_changes_nothing() {
    let dir = scratch();
    let machine = armed(dir.path());
    machine.boot("back", "trial");
    let bundle = make_bundle(dir.path(), "9.5.0");
    let before = (machine.snapshot("/boot"), machine.boot_area());
    let lock = Lock::take(&machine.at("/run/va-upgrade.lock")).unwrap();
    let errors = [
        apply::run(&machine, &bundle).map(drop),
        rollback::run(&machine).map(drop),
        machine.confirm().map(drop),
    ];
    for error in errors.map(Result::unwrap_err) {
        assert_eq!(class_of(&error), Class::Locked, "{error:#}");
    }
    assert!((machine.snapshot("/boot"), machine.boot_area()) == before);
    drop(lock);
    assert!(machine.confirm().unwrap());
}
