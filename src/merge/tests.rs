//! What must hold of every format.

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::test_runner::Config;

use super::{Conflict, Format, LARGEST_BYTES, Merged, Sides, WHOLE_FILE, merge};

fn sides<'a>(pristine: &'a str, customer: &'a str, image: &'a str) -> Sides<'a> {
    Sides {
        pristine: Some(pristine.as_bytes()),
        customer: customer.as_bytes(),
        image: image.as_bytes(),
    }
}

/// Merges without a conflict.
pub fn case(format: Format, pristine: &str, customer: &str, image: &str, only: &[&str]) -> String {
    let only: Vec<String> = only.iter().map(|name| (*name).to_owned()).collect();
    let merged = merge(format, &sides(pristine, customer, image), &only).unwrap();
    assert_eq!(merged.conflicts, []);
    String::from_utf8(merged.content).unwrap()
}

/// Merges, and shows the conflicts as `key: customer | image`.
pub fn conflicts(
    format: Format,
    pristine: &str,
    customer: &str,
    image: &str,
) -> (String, Vec<String>) {
    let merged = merge(format, &sides(pristine, customer, image), &[]).unwrap();
    let value = |value: &Option<String>| value.clone().unwrap_or("-".to_owned());
    let conflicts = merged.conflicts.iter();
    let shown =
        conflicts.map(|c| format!("{}: {} | {}", c.key, value(&c.customer), value(&c.image)));
    (String::from_utf8(merged.content).unwrap(), shown.collect())
}

const ALL: [Format; 8] = [
    Format::KeyValue,
    Format::KeyWord,
    Format::Ini,
    Format::Yaml,
    Format::Json,
    Format::Hosts,
    Format::Sudoers,
    Format::Lines,
];

/// Formats of one setting a line, and how such a line is written.
const KEYED: [(Format, &str); 6] = [
    (Format::KeyValue, "k{k}={v}\n"),
    (Format::KeyWord, "K{k} {v}\n"),
    (Format::Ini, "[s{s}]\nk{k}={v}\n"),
    (Format::Yaml, "s{s}k{k}:\n  - '{v}'\n"),
    (Format::Json, "\"k{k}\": {v}"),
    (Format::Hosts, "10.0.{s}.{k} name{v}\n"),
];

type Settings = BTreeMap<u8, u8>;

fn written(format: Format, line: &str, settings: &Settings) -> String {
    let line = |(key, value): (&u8, &u8)| {
        let line = line.replace("{s}", &(key / 4).to_string());
        let line = line.replace("{k}", &key.to_string());
        let comment = format!("# about {key}\n");
        let lead = if format == Format::Json || key % 3 != 0 {
            ""
        } else {
            &comment
        };
        lead.to_owned() + &line.replace("{v}", &value.to_string())
    };
    let lines: Vec<String> = settings.iter().map(line).collect();
    match format {
        Format::Json => format!("{{{}}}", lines.join(",\n")),
        _ => lines.concat(),
    }
}

fn merged(format: Format, pristine: Option<&str>, customer: &str, image: &str) -> Merged {
    let sides = Sides {
        pristine: pristine.map(str::as_bytes),
        customer: customer.as_bytes(),
        image: image.as_bytes(),
    };
    merge(format, &sides, &[]).unwrap()
}

fn text(merged: &Merged) -> &str {
    std::str::from_utf8(&merged.content).unwrap()
}

/// The lines of a text that say something, without what joins the members of JSON.
fn lines(text: &str) -> Vec<String> {
    let bare = |line: &str| line.trim().trim_matches(['{', '}', '\u{feff}']).to_owned();
    text.split(['\n', ','])
        .map(bare)
        .filter(|line| !line.is_empty())
        .collect()
}

fn settings() -> impl Strategy<Value = Settings> {
    btree_map(0..24_u8, 0..4_u8, 0..16)
}

/// Changes some settings: `None` takes one out.
fn changed(settings: &Settings, changes: &BTreeMap<u8, Option<u8>>, parity: u8) -> Settings {
    let mut settings = settings.clone();
    for (key, value) in changes.iter().filter(|(key, _)| *key % 2 == parity) {
        match value {
            Some(value) => settings.insert(*key, *value),
            None => settings.remove(key),
        };
    }
    settings
}

fn changes() -> impl Strategy<Value = BTreeMap<u8, Option<u8>>> {
    btree_map(0..24_u8, prop::option::of(4..8_u8), 0..8)
}

