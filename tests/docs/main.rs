//! The pages name only what there is: verbs, options, exit statuses, paths and
//! links. Needs no root rights. Each check returns what is wrong with a page.

#![allow(clippy::unwrap_used, reason = "helpers of tests panic like tests")]

mod known;
mod markdown;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use known::Known;
use markdown::{Kind, anchors, lines, links, rows, spans};

/// Options that the pages name in code spans although other programs have them.
const FOREIGN: [&str; 2] = [
    "--long",          // zstd
    "--no-bootsector", // grub-install
];

/// The folders whose files the pages name from the top of the repository.
const FOLDERS: [&str; 9] = [
    "benches/",
    "docs/",
    "fuzz/",
    "grub/",
    "initramfs/",
    "packaging/",
    "scripts/",
    "src/",
    "tests/",
];

/// What a run leaves there, not in the repository.
const MADE: [&str; 1] = ["fuzz/artifacts/"];

const WIDTH: usize = 100;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap()
}

/// Returns the pages, by name.
fn pages() -> BTreeMap<String, String> {
    let mut names = vec!["README.md".to_owned()];
    for entry in fs::read_dir(root().join("docs")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.ends_with(".md") {
            names.push(format!("docs/{name}"));
        }
    }
    let read = |name: String| (name.clone(), read(&name));
    names.into_iter().map(read).collect()
}

/// Fails with what `check` finds in the pages.
fn hold(pages: &BTreeMap<String, String>, check: impl Fn(&str, &str) -> Vec<String>) {
    let faults: Vec<String> = pages
        .iter()
        .flat_map(|(name, page)| check(name, page).into_iter().map(move |f| (name, f)))
        .map(|(name, fault)| format!("{name}:{fault}\n"))
        .collect();
    assert!(faults.is_empty(), "\n{}", faults.concat());
}

/// Checks the options in one piece of code; `is_span` when it stands in prose,
/// where a verb may come without the program's name.
fn wrong_options(code: &str, is_span: bool, known: &Known) -> Vec<String> {
    let mut faults = Vec::new();
    let mut who = None;
    for part in code.split(['|', ';']) {
        let mut words = part.split_whitespace().peekable();
        // An alternative is still the same command: `(--key FILE | --unsigned)`.
        if words.peek().is_none_or(|word| !word.starts_with("--")) {
            let is_program = |word: &&str| *word == "va-upgrade" || word.ends_with("/va-upgrade");
            let program = part.split_whitespace().position(|word| is_program(&word));
            let first = words.next().unwrap_or_default();
            who = if let Some(at) = program {
                let mut after = part.split_whitespace().skip(at + 1);
                let verb = after.find(|word| !word.starts_with('-'));
                if let Some(verb) = verb.filter(|verb| !known.verbs.contains_key(*verb)) {
                    faults.push(format!("there is no verb {verb}"));
                    continue;
                }
                Some(verb.map_or(("va-upgrade", &known.common), |v| (v, &known.verbs[v])))
            } else if let Some(options) = known.scripts.get(first) {
                Some((first, options))
            } else {
                let options = known.verbs.get(first).filter(|_| is_span);
                options.map(|options| (first, options))
            };
        }
        for option in known::long_words(part) {
            match who {
                Some((who, options)) if !options.contains(&option) => {
                    faults.push(format!("{who} has no {option}"));
                }
                None if is_span && !known.any_has(&option) && !FOREIGN.contains(&&*option) => {
                    faults.push(format!("nothing has {option}"));
                }
                _ => {}
            }
        }
    }
    faults
}

fn unknown_options(page: &str, known: &Known) -> Vec<String> {
    let mut pieces: Vec<(usize, String, bool)> = Vec::new();
    pieces.extend(
        spans(page)
            .into_iter()
            .map(|(line, span)| (line, span, true)),
    );
    for line in lines(page).iter().filter(|line| line.kind == Kind::Code) {
        let (code, comment) = line.text.split_once('#').unwrap_or((line.text, ""));
        pieces.push((line.number, code.to_owned(), false));
        pieces.push((line.number, comment.to_owned(), true));
    }
    let faults = |(line, code, is_span): (usize, String, bool)| {
        let wrong = wrong_options(&code, is_span, known);
        wrong
            .into_iter()
            .map(move |fault| format!("{line}: {fault}"))
    };
    pieces.into_iter().flat_map(faults).collect()
}

fn missing_paths(page: &str, root: &Path) -> Vec<String> {
    let is_part = |c: char| c.is_alphanumeric() || "/._-".contains(c);
    let mut faults = Vec::new();
    for line in lines(page) {
        let words = line.text.split(|c| !is_part(c));
        let paths = words.map(|word| word.trim_end_matches('.'));
        for path in paths.filter(|path| FOLDERS.iter().any(|folder| path.starts_with(folder))) {
            if !MADE.contains(&path) && !root.join(path).exists() {
                faults.push(format!("{}: there is no {path}", line.number));
            }
        }
    }
    faults
}

