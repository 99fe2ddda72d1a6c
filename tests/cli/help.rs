//! What every verb says of itself, kept in `help/` so that a change is seen.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::desk::Desk;

/// The verbs that the overview lists.
pub const VERBS: [&str; 19] = [
    "build",
    "sign",
    "info",
    "verify",
    "unpack",
    "check",
    "apply",
    "activate",
    "discard",
    "drill",
    "status",
    "confirm",
    "report",
    "rollback",
    "repair",
    "migrate",
    "grow",
    "sync",
    "completions",
];

/// Those that packages and services call.
const HIDDEN: [&str; 2] = ["man", "boot"];

/// Set, it has the files in `help/` written instead of compared.
const RENEW: &str = "VA_UPGRADE_RENEW";

/// The widest line, in characters.
const WIDTH: usize = 100;

/// Shows what the program says with `-h` and with `--help` behind `verb`.
fn help(desk: &Desk, verb: Option<&str>) -> String {
    let mut text = String::new();
    for flag in ["-h", "--help"] {
        let args: Vec<&str> = verb.into_iter().chain([flag]).collect();
        let run = desk.run(&args);
        assert_eq!((run.status, &*run.stderr), (0, ""), "{args:?}: {run:?}");
        text += &format!("$ va-upgrade {}\n{}\n", args.join(" "), run.stdout);
    }
    text.trim_end().to_owned() + "\n"
}

#[test]
fn every_verb_explains_itself_as_it_is_written_down() {
    let desk = Desk::new();
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/help");
    let verbs = VERBS.into_iter().chain(HIDDEN);
    let pages = verbs.map(|verb| (verb, help(&desk, Some(verb))));
    let mut changed = Vec::new();
    let mut names = BTreeSet::new();
    for (name, text) in pages.chain([("va-upgrade", help(&desk, None))]) {
        let path = dir.join(format!("{name}.txt"));
        if std::env::var_os(RENEW).is_some() {
            fs::write(&path, &text).unwrap();
        }
        let written = fs::read_to_string(&path).unwrap_or_default();
        if written != text {
            changed.push(format!("{}:\n{text}", path.display()));
        }
        names.insert(path);
    }
    assert!(
        changed.is_empty(),
        "the help is not what is written down. If it is meant to change, renew it with \
         `{RENEW}=1 cargo test --test cli help` and look at the difference. It is now, in {}",
        changed.join("\n")
    );
    let entries = fs::read_dir(&dir).unwrap();
    let files: BTreeSet<_> = entries.map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files, names, "a file there is no verb's");
}

#[test]
fn the_help_reads_well() {
    let desk = Desk::new();
    let overview = help(&desk, None);
    for verb in VERBS {
        assert!(overview.contains(&format!("\n  {verb} ")), "{verb}");
        let text = help(&desk, Some(verb));
        assert!(
            text.contains(&format!("\nUsage: va-upgrade {verb} ")),
            "{text}"
        );
        // What it takes itself comes before what all take.
        let own = text.find("\nOptions:\n");
        assert!(own < text.find("\nCommon options:\n"), "{text}");
        let last = text.rsplit("\nCommon options:\n").next().unwrap();
        assert!(
            !last.contains("--json") && last.contains("--config"),
            "{text}"
        );
        assert!(!text.contains("\"done\""), "{text}");
    }
    for verb in VERBS.into_iter().map(Some).chain([None]) {
        let text = help(&desk, verb);
        for line in text.lines() {
            assert!(line.chars().count() <= WIDTH, "{line}");
            assert_eq!(line.trim_end(), line);
        }
    }
    assert!(overview.contains("\nExit status:\n"), "{overview}");
    assert_eq!(overview.matches("\"done\"").count(), 1, "{overview}");
}
