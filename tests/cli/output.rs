//! What the program prints when all is well, and when it is called wrongly.

use serde_json::Value;

use super::desk::{BUILD, Desk};
use super::help::VERBS;

#[test]
fn the_version_is_told() {
    assert_eq!(
        Desk::new().does(&["--version"]),
        concat!("va-upgrade ", env!("CARGO_PKG_VERSION"), "\n")
    );
}

#[test]
fn wrong_usage_ends_with_status_2_and_says_what_is_wrong() {
    let desk = Desk::new();
    for (args, word) in [
        (&[][..], "Usage"),
        (&["upgrade"], "upgrade"),
        (&["apply"], "FILE.vab"),
        (&["apply", "x.vab", "--sideways"], "--sideways"),
        (&["apply", "x.vab", "--threads", "0"], "--threads 0"),
        (&["apply", "x.vab", "--threads", "many"], "many"),
        (&["status", "--progress", "loud"], "loud"),
        (&["status", "-q", "-v"], "cannot be used with"),
        (
            &["build", "tree", "-o", "x.vab", "--release", "r.yaml"],
            "--unsigned",
        ),
        (&["sign", "x.vab"], "--export <FILE>"),
        (&["completions", "tcsh"], "tcsh"),
    ] {
        let run = desk.run(args);
        assert_eq!(run.status, 2, "{args:?}: {run:?}");
        assert_eq!(run.stdout, "", "{args:?}");
        assert!(run.stderr.contains(word), "{args:?}: {run:?}");
    }
}

#[test]
fn only_verbs_that_ask_take_an_answer() {
    let desk = Desk::with_bundle();
    let asking = ["apply", "discard", "drill", "migrate", "rollback"];
    for verb in VERBS {
        let run = desk.run(&[verb, "--yes"]);
        assert_eq!(
            run.status,
            if ["discard", "drill", "rollback"].contains(&verb) {
                3
            } else {
                2
            },
            "{run:?}"
        );
        let is_unknown = run.stderr.contains("unexpected argument '--yes'");
        assert_eq!(is_unknown, !asking.contains(&verb), "{run:?}");
    }
    desk.refuses(3, &["/dev/VA/root"], &["apply", "good.vab", "--yes"]);
}

#[test]
fn a_machine_that_cannot_be_migrated_is_told_every_reason() {
    let desk = Desk::with_bundle();
    let reasons = ["no logical volume", "no /boot of its own", "no bios_grub"];
    desk.refuses(3, &reasons, &["migrate", "good.vab", "--yes"]);
    let planned = desk.run(&["migrate", "good.vab", "--dry-run"]);
    assert_eq!(planned.status, 3, "{planned:?}");
    for reason in reasons {
        assert!(planned.stdout.contains(reason), "{reason}: {planned:?}");
    }
    desk.refuses(3, &["nothing to cancel"], &["migrate", "--cancel", "--yes"]);
}

#[test]
fn the_bytes_to_sign_are_written_under_either_name() {
    let desk = Desk::with_bundle();
    desk.does(&["sign", "good.vab", "--export", "new"]);
    desk.does(&["sign", "good.vab", "--export-digest", "old"]);
    let bytes = std::fs::read(desk.at("new")).unwrap();
    assert!(bytes.windows(7).any(|bytes| bytes == b"gateway"));
    assert_eq!(bytes, std::fs::read(desk.at("old")).unwrap());
    desk.refuses(
        3,
        &["no/such"],
        &["sign", "good.vab", "--export", "no/such"],
    );

    let words = ["good.vab is the bundle"];
    desk.refuses(3, &words, &["sign", "good.vab", "--export", "good.vab"]);

    // Signed elsewhere and attached, they count like a signature made here.
    desk.make_key("far.pem", "etc/va-upgrade/trusted.d/release.pem");
    desk.refuses(4, &["good.vab", "nobody"], &["verify", "good.vab"]);
    desk.shell(&format!(
        "cd '{}' && openssl pkeyutl -sign -rawin -inkey far.pem -in new -out signature",
        desk.at("").display()
    ));
    desk.does(&["sign", "good.vab", "--attach", "signature"]);
    desk.does(&["verify", "good.vab"]);
}

