//! Settings, keys and pipes that are there to hurt, and words that steer a terminal.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use super::desk::{BUILD, Desk, PROGRAM, Run};

/// Runs a script that finds the program in `$PROGRAM`, in the directory of `desk`.
fn shell(desk: &Desk, script: &str) -> Run {
    let setting = format!("PROGRAM='{PROGRAM}'; {script}");
    // What the desk adds are the program and its arguments.
    desk.run_by(&["bash", "-c", &setting], &[])
}

#[test]
fn a_signal_ends_the_waiting_for_a_pipe() {
    let desk = Desk::with_bundle();
    let wait = "until grep -q '^SigBlk:.*4003$' /proc/$!/status; do sleep 0.05; done; sleep 0.2";
    for signal in ["INT", "TERM", "HUP"] {
        for work in [
            // Nobody writes to it.
            "mkfifo pipe; $PROGRAM unpack pipe empty -q &",
            // Somebody could, and does not.
            "mkfifo pipe; exec 9<>pipe; $PROGRAM unpack pipe empty -q &",
            "mkfifo pipe; exec 9<>pipe; head -c 2000 good.vab >&9; $PROGRAM unpack pipe empty -q &",
            "mkfifo pipe; $PROGRAM sign good.vab --key pipe -q &",
        ] {
            let script =
                format!("{work} {wait}; kill -{signal} $!; wait $!; s=$?; rm pipe; exit $s");
            let run = shell(&desk, &script);
            assert_eq!(run.status, 1, "{work}: {run:?}");
            assert!(
                run.stderr.contains("interrupted by a signal"),
                "{work}: {run:?}"
            );
            assert_eq!(fs::read_dir(desk.at("empty")).unwrap().count(), 0);
        }
    }
}

#[test]
fn a_second_signal_ends_what_does_not_look_at_the_first() {
    let desk = Desk::with_bundle();
    // Standard error is full, and nobody reads it.
    let script = "mkfifo pipe; exec 9<>pipe
        dd if=/dev/zero of=pipe bs=4096 count=16 oflag=nonblock status=none
        $PROGRAM unpack good.vab empty --progress plain 2>&9 &
        until grep -q '^SigBlk:.*4003$' /proc/$!/status; do sleep 0.05; done
        while kill -TERM $! 2>/dev/null; do sleep 0.3; done; wait $!";
    let run = shell(&desk, script);
    assert_eq!(run.status, 1, "{run:?}");
}

#[test]
fn keys_are_neither_waited_for_nor_trusted_where_others_may_put_them() {
    let desk = Desk::with_bundle();
    let verify = ["verify", "good.vab"];
    let trusted = desk.at("etc/va-upgrade/trusted.d");
    let revoked = desk.at("etc/va-upgrade/revoked");
    desk.does(&verify);

    fs::set_permissions(&trusted, Permissions::from_mode(0o777)).unwrap();
    desk.refuses(2, &["trusted.d", "0777", "chmod go-w"], &verify);
    fs::set_permissions(&trusted, Permissions::from_mode(0o755)).unwrap();
    let key = trusted.join("release.pem");
    fs::set_permissions(&key, Permissions::from_mode(0o664)).unwrap();
    desk.refuses(2, &["release.pem", "0664", "chmod go-w"], &verify);
    fs::set_permissions(&key, Permissions::from_mode(0o644)).unwrap();

    symlink("gone", &revoked).unwrap();
    desk.refuses(2, &["revoked", "No such file"], &verify);
    fs::remove_file(&revoked).unwrap();
    desk.shell(&format!("mkfifo '{}'", trusted.join("pipe.pem").display()));
    desk.refuses(2, &["pipe.pem", "not a regular file"], &verify);
}

#[test]
fn a_key_given_for_settings_is_not_shown() {
    let desk = Desk::with_bundle();
    let pem = fs::read_to_string(desk.at("key.pem")).unwrap();
    let secret = pem.lines().nth(1).unwrap();
    for args in [
        &["status", "--config", "key.pem"][..],
        &[
            "build",
            "tree",
            "-o",
            "x.vab",
            "--unsigned",
            "--release",
            "key.pem",
        ],
    ] {
        let run = desk.run(args);
        assert_eq!(run.status, 2, "{run:?}");
        assert!(run.stderr.contains("private key"), "{run:?}");
        assert!(!run.stderr.contains(secret), "{run:?}");
    }
}

#[test]
fn settings_that_would_take_their_reader_long_are_refused() {
    let desk = Desk::with_bundle();
    desk.write("deep.yaml", "[".repeat(100_000));
    desk.write("large.yaml", "a: b\n".repeat(100_000));
    for (name, word) in [("deep.yaml", "brackets"), ("large.yaml", "larger than")] {
        desk.refuses(2, &[name, word], &["status", "--config", name]);
    }
    let release = ["build", "tree", "-o", "x.vab", "--unsigned", "--release"];
    for name in ["deep.yaml", "large.yaml"] {
        desk.refuses(2, &[name, "brackets"], &[&release[..], &[name]].concat());
    }
}

