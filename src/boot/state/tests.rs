use super::*;
use crate::slot::Slot;
use crate::system::Lock;

fn lock(dir: &std::path::Path) -> Lock {
    Lock::take(&dir.join("lock")).unwrap()
}

/// Saves `state`, all of it.
fn save(state: &State, dir: &std::path::Path) {
    state.save(dir, &lock(dir)).unwrap().rest.unwrap();
}

fn on_trial() -> State {
    let mut state = State::adopt(Slot::Root);
    state.start_writing(Slot::Back).unwrap();
    state.finish_writing(Slot::Back).unwrap();
    state.start_trial(Slot::Back, 3).unwrap();
    state
}

fn variable(block: &[u8], name: &str, value: &str) -> Vec<u8> {
    let variables = grubenv::parse(block).unwrap();
    let changed: Vec<(&str, String)> = variables
        .iter()
        .map(|(n, v)| {
            (
                n.as_str(),
                if n == name {
                    value.to_owned()
                } else {
                    v.clone()
                },
            )
        })
        .collect();
    grubenv::render(&changed).unwrap().to_vec()
}

#[test]
fn every_state_reads_back_as_saved() {
    let mut failed = on_trial();
    failed.fail_trial(Reason::Nowrite).unwrap();
    let mut noted = on_trial();
    noted.note_reason(Reason::Health).unwrap();
    let mut confirmed = on_trial();
    confirmed.confirm().unwrap();
    let mut drilled = on_trial();
    drilled.cancel_trial().unwrap();
    drilled.start_drill(Slot::Back).unwrap();
    let mut given_up = drilled.clone();
    given_up.note_reason(Reason::Drill).unwrap();
    let mut over = given_up.clone();
    over.fail_trial(Reason::Nowrite).unwrap();
    let mut settled = over.clone();
    assert!(settled.end_drill().is_some());
    for state in [
        State::adopt(Slot::Back),
        on_trial(),
        drilled,
        given_up,
        over,
        settled,
        failed,
        noted,
        confirmed,
    ] {
        let dir = tempfile::tempdir().unwrap();
        save(&state, dir.path());
        assert_eq!(State::load(dir.path()).unwrap(), Some(state));
    }
}

#[test]
fn a_trial_goes_from_writing_to_committed_and_keeps_the_old_slot_good() {
    let mut state = on_trial();
    assert_eq!(state.next(), Slot::Back);
    assert_eq!(state.committed(), Slot::Root);
    state.confirm().unwrap();
    assert_eq!(state.phase(Slot::Back), Phase::Committed);
    assert_eq!(state.phase(Slot::Root), Phase::Good);
    state.commit(Slot::Root).unwrap();
    assert_eq!(state.phase(Slot::Back), Phase::Good);
    state.commit(Slot::Back).unwrap();
    assert_eq!(state.next(), Slot::Back);
}

#[test]
fn what_grub_writes_when_tries_run_out_is_a_failed_trial() {
    let mut block = on_trial().render().unwrap().to_vec();
    for (name, value) in [
        ("va_trial", ""),
        ("va_left", "0"),
        ("va_failed", "back"),
        ("va_why", "exhausted"),
    ] {
        block = variable(&block, name, value);
    }
    let state = State::parse(&block).unwrap();
    assert_eq!(state.failed(), Some((Slot::Back, Reason::Exhausted)));
    assert_eq!(state.phase(Slot::Back), Phase::Failed);
    assert_eq!(state.next(), Slot::Root);
    let noted = State::parse(&variable(&block, "va_note", "health")).unwrap();
    assert_eq!(noted.failed(), Some((Slot::Back, Reason::Health)));
}

#[test]
fn a_damaged_first_copy_gives_way_to_the_second_and_is_repaired() {
    let dir = tempfile::tempdir().unwrap();
    let state = on_trial();
    save(&state, dir.path());
    std::fs::write(dir.path().join("env1"), [0; 1024]).unwrap();
    assert_eq!(State::load(dir.path()).unwrap().as_ref(), Some(&state));
    assert!(!state.is_whole(dir.path()));
    save(&state, dir.path());
    assert!(state.is_whole(dir.path()));
    std::fs::write(dir.path().join("env1"), b"").unwrap();
    std::fs::write(dir.path().join("env2"), b"").unwrap();
    assert!(State::load(dir.path()).is_err());
}

#[test]
fn a_copy_cut_short_while_it_was_first_made_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("env2"), b"").unwrap();
    let state = on_trial();
    save(&state, dir.path());
    assert_eq!(State::load(dir.path()).unwrap(), Some(state));
    assert_eq!(
        std::fs::metadata(dir.path().join("env2")).unwrap().len(),
        1024
    );
}

