//! Settings, releases, fstab and the other small texts, the first byte says which:
//! nothing panics or takes long, and what is refused is not quoted raw.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use va_upgrade::bundle::Release;
use va_upgrade::config::Config;
use va_upgrade::linux::os_release::OsRelease;
use va_upgrade::linux::{fstab, mountinfo};
use va_upgrade::packages::dpkg::{self, Database, Role};
use va_upgrade::tree::glob::Glob;
use va_upgrade_fuzz::held::bounded;

fuzz_target!(|bytes: &[u8]| bounded(bytes.len(), || feed(bytes)));

fn feed(bytes: &[u8]) {
    let Some((which, rest)) = bytes.split_first() else {
        return;
    };
    let text = String::from_utf8_lossy(rest);
    match which % 6 {
        0 => drop(Config::parse(&text)),
        1 => {
            if let Ok(release) = Release::parse(&text) {
                release.globs().expect("they were compiled before");
            }
        }
        2 => {
            for line in fstab::parse(&text) {
                let again = fstab::parse(&line.render());
                assert_eq!(again.len(), 1, "{line:?}");
                let _ = fstab::Owner::of(&line.mount_point);
            }
        }
        3 => {
            let _ = (OsRelease::parse(&text), mountinfo::parse(&text));
        }
        4 => {
            let mut database = Database::default();
            let role = Role::of(b"var/lib/dpkg/status").expect("dpkg's own");
            database.begin(role);
            let _ = database.add(role, rest);
            let _ = (database.packages(), dpkg::conffiles(&text));
            database.each_owned(&mut |_| {});
        }
        _ => {
            let (pattern, path) = text.split_once('\n').unwrap_or((&text, "a/b"));
            if let Ok(glob) = Glob::new(pattern) {
                glob.matches(Path::new(path).as_os_str().as_encoded_bytes());
            }
        }
    }
}