#[test]
fn a_failed_unpack_leaves_the_directory_as_it_was() {
    let desk = Desk::with_bundle();
    let good = fs::read(desk.at("good.vab")).unwrap();
    desk.write("cut.vab", &good[..good.len() - 1]);
    let empty = desk.at("empty");
    fs::set_permissions(&empty, Permissions::from_mode(0o751)).unwrap();
    std::os::unix::fs::chown(&empty, Some(7), Some(8)).unwrap();
    let run = desk.run(&["unpack", "cut.vab", "empty"]);
    assert_eq!(run.status, 4, "{run:?}");
    let meta = fs::metadata(&empty).unwrap();
    assert_eq!(
        (meta.mode() & 0o7777, meta.uid(), meta.gid()),
        (0o751, 7, 8)
    );
    assert_eq!(fs::read_dir(&empty).unwrap().count(), 0);
}

/// What a terminal would obey: an escape, a C1 control, and a change of direction.
const SLY: &str = "\u{1b}[2J\u{7}\u{9b}5m\u{85}\u{202e}\u{2066}\u{7f}";

fn is_sly(c: char) -> bool {
    (c.is_control() && c != '\n')
        || matches!(c, '\u{61c}' | '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Quotes a text for YAML, which takes no control character as it is.
fn escaped(text: &str) -> String {
    let letters: String = text
        .chars()
        .map(|c| format!("\\u{:04x}", u32::from(c)))
        .collect();
    format!("\"{letters}\"")
}

#[test]
fn no_output_holds_a_control_character_whatever_comes_from_outside() {
    let desk = Desk::new();
    desk.make_tree("tree");
    fs::write(desk.at("tree").join(format!("etc/{SLY}")), SLY).unwrap();
    symlink(SLY, desk.at("tree/etc/link")).unwrap();
    let os_release = format!("ID=debian\nPRETTY_NAME=\"Debian {SLY}\"\nVERSION_ID=\"{SLY}\"\n");
    desk.write("tree/etc/os-release", &os_release);
    desk.write(
        "tree/etc/fstab",
        format!("/dev/{SLY} /{SLY} ext4 {SLY} 0 0\n"),
    );
    desk.write(
        "release.yaml",
        format!(
            "product: gateway\nversion: '1'\ndescription: {0}\nmeta: {{note: {0}}}\n",
            escaped(SLY)
        ),
    );
    desk.write(
        "bad.yaml",
        format!("product: a\nversion: '1'\n? {}\n: x\n", escaped(SLY)),
    );
    desk.write(&format!("{SLY}.vab"), "no bundle");
    desk.does(&BUILD);
    desk.make_tree("other");
    let other = [
        "build",
        "other",
        "-o",
        "y.vab",
        "--release",
        "release.yaml",
        "--unsigned",
    ];
    desk.does(&other);
    let sly_bundle = format!("{SLY}.vab");
    let sly_option = format!("--{SLY}");
    let bad = [
        "build",
        "tree",
        "-o",
        "z.vab",
        "--unsigned",
        "--release",
        "bad.yaml",
    ];
    let json = ["--progress", "json"];
    for args in [
        &[&BUILD[..], &["-v"]].concat()[..],
        &[&BUILD[..], &json].concat(),
        &["info", "x.vab"],
        &["info", "x.vab", "--json"],
        &["info", "x.vab", "--files"],
        &["info", "x.vab", "--files", "--json"],
        &["info", "x.vab", "--diff", "y.vab"],
        &["info", "x.vab", "--diff", "y.vab", "--json"],
        &["info", &sly_bundle],
        &[&["info", &sly_bundle][..], &json].concat(),
        &["verify", "x.vab", "--allow-unsigned", "--deep"],
        &[
            "unpack",
            "x.vab",
            "empty",
            "--allow-unsigned",
            "--only",
            SLY,
        ],
        &bad,
        &["status", "--config", SLY],
        &["status", "--config", "bad.yaml"],
        &["status", &sly_option],
        &[SLY],
    ] {
        let run = desk.run(args);
        for text in [&run.stdout, &run.stderr] {
            assert!(!text.contains(is_sly), "{args:?}: {text:?}");
        }
        assert!(
            !(run.stdout + &run.stderr).is_empty() || args[0] == "unpack",
            "{args:?}"
        );
    }
    desk.be_an_appliance(SLY);
    desk.write("etc/os-release", &os_release);
    desk.write("etc/fstab", format!("/dev/{SLY} /{SLY} ext4 {SLY} 0 0\n"));
    for args in [
        &["status"][..],
        &["status", "--json"],
        &["check"],
        &["check", "--json"],
        &["check", "x.vab", "--allow-unsigned"],
        &["check", "x.vab", "--allow-unsigned", "--json"],
        &["report"],
        &["apply", "x.vab", "--allow-unsigned", "--dry-run", "-v"],
    ] {
        let run = desk.run(args);
        for text in [&run.stdout, &run.stderr] {
            assert!(!text.contains(is_sly), "{args:?}: {text:?}");
        }
    }
}

#[test]
fn a_bundle_is_looked_into_from_a_pipe_which_can_be_opened_once() {
    let desk = Desk::with_bundle();
    let told = shell(&desk, "$PROGRAM info <(cat good.vab)");
    assert_eq!(told.status, 0, "{told:?}");
    assert!(told.stdout.contains("1, trusted"), "{told:?}");
}