#[test]
fn a_wrong_order_says_what_the_slot_is() {
    let mut state = on_trial();
    let error = state.start_writing(Slot::Back).unwrap_err();
    assert_eq!(
        error.to_string(),
        "slot back is trial; it cannot be overwritten"
    );
    assert!(state.start_writing(Slot::Root).is_err());
    assert!(State::adopt(Slot::Root).start_trial(Slot::Back, 3).is_err());
    assert!(State::adopt(Slot::Root).commit(Slot::Back).is_err());
    assert!(State::adopt(Slot::Root).confirm().is_err());
}

#[test]
fn a_failed_slot_can_be_written_again() {
    let mut state = on_trial();
    state.fail_trial(Reason::Deadline).unwrap();
    assert!(state.commit(Slot::Back).is_err());
    state.start_writing(Slot::Back).unwrap();
    assert_eq!(state.phase(Slot::Back), Phase::Writing);
    state.finish_writing(Slot::Back).unwrap();
    assert_eq!(state.failed(), None);
    assert_eq!(state.phase(Slot::Back), Phase::Ready);
}

#[test]
fn a_failed_trial_is_remembered_until_the_slot_holds_another_system() {
    let mut state = on_trial();
    state.fail_trial(Reason::Health).unwrap();
    state.start_writing(Slot::Back).unwrap();
    state.clear(Slot::Back).unwrap();
    assert_eq!(state.failed(), Some((Slot::Back, Reason::Health)));
    assert_eq!(state.phase(Slot::Back), Phase::Empty);
    let read = State::parse(&state.render().unwrap()).unwrap();
    assert_eq!(read, state);
}

#[test]
fn a_slot_of_a_lost_state_is_failed_not_empty() {
    let mut state = State::adopt(Slot::Root);
    state.fail(Slot::Back, Reason::Noenv);
    assert_eq!(state.phase(Slot::Back), Phase::Failed);
}

#[test]
fn a_deadline_says_less_than_a_failed_health_check() {
    let noted = |reasons: &[Reason]| {
        let mut state = on_trial();
        for reason in reasons {
            state.note_reason(*reason).unwrap();
        }
        state.note
    };
    assert_eq!(
        noted(&[Reason::Health, Reason::Deadline]),
        Some(Reason::Health)
    );
    assert_eq!(
        noted(&[Reason::Deadline, Reason::Health]),
        Some(Reason::Health)
    );
    assert_eq!(noted(&[Reason::Deadline]), Some(Reason::Deadline));
}

#[test]
fn a_default_that_names_another_slot_is_not_whole() {
    let dir = tempfile::tempdir().unwrap();
    let state = on_trial();
    save(&state, dir.path());
    let default = dir.path().join("default.cfg");
    std::fs::write(&default, "set va_slot=back\n").unwrap();
    assert!(!state.is_whole(dir.path()));
    save(&state, dir.path());
    assert!(state.is_whole(dir.path()));
    assert_eq!(std::fs::read(&default).unwrap(), b"set va_slot=root\n");
}

#[test]
fn what_fails_behind_the_copy_that_the_menu_believes_undoes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let mut state = on_trial();
    save(&state, dir.path());
    std::fs::remove_file(at("default.cfg")).unwrap();
    std::fs::create_dir(at("default.cfg")).unwrap();
    state.confirm().unwrap();
    let saved = state.save(dir.path(), &lock(dir.path())).unwrap();
    assert!(saved.is_committed && saved.rest.is_err());
    assert_eq!(State::load(dir.path()).unwrap().as_ref(), Some(&state));

    // The menu does not believe a first copy that is damaged.
    std::fs::remove_file(at("env1")).unwrap();
    std::fs::create_dir(at("env1")).unwrap();
    state.commit(Slot::Root).unwrap();
    let saved = state.save(dir.path(), &lock(dir.path())).unwrap();
    assert!(saved.is_committed && saved.rest.is_err());
    assert_eq!(State::load(dir.path()).unwrap().as_ref(), Some(&state));

    // What is made anew counts once it is flushed.
    let empty = tempfile::tempdir().unwrap();
    let saved = state.save(empty.path(), &lock(empty.path())).unwrap();
    assert!(!saved.is_committed && saved.needs_flush && saved.rest.is_ok());
}