proptest! {
    #![proptest_config(Config { failure_persistence: None, ..Config::default() })]

    #[test]
    fn what_one_side_left_alone_is_the_other_sides(a in ".{0,60}", b in ".{0,60}") {
        for format in ALL {
            prop_assert_eq!(merged(format, Some(&a), &a, &b), Merged::clean(b.as_str()));
            prop_assert_eq!(merged(format, Some(&a), &b, &a), Merged::clean(b.as_str()));
            prop_assert_eq!(merged(format, None, &b, &b), Merged::clean(b.as_str()));
        }
    }

    #[test]
    fn changes_of_different_keys_are_all_made(
        pristine in settings(),
        theirs in changes(),
        ours in changes(),
    ) {
        let customer = changed(&pristine, &theirs, 0);
        let image = changed(&pristine, &ours, 1);
        let both = changed(&customer, &ours, 1);
        for (format, line) in KEYED {
            let write = |settings| written(format, line, settings);
            let found = merged(format, Some(&write(&pristine)), &write(&customer), &write(&image));
            prop_assert_eq!(&found.conflicts, &Vec::<Conflict>::new(), "{:?}", format);
            let sorted = |text: &str| {
                let mut lines = lines(text);
                lines.retain(|line| !line.starts_with(['#', '[']));
                lines.sort();
                lines
            };
            prop_assert_eq!(sorted(text(&found)), sorted(&write(&both)), "{:?}", format);
        }
    }

    #[test]
    fn no_line_is_lost_and_none_is_made_up(
        pristine in settings(),
        theirs in changes(),
        ours in changes(),
        is_known: bool,
    ) {
        let customer = changed(&changed(&pristine, &theirs, 0), &theirs, 1);
        let image = changed(&changed(&pristine, &ours, 0), &ours, 1);
        for (format, line) in KEYED {
            let write = |settings| written(format, line, settings);
            let (pristine, customer, image) = (write(&pristine), write(&customer), write(&image));
            let found = merged(format, is_known.then_some(&pristine), &customer, &image);
            let result = lines(text(&found));
            let (pristine, theirs, ours) = (lines(&pristine), lines(&customer), lines(&image));
            for line in &result {
                let is_joined = format == Format::Hosts && line.contains('\t');
                let is_found = theirs.contains(line) || ours.contains(line);
                prop_assert!(is_found || is_joined, "{:?} made {}", format, line);
            }
            for line in theirs.iter().filter(|line| !pristine.contains(line)) {
                let names = line.split_whitespace().all(|word| text(&found).contains(word));
                let is_kept = result.contains(line) || (format == Format::Hosts && names);
                let is_comment = line.starts_with(['#', '[']);
                prop_assert!(is_kept || (is_comment && !is_known), "{:?} lost {}", format, line);
            }
        }
    }

    #[test]
    fn no_bytes_make_it_panic(
        pristine in prop::option::of(vec(any::<u8>(), 0..80)),
        customer in vec(any::<u8>(), 0..80),
        image in vec(any::<u8>(), 0..80),
        only in vec("[a-z/*]{0,4}", 0..2),
    ) {
        let sides = Sides { pristine: pristine.as_deref(), customer: &customer, image: &image };
        for format in ALL {
            let _ = merge(format, &sides, &only);
        }
    }

    #[test]
    fn no_odd_text_makes_it_panic_or_loses_a_customers_line(
        pristine in odd(),
        customer in odd(),
        image in odd(),
    ) {
        for format in ALL {
            let found = merged(format, Some(&pristine), &customer, &image);
            let result = text(&found);
            let known: BTreeSet<String> = [lines(&pristine), lines(&image)]
                .concat()
                .iter()
                .map(|line| told(line))
                .collect();
            for line in lines(&customer) {
                let is_new = !known.contains(&told(&line));
                // A name that the old release had may have been the image's to take out.
                let is_old = |word: &str| format == Format::Hosts && pristine.contains(word);
                let is_kept = |word: &str| result.contains(word) || is_old(word);
                let words = || line.split([' ', '\t', '#', '=', ':']).all(is_kept);
                prop_assert!(!is_new || words(), "{:?} lost {:?}: {:?}", format, line, result);
            }
        }
    }
}

/// What a line says, however it is spaced.
fn told(line: &str) -> String {
    let is_told = |c: &char| !c.is_whitespace() && !['=', ':'].contains(c);
    line.chars().filter(is_told).collect()
}

/// Texts of pieces that mean something to one format or another.
fn odd() -> impl Strategy<Value = String> {
    let pieces = [
        "a",
        "b",
        "=",
        " ",
        "\n",
        "\n",
        "\r\n",
        "#",
        ";",
        "[",
        "]",
        "[s]\n",
        "- ",
        ": ",
        ":\n",
        "  ",
        "\"",
        "'",
        "\\",
        "\\\n",
        "{",
        "}",
        ",",
        "Match ",
        "Port ",
        "server ",
        "Defaults ",
        "---\n",
        "\u{feff}",
        "ä",
        "|\n",
        "&x ",
        "*x",
        "\t",
        "{\"a\": 1}",
        "10.0.0.1 ",
        "a=1\n",
        "b=2\n",
    ];
    vec(prop::sample::select(pieces.to_vec()), 0..24).prop_map(|pieces| pieces.concat())
}

#[test]
fn what_is_no_text_or_too_large_is_taken_whole() {
    let large = vec![b'#'; LARGEST_BYTES + 1];
    for odd in [&b"a=1\0\n"[..], b"a=\xff\n", &large] {
        let sides = Sides {
            pristine: Some(b"a=1\n"),
            customer: odd,
            image: b"a=2\n",
        };
        let found = merge(Format::KeyValue, &sides, &[]).unwrap();
        assert_eq!(found.content, odd);
        assert_eq!(found.conflicts[0].key, WHOLE_FILE);
        let refused = merge(Format::KeyValue, &sides, &["a".to_owned()]).unwrap_err();
        assert!(refused.to_string().contains("carry it whole"), "{refused}");
    }
}

#[test]
fn a_file_of_the_largest_size_is_merged_whoever_changed_all_of_it() {
    for (format, line) in [
        (Format::KeyValue, "k{k}={v}\n"),
        (Format::KeyWord, "K{k} {v}\n"),
        (Format::Ini, "[s{k}]\nk={v}\n"),
        (Format::Yaml, "k{k}: {v}\n"),
        (Format::Hosts, "::{k} n{v}\n"),
    ] {
        let file = |name: &str, value: &str| -> String {
            let key = |n: i32| {
                line.replace("{k}", &format!("{name}{n}"))
                    .replace("{v}", value)
            };
            (0..30_000).map(key).collect()
        };
        let (customer, image) = (file("c", "1"), file("d", "2"));
        let found = merged(format, Some("# old\n"), &customer, &image);
        assert_eq!(
            found.content.len(),
            customer.len() + image.len(),
            "{format:?}"
        );
        assert_eq!(found.conflicts, [], "{format:?}");
    }
}
