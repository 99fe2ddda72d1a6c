//! Machines on which there is nothing to upgrade, or not now: this one.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;

use nix::fcntl::{Flock, FlockArg};
use serde_json::Value;

use super::desk::{Desk, PROGRAM};

#[test]
fn a_machine_that_runs_from_neither_slot_is_refused() {
    let desk = Desk::with_bundle();
    let verbs: [&[&str]; 11] = [
        &["check"],
        &["check", "good.vab"],
        &["apply", "good.vab"],
        &["apply", "good.vab", "--dry-run"],
        &["activate"],
        &["discard"],
        &["drill"],
        &["report"],
        &["status"],
        &["confirm"],
        &["rollback"],
    ];
    for args in verbs {
        desk.refuses(3, &["/dev/VA/root", "/dev/VA/back", "config.yaml"], args);
    }
}

#[test]
fn a_program_that_asks_for_json_gets_it_when_nothing_could_be_checked() {
    let desk = Desk::with_bundle();
    desk.write("note.vab", "not a bundle");
    for (args, status, name) in [
        (&["check", "--json"][..], 3, "appliance"),
        (&["check", "good.vab", "--json"], 3, "appliance"),
        (&["check", "note.vab", "--json"], 4, "bundle"),
    ] {
        let run = desk.run(args);
        assert_eq!(run.status, status, "{run:?}");
        let report: Value = serde_json::from_str(&run.stdout).unwrap();
        assert_eq!(report["format"], 2);
        assert_eq!(report["ok"], false);
        assert_eq!(report["checks"][0]["name"], name);
        assert_eq!(report["checks"][0]["verdict"], "refuse");
        let message = report["checks"][0]["found"].as_str().unwrap();
        assert!(
            run.stderr.ends_with(&format!("error: {message}\n")),
            "{run:?}"
        );
    }
}

#[test]
fn without_root_rights_nothing_is_begun() {
    let desk = Desk::with_bundle();
    // The target directory may lie where nobody else gets.
    let program = desk.at("va-upgrade");
    fs::copy(PROGRAM, &program).unwrap();
    fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
    let program = program.to_str().unwrap();
    desk.write("disk.raw", [0; 4096]);
    // The copy's own name comes before the one that the desk adds.
    let nobody = [
        "setpriv",
        "--reuid=65534",
        "--clear-groups",
        "sh",
        "-c",
        r#"p=$0; shift; exec "$p" "$@""#,
        program,
    ];
    let verbs: [&[&str]; 9] = [
        &["apply", "good.vab"],
        &["activate"],
        &["discard"],
        &["drill"],
        &["check"],
        &["confirm"],
        &["rollback"],
        &["unpack", "good.vab", "empty"],
        &[
            "build",
            "disk.raw",
            "-o",
            "x.vab",
            "--release",
            "release.yaml",
            "--unsigned",
        ],
    ];
    for args in verbs {
        let words = [args[0], "needs root rights", "sudo"];
        desk.refuses_by(&nobody, 3, &words, args);
    }
    let looked = desk.run_by(&nobody, &["info", "good.vab"]);
    assert_eq!(looked.status, 0, "{looked:?}");
}

#[test]
fn while_another_one_is_at_work_nothing_is_begun() {
    let desk = Desk::with_bundle();
    let lock = File::create(desk.at("run/va-upgrade.lock")).unwrap();
    let held = Flock::lock(lock, FlockArg::LockExclusiveNonblock).unwrap();
    let words = [
        "another va-upgrade is at work",
        "/run/va-upgrade.lock",
        "wait",
    ];
    let verbs: [&[&str]; 6] = [
        &["apply", "good.vab"],
        &["activate"],
        &["discard"],
        &["drill"],
        &["rollback"],
        &["confirm"],
    ];
    for args in verbs {
        desk.refuses(6, &words, args);
    }
    drop(held);
    desk.refuses(3, &["/dev/VA/root"], &["apply", "good.vab"]);
}

#[test]
fn settings_that_are_no_good_are_refused() {
    let desk = Desk::new();
    desk.refuses(
        2,
        &["nowhere.yaml"],
        &["status", "--config", "nowhere.yaml"],
    );
    desk.write("bad.yaml", "trys: 3\n");
    desk.refuses(
        2,
        &["bad.yaml", "trys", "tries"],
        &["status", "--config", "bad.yaml"],
    );
    desk.write("etc/va-upgrade/config.yaml", "tries: 10\n");
    let words = ["/etc/va-upgrade/config.yaml", "tries is 10, not 1 to 9"];
    desk.refuses(2, &words, &["status"]);
}
