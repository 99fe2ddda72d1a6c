//! Signals within every step of every flow, and others at work at the same time.

use nix::sys::signal::Signal;
use va_upgrade::failure::{Class, class_of};
use va_upgrade::system::Lock;

use crate::apply::{self, armed};
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
        let stage = Stage::new(flow);
        let mut is_stopped = false;
        for step in 0.. {
            let signal = signals[step % signals.len()];
            let ran = stage.run(&below, Some((step, signal)));
            if !ran.is_signalled {
                break;
            }
            let what = format!("{flow:?}, {signal} in step {step}: {}", ran.words);
            if flow != Flow::Repair {
                assert_eq!(boots::fault(&ran.machine), None, "{what}");
            }
            match flow {
                Flow::FirstApply | Flow::LaterApply => judge_apply(&stage, &ran, &what),
                _ => judge_state(&stage, &ran, &what),
            }
            is_stopped |= ran.error().contains("interrupted by a signal");
        }
        let is_long = matches!(flow, Flow::FirstApply | Flow::LaterApply);
        assert_eq!(is_stopped, is_long, "{flow:?}");
    }
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
