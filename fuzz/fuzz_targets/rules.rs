//! A file of sync rules: nothing panics or takes long, and what is taken has an answer
//! for every path.

#![no_main]

use std::fs;
use std::path::Path;

use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;
use va_upgrade::appliance::pristine::Pristine;
use va_upgrade::sync::Rules;
use va_upgrade_fuzz::held::bounded;

/// Paths of every depth and kind that rules are asked for.
const PATHS: [&str; 5] = [
    "etc",
    "etc/hosts",
    "etc/ssh/sshd_config",
    "a/b/c/d/e/f",
    "\u{1b}[2J",
];

fuzz_target!(|bytes: &[u8]| bounded(bytes.len(), || feed(bytes)));

fn feed(bytes: &[u8]) {
    let root = TempDir::new().expect("a directory in memory");
    let dir = root.path().join("etc/va-upgrade/sync.d");
    fs::create_dir_all(&dir).expect("in memory");
    fs::write(dir.join("10.yaml"), bytes).expect("in memory");
    let Ok(rules) = Rules::load(root.path(), &Pristine::default(), None) else {
        return;
    };
    for path in PATHS {
        let _ = rules.of(Path::new(path));
    }
    for rule in rules.into_data() {
        for dir in rule.dirs() {
            assert!(dir.is_relative() && rule.is_for(dir), "{rule:?}");
        }
    }
}
