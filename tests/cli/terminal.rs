//! What `status` and `check` say to a person, on a terminal and in a file.

use va_upgrade::boot::state::State;

use super::desk::{Desk, Run};

/// A version that would clear the screen.
const SLY: &str = "9.4\u{1b}[2J";

/// Runs the program where the tools of the desk are found first.
fn run(desk: &Desk, args: &[&str]) -> Run {
    run_by(desk, &[], args)
}

/// The same on a terminal, which gets both outputs.
fn run_on_terminal(desk: &Desk, settings: &str, args: &[&str]) -> Run {
    let script = format!("{settings} exec script --quiet --return --command \"$*\" /dev/null");
    run_by(desk, &["sh", "-c", &script, "sh"], args)
}

fn run_by(desk: &Desk, through: &[&str], args: &[&str]) -> Run {
    let tools = desk.at("tools");
    let path = format!("PATH={}:/usr/sbin:/usr/bin:/sbin:/bin", tools.display());
    desk.run_by(&[&["env", &path], through].concat(), args)
}

#[test]
fn a_status_in_a_file_is_plain_text() {
    let desk = Desk::new();
    desk.be_an_appliance(SLY);
    let status = run(&desk, &["status"]);
    assert_eq!(status.status, 0, "{status:?}");
    assert_eq!(
        status.stdout,
        "\
Running version 7.9 from slot root; version 9.4?[2J in slot back boots next, on trial with 3 tries.

slot  state      version  kernel         bootable
root  committed  7.9      7.9-amd64      yes       runs
back  trial      9.4?[2J  9.4?[2J-amd64  yes       boots next

note: restart to try it; `va-upgrade discard` cancels the trial and drops it
warning: it cannot be told whether the boot sector starts va-upgrade's GRUB; ask again as root, \
and if it stays so, run `va-upgrade repair` to start it again
"
    );
}

#[test]
fn a_check_in_a_file_is_plain_text() {
    let desk = Desk::new();
    desk.be_an_appliance(SLY);
    let check = run(&desk, &["check"]);
    assert_eq!(check.status, 3, "{check:?}");
    let mut lines = check.stdout.lines();
    let first = lines.next().unwrap();
    assert!(
        first.starts_with("Not ready for an upgrade: ") && first.contains("checks refuse it ("),
        "{first}"
    );
    assert_eq!(lines.next(), Some(""));
    for line in lines {
        assert!(
            ["ok      ", "warn    ", "REFUSE  "].contains(&&line[..8]),
            "{line}"
        );
    }
    for words in [
        "\nok      boot state ",
        "\nREFUSE  volumes ",
        "a ?[2J broken disk",
    ] {
        assert!(check.stdout.contains(words), "{words} in {check:?}");
    }
    // Who reads only errors gets all that is in the way.
    assert!(check.stderr.contains("a ?[2J broken disk"), "{check:?}");
    for text in [check.stdout, check.stderr] {
        assert!(
            !text.replace('\n', "").contains(char::is_control),
            "{text:?}"
        );
    }
}

#[test]
fn a_terminal_gets_colours_unless_they_are_refused() {
    let desk = Desk::new();
    desk.be_an_appliance(SLY);
    let status = run_on_terminal(&desk, "TERM=linux", &["status"]);
    assert_eq!(status.status, 0, "{status:?}");
    let first = "\u{1b}[1mRunning version 7.9 from slot root; version 9.4?[2J in slot back";
    assert!(status.stdout.starts_with(first), "{status:?}");
    assert!(
        status.stdout.contains("\u{1b}[32mcommitted\u{1b}[0m  7.9 "),
        "{status:?}"
    );
    let check = run_on_terminal(&desk, "TERM=linux", &["check"]);
    assert_eq!(check.status, 3, "{check:?}");
    assert!(
        check.stdout.contains("\u{1b}[31mREFUSE\u{1b}[0m  volumes "),
        "{check:?}"
    );
    // It has all been said above the error.
    let error = check.stdout.split("error: ").nth(1).unwrap();
    assert!(
        error.starts_with("not ready") && !error.contains("disk"),
        "{check:?}"
    );

    for settings in ["NO_COLOR=1 TERM=linux", "TERM=dumb"] {
        for (verb, first) in [("status", "Running version "), ("check", "Not ready for ")] {
            let run = run_on_terminal(&desk, settings, &[verb]);
            assert!(run.stdout.starts_with(first), "{settings}: {run:?}");
            assert!(!run.stdout.contains('\u{1b}'), "{settings}: {run:?}");
        }
    }
}

#[test]
fn nobody_reading_the_messages_changes_no_outcome() {
    let desk = Desk::new();
    desk.be_an_appliance(SLY);
    // The reader of standard error ends before the program begins.
    let deaf = "coproc read; exec 2>&${COPROC[1]}; kill $COPROC_PID; wait; exec \"$@\"";
    for args in [&["--verbose", "check"][..], &["check"]] {
        let check = run_by(&desk, &["bash", "-c", deaf, "bash"], args);
        assert_eq!(check.status, 3, "{check:?}");
        assert!(check.stdout.contains("\nREFUSE  volumes "), "{check:?}");
    }
}

/// Runs the rest of the words on a terminal that was closed.
const HUNG_UP: &str = r#"
    script --quiet --command 'tty >name; exec sleep 600' /dev/null </dev/null >&- 2>&- &
    until grep -q /dev/ name; do sleep 0.1; done
    exec 7<>"$(cat name)"; kill -KILL $!; wait; rm name; exec "$@" <&7 >&7 2>&7"#;

/// A desk on which `discard` and the like can do their work; GRUB is not looked at.
fn desk_to_change() -> Desk {
    use std::fs::{Permissions, set_permissions};
    use std::os::unix::fs::PermissionsExt;
    let desk = Desk::new();
    desk.be_an_appliance("9.4");
    for tool in ["fsfreeze", "sync"] {
        desk.write(&format!("tools/{tool}"), "#!/bin/sh\n");
        let mode = Permissions::from_mode(0o755);
        set_permissions(desk.at(&format!("tools/{tool}")), mode).unwrap();
    }
    desk
}

fn is_on_trial(desk: &Desk) -> bool {
    let state = State::load(&desk.at("boot/va")).unwrap().unwrap();
    state.trial().is_some()
}

#[test]
fn a_terminal_that_is_closed_changes_no_outcome_and_no_exit_status() {
    let full = "exec \"$@\" >/dev/full";
    let closed = "exec \"$@\" >&- 2>&-";
    let unread = "coproc read; exec >&${COPROC[1]} 2>&1; kill $COPROC_PID; wait; exec \"$@\"";
    for (shell, status) in [(full, 1), (closed, 0), (unread, 0), (HUNG_UP, 0)] {
        let desk = desk_to_change();
        let through = ["bash", "-c", shell, "bash"];
        let shown = run_by(&desk, &through, &["status"]);
        assert_eq!(shown.status, status, "{shell}: {shown:?}");
        for verb in ["discard", "confirm"] {
            let yes: &[&str] = if verb == "discard" { &["--yes"] } else { &[] };
            let args = [&[verb, "--verbose"], yes].concat();
            let run = run_by(&desk, &through, &args);
            assert_eq!(run.status, 0, "{shell}: {verb}: {run:?}");
            assert!(!is_on_trial(&desk), "{shell}: {verb}");
        }
    }
}

#[test]
fn a_person_who_is_gone_before_the_answer_has_agreed_to_nothing() {
    let desk = desk_to_change();
    let run = run_by(&desk, &["bash", "-c", HUNG_UP, "bash"], &["discard"]);
    assert_eq!(run.status, 3, "{run:?}");
    assert!(is_on_trial(&desk));
}