fn broken_links(name: &str, page: &str, root: &Path) -> Vec<String> {
    let above = Path::new(name).parent().unwrap();
    let is_broken = |link: &str| {
        let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
        let text = match path {
            "" => Ok(page.to_owned()),
            _ if root.join(above).join(path).is_dir() => Ok(String::new()),
            _ => fs::read_to_string(root.join(above).join(path)),
        };
        text.map_or(true, |text| {
            !anchor.is_empty() && !anchors(&text).iter().any(|found| found == anchor)
        })
    };
    let local = links(page)
        .into_iter()
        .filter(|(_, link)| !link.contains("://"));
    local
        .filter(|(_, link)| is_broken(link))
        .map(|(line, link)| format!("{line}: {link} leads nowhere"))
        .collect()
}

fn wide_lines(page: &str) -> Vec<String> {
    let prose = lines(page)
        .into_iter()
        .filter(|line| line.kind == Kind::Prose);
    prose
        .map(|line| (line.number, line.text.chars().count()))
        .filter(|(_, width)| *width > WIDTH)
        .map(|(line, width)| format!("{line}: {width} columns, not {WIDTH}"))
        .collect()
}

/// Compares the rows of a page's table with the statuses of the help.
fn wrong_statuses(page: &str, statuses: &BTreeMap<String, String>) -> Vec<String> {
    let told: BTreeMap<String, String> = rows(page, "exit-status")
        .into_iter()
        .filter(|row| row[0].parse::<u8>().is_ok())
        .map(|row| (row[0].clone(), row[1].clone()))
        .collect();
    let all = statuses.keys().chain(told.keys());
    let mut wrong: Vec<&String> = all.filter(|s| told.get(*s) != statuses.get(*s)).collect();
    wrong.dedup();
    let fault = |status| {
        let (page, help) = (told.get(status), statuses.get(status));
        format!(" status {status} is {page:?}, --help says {help:?}")
    };
    wrong.into_iter().map(fault).collect()
}

#[test]
fn every_verb_and_option_that_a_page_names_exists() {
    let known = Known::ask(root());
    hold(&pages(), |_, page| unknown_options(page, &known));
}

#[test]
fn every_verb_is_explained() {
    let page = read("docs/interface.md");
    let spans: Vec<String> = spans(&page).into_iter().map(|(_, span)| span).collect();
    for verb in known::verbs(&known::help(&[])) {
        let start = format!("va-upgrade {verb}");
        let is_told = spans.iter().any(|span| span.starts_with(&start));
        assert!(is_told, "docs/interface.md does not explain {start}");
    }
}

#[test]
fn every_exit_status_is_explained() {
    let statuses = known::exit_statuses(&known::help(&[]));
    let numbers: Vec<&str> = statuses.keys().map(String::as_str).collect();
    assert_eq!(numbers, ["0", "1", "2", "3", "4", "5", "6", "7"]);
    let faults = wrong_statuses(&read("docs/interface.md"), &statuses);
    assert!(faults.is_empty(), "docs/interface.md:{faults:#?}");
}

#[test]
fn every_path_and_link_leads_somewhere() {
    hold(&pages(), |name, page| {
        let mut faults = missing_paths(page, root());
        faults.extend(broken_links(name, page, root()));
        faults
    });
}

#[test]
fn prose_keeps_to_its_columns() {
    let mut pages = pages();
    pages.insert("CHANGELOG.md".into(), read("CHANGELOG.md"));
    hold(&pages, |_, page| wide_lines(page));
}

#[test]
fn what_is_wrong_is_found() {
    let options = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let known = Known {
        common: options(&["--help"]),
        verbs: [("build".into(), options(&["--best", "--key"]))].into(),
        scripts: [("scripts/test".into(), options(&["--all"]))].into(),
    };
    let page = "`va-upgrade build --best`, `build\n--bets`, `--all`, `--al`, `tar --long=2`\n\
                `va-upgrade --hepl` `x | sudo va-upgrade bulid --best` `build (--key K | --ky)`\n\
                ```sh\ntar --xattrs | va-upgrade build --all  # --bst\nscripts/test --best\n```\n";
    let faults = [
        "1: build has no --bets",
        "2: nothing has --al",
        "3: va-upgrade has no --hepl",
        "3: there is no verb bulid",
        "3: build has no --ky",
        "5: build has no --all",
        "5: nothing has --bst",
        "6: scripts/test has no --best",
    ];
    assert_eq!(unknown_options(page, &known), faults);

    let page = "See `tests/docs/main.rs`, (src/none.rs), usr/src/x and fuzz/artifacts/.\n\n\
                [a](../README.md#nothing) [b](#c-d) [e](none.md) [f](https://x.org)\n\n## C: d\n";
    assert_eq!(missing_paths(page, root()), ["1: there is no src/none.rs"]);
    let broken = [
        "3: ../README.md#nothing leads nowhere",
        "3: none.md leads nowhere",
    ];
    assert_eq!(broken_links("docs/x.md", page, root()), broken);

    let wide = "ä".repeat(WIDTH + 1);
    let page = format!(
        "{}\n{wide}\n| {wide} |\n```\n{wide}\n```\n",
        "ä".repeat(WIDTH)
    );
    assert_eq!(wide_lines(&page), ["2: 101 columns, not 100"]);

    let statuses = [("0", "done"), ("1", "odd")].map(|(s, text)| (s.into(), text.into()));
    let page = "# Exit status\n| status | meaning |\n|---|---|\n| 0 | done |\n| 2 | odd |\n";
    let faults = [
        " status 1 is None, --help says Some(\"odd\")",
        " status 2 is Some(\"odd\"), --help says None",
    ];
    assert_eq!(wrong_statuses(page, &statuses.into()), faults);
}