#[test]
fn a_kernel_on_trial_leaves_its_slot_committed_and_ends_with_its_time_there() {
    let mut state = on_trial();
    assert!(state.start_kernel_trial(3).is_err());
    state.confirm().unwrap();
    state.start_kernel_trial(3).unwrap();
    assert_eq!((state.trial(), state.next()), (None, Slot::Back));
    assert_eq!(state.kernel_trial().unwrap().tries_left, 3);
    assert_eq!(state.phase(Slot::Back), Phase::Committed);
    assert!(state.cancel_trial().is_err());

    let mut failed = state.clone();
    failed.note_reason(Reason::Health).unwrap();
    failed.fail_trial(Reason::Exhausted).unwrap();
    assert_eq!(failed.kernel_failed(), Some(Reason::Exhausted));
    assert_eq!((failed.failed(), failed.kernel_trial()), (None, None));
    for mut state in [state.clone(), failed] {
        state.commit(Slot::Root).unwrap();
        assert_eq!(
            (state.trial(), state.failed(), state.phase(Slot::Back)),
            (None, None, Phase::Good)
        );
    }
    state.confirm().unwrap();
    assert_eq!(
        (state.committed(), state.kernel_trial()),
        (Slot::Back, None)
    );
    assert_eq!(state.phase(Slot::Root), Phase::Good);
}

#[test]
fn a_slot_that_failed_is_still_failed_after_the_trial_of_a_kernel() {
    let mut state = on_trial();
    state.fail_trial(Reason::Health).unwrap();
    state.start_kernel_trial(1).unwrap();
    let dir = tempfile::tempdir().unwrap();
    save(&state, dir.path());
    assert_eq!(State::load(dir.path()).unwrap(), Some(state.clone()));
    state.fail_trial(Reason::Exhausted).unwrap();
    state.end_kernel_trial();
    assert_eq!(state.phase(Slot::Back), Phase::Failed);
    assert!(state.commit(Slot::Back).is_err());
    state.start_writing(Slot::Back).unwrap();
}

#[test]
fn a_drill_of_which_the_menu_knows_nothing_is_none() {
    let mut state = on_trial();
    state.cancel_trial().unwrap();
    state.start_drill(Slot::Back).unwrap();
    let block = state.render().unwrap();
    for (name, value) in [
        ("va_trial", ""),
        ("va_trial", "root"),
        ("va_commit", "back"),
    ] {
        let read = State::parse(&variable(&block, name, value)).unwrap();
        assert_eq!(read.drill(), None, "{name}={value}");
    }
    assert!(State::parse(&block).unwrap().is_drilling());
}

#[test]
fn a_drill_needs_a_system_that_would_boot_and_a_quiet_state() {
    assert!(on_trial().start_drill(Slot::Back).is_err());
    assert!(State::adopt(Slot::Root).start_drill(Slot::Back).is_err());
    let mut failed = on_trial();
    failed.fail_trial(Reason::Health).unwrap();
    assert!(failed.start_drill(Slot::Back).is_err());
    let mut kernel = on_trial();
    kernel.confirm().unwrap();
    kernel.start_kernel_trial(3).unwrap();
    assert!(kernel.start_drill(Slot::Root).is_err());
    assert!(kernel.start_drill(Slot::Back).is_err());
}

#[test]
fn an_armed_drill_is_neither_confirmed_nor_written_over_nor_made_the_default() {
    let mut state = on_trial();
    state.confirm().unwrap();
    state.start_drill(Slot::Root).unwrap();
    let before = state.clone();
    assert!(state.confirm().is_err());
    assert!(state.start_writing(Slot::Root).is_err());
    assert!(state.start_trial(Slot::Root, 3).is_err());
    assert!(state.start_kernel_trial(3).is_err());
    assert!(state.commit(Slot::Root).is_err());
    assert_eq!(state, before);
    assert_eq!(state.next(), Slot::Root);
    assert_eq!(state.phase(Slot::Root), Phase::Good);
}

#[test]
fn a_drill_whose_end_nobody_wrote_down_leaves_nothing_behind() {
    let over = || {
        let mut state = on_trial();
        state.confirm().unwrap();
        state.start_drill(Slot::Root).unwrap();
        state.fail_trial(Reason::Exhausted).unwrap();
        assert_eq!(
            (state.failed(), state.phase(Slot::Root)),
            (None, Phase::Good)
        );
        state
    };
    let mut other = over();
    other.commit(Slot::Root).unwrap();
    assert_eq!((other.kernel_failed(), other.drill()), (None, None));
    let mut kernel = over();
    kernel.start_kernel_trial(3).unwrap();
    assert_eq!(kernel.phase(Slot::Root), Phase::Good);
    let mut written = over();
    written.start_writing(Slot::Root).unwrap();
    assert_eq!((written.failed(), written.drill()), (None, None));
}