#[test]
fn progress_is_json_lines_when_a_program_asks_and_nothing_when_told_so() {
    let desk = Desk::with_bundle();
    let json = desk.run(&[&BUILD[..], &["--progress", "json"]].concat());
    assert_eq!(json.status, 0, "{json:?}");
    let lines: Vec<Value> = json
        .stderr
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert!(
        lines.iter().any(|line| line["note"].is_string()),
        "{lines:?}"
    );
    let packing: Vec<&Value> = lines.iter().filter(|line| line["step"] == "pack").collect();
    let last = packing.last().unwrap();
    assert!(last["done"].as_u64() > Some(0), "{packing:?}");
    assert!(
        last["done"].as_u64() <= last["total"].as_u64(),
        "{packing:?}"
    );

    for silence in [&["-q"][..], &["--progress", "none"]] {
        let run = desk.run(&[&BUILD[..], silence].concat());
        assert_eq!(run.status, 0, "{run:?}");
        assert_eq!(run.stderr, "");
        assert!(run.stdout.starts_with("x.vab: gateway 9.4.1, "), "{run:?}");
    }
}

#[test]
fn info_shows_the_manifest_to_people_and_programs() {
    let desk = Desk::with_bundle();
    let text = desk.does(&["info", "good.vab"]);
    for words in ["gateway", "9.4.1", "6.1.0-10-amd64", "1, trusted"] {
        assert!(text.contains(words), "{words} in {text}");
    }
    let info: Value = serde_json::from_str(&desk.does(&["info", "good.vab", "--json"])).unwrap();
    assert_eq!(info["product"], "gateway");
    assert_eq!(info["version"], "9.4.1");
    assert_eq!(info["signatures"], 1);
    assert_eq!(info["trusted"], true);
    assert_eq!(info["boot"]["kernel_release"], "6.1.0-10-amd64");
}

#[test]
fn a_bundle_is_verified_and_unpacked_with_keys_from_a_directory() {
    let desk = Desk::with_bundle();
    std::fs::remove_file(desk.at("etc/va-upgrade/trusted.d/release.pem")).unwrap();
    let told = desk.does(&["verify", "good.vab", "--trusted", "keys"]);
    assert!(
        told.starts_with("good.vab: gateway 9.4.1, whole, signed by key "),
        "{told}"
    );
    assert!(
        desk.does(&["info", "good.vab", "--trusted", "keys"])
            .contains("1, trusted")
    );
    assert_eq!(
        desk.does(&["unpack", "good.vab", "empty", "--trusted", "keys"]),
        ""
    );
    assert!(desk.at("empty/usr/sbin/grub-install").exists());
    desk.refuses(
        3,
        &["empty is not empty"],
        &["unpack", "good.vab", "empty", "--trusted", "keys"],
    );
}

#[test]
fn the_manual_has_a_page_for_every_verb() {
    let desk = Desk::new();
    desk.does(&["man", "empty"]);
    let page = |name: &str| std::fs::read_to_string(desk.at("empty").join(name)).unwrap();
    assert!(page("va-upgrade.8").contains("Exit status:"));
    for verb in VERBS {
        let text = page(&format!("va-upgrade-{verb}.8"));
        assert!(
            text.contains(&format!(".TH va-upgrade-{verb} 8 ")),
            "{text}"
        );
        assert!(text.contains("\\-\\-config"), "{text}");
    }
    let pages = std::fs::read_dir(desk.at("empty")).unwrap().count();
    assert_eq!(pages, VERBS.len() + 1);
    desk.refuses(3, &["nowhere", "No such file"], &["man", "nowhere"]);
}

#[test]
fn bash_can_complete_every_verb() {
    let desk = Desk::new();
    let script = desk.does(&["completions", "bash"]);
    desk.write("completion", &script);
    let path = desk.at("completion");
    let words = format!(
        ". {} && COMP_WORDS=(va-upgrade '') COMP_CWORD=1 && _va__upgrade va-upgrade '' va-upgrade \
         && printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        path.display()
    );
    let offered = desk.shell(&words);
    for verb in VERBS {
        assert!(
            offered.lines().any(|line| line == verb),
            "{verb} in {offered}"
        );
    }
}
