//! What there is to be named: verbs, options and exit statuses of the program,
//! options of the scripts.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

/// Verbs that `--help` does not list: units and `scripts/build` call them.
const HIDDEN: [&str; 2] = ["boot", "man"];

/// Long options, by the verb or script that has them.
pub type Options = BTreeMap<String, BTreeSet<String>>;

pub struct Known {
    /// The program's own, without a verb.
    pub common: BTreeSet<String>,
    pub verbs: Options,
    pub scripts: Options,
}

impl Known {
    /// Asks the program and reads the usage lines of the scripts in `root`.
    pub fn ask(root: &Path) -> Known {
        let common = help(&[]);
        let mut names = verbs(&common);
        names.extend(HIDDEN.map(str::to_owned));
        let options = |verb: String| {
            let found = long_options(&help(&[&verb]));
            (verb, found)
        };
        let mut scripts = Options::new();
        for entry in fs::read_dir(root.join("scripts")).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let text = fs::read_to_string(&path).unwrap();
            let usage = text.lines().filter(|line| line.contains("usage: "));
            let found = usage.flat_map(long_words).collect();
            scripts.insert(format!("scripts/{name}"), found);
        }
        Known {
            common: long_options(&common),
            verbs: names.into_iter().map(options).collect(),
            scripts,
        }
    }

    /// Tells whether a verb or a script has the option.
    pub fn any_has(&self, option: &str) -> bool {
        let mut all = self.verbs.values().chain(self.scripts.values());
        self.common.contains(option) || all.any(|options| options.contains(option))
    }
}

/// Returns what `va-upgrade VERB --help` prints.
#[expect(
    clippy::disallowed_methods,
    reason = "the program is asked as a reader would ask it"
)]
pub fn help(verb: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_va-upgrade"));
    let output = command.args(verb).arg("--help").output().unwrap();
    assert!(output.status.success(), "{verb:?} has no help");
    String::from_utf8(output.stdout).unwrap()
}

/// Returns the verbs that a help lists.
pub fn verbs(help: &str) -> Vec<String> {
    let list = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let rows = list.take_while(|line| !line.is_empty());
    let names = rows.filter_map(|row| row.split_whitespace().next());
    let own = names.filter(|name| *name != "help");
    own.map(str::to_owned).collect()
}

/// Returns the exit statuses that a help lists, with what they mean.
pub fn exit_statuses(help: &str) -> BTreeMap<String, String> {
    let list = help.lines().skip_while(|line| *line != "Exit status:");
    let rows = list.skip(1).take_while(|line| !line.is_empty());
    rows.filter_map(|row| row.trim().split_once("  "))
        .map(|(status, meaning)| (status.to_owned(), meaning.to_owned()))
        .collect()
}

/// Returns the long options that a help explains.
fn long_options(help: &str) -> BTreeSet<String> {
    let rows = help.lines().filter(|row| row.trim_start().starts_with('-'));
    rows.flat_map(long_words).collect()
}

/// Returns the long options among the words of `text`, without their values.
pub fn long_words(text: &str) -> Vec<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let words = text.split_whitespace().map(|word| {
        let word = word.trim_start_matches(['[', '(']);
        word.split(|c| !is_part(c)).next().unwrap_or_default()
    });
    let long = words.filter(|word| word.len() > 2 && word.starts_with("--"));
    long.map(str::to_owned).collect()
}

#[test]
fn a_help_is_taken_apart() {
    let help = "Usage: x --no\n\nCommands:\n  build  Pack --no\n  help   Print\n\nOptions:\n\
                \x20 -o, --output <FILE>\n      --deep   Look --at\n\nExit status:\n  0  done\n\
                \x20 2  wrong usage\n";
    assert_eq!(verbs(help), ["build"]);
    let options: Vec<String> = long_options(help).into_iter().collect();
    assert_eq!(options, ["--at", "--deep", "--output"]);
    let statuses: Vec<String> = exit_statuses(help).into_values().collect();
    assert_eq!(statuses, ["done", "wrong usage"]);
    let words = long_words("[--runs N] (--best, --codec=zstd: -q -- a--b");
    assert_eq!(words, ["--runs", "--best", "--codec"]);
}
