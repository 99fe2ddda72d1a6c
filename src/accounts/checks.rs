//! Who cannot log in to a system, though nothing of the account is damaged.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::files::AccountFiles;
use super::hashes::{Checker, hash_note};
use super::inside::has_program;
use super::notes::{Note, Reason};
use super::side::Side;
use super::table::field;
use crate::tree::path;

/// Names every account of `files` whose hash a system with `checker` cannot check.
///
/// # Errors
/// Class `Refused` when the files have too many lines.
pub fn unverifiable(files: &AccountFiles, checker: &Checker) -> Result<Vec<Note>> {
    let side = Side::parse(files)?;
    let notes = side.passwd.records().filter_map(|account| {
        let name = &account[field::NAME];
        hash_note(name, &side.password(name)?.hash, checker)
    });
    Ok(notes.collect())
}

/// How somebody gets in with an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Entry {
    /// With a password, among other ways.
    Password,
    /// Not with a password.
    Other,
}

/// Lists the accounts that a person may log in with, by names fit to be shown: all
/// that have a password, and people whose shell lets them.
///
/// # Errors
/// Class `Refused` when the files have too many lines.
pub fn enterable(files: &AccountFiles) -> Result<BTreeMap<String, Entry>> {
    let side = Side::parse(files)?;
    let mut found = BTreeMap::new();
    for account in side.passwd.records() {
        let (name, shell) = (&account[field::NAME], &account[field::SHELL]);
        let shuts_out = ["/nologin", "/false"]
            .iter()
            .any(|end| shell.ends_with(end.as_bytes()));
        let entry = match side.password(name).is_some_and(|p| p.is_set()) {
            true => Entry::Password,
            false if side.is_person(name) && !shuts_out => Entry::Other,
            false => continue,
        };
        found.insert(path::show(name), entry);
    }
    Ok(found)
}

/// Names the accounts with a password or a person's id whose login shell the
/// tree lacks: nobody can log in with them.
///
/// # Errors
/// When the tree cannot be read, or the files have too many lines.
pub fn missing_shells(files: &AccountFiles, root: &Path) -> Result<Vec<Note>> {
    let side = Side::parse(files)?;
    let mut notes = Vec::new();
    for account in side.passwd.records() {
        let (name, shell) = (&account[field::NAME], &account[field::SHELL]);
        let has_password = side.password(name).is_some_and(|p| p.is_set());
        let program = Path::new(OsStr::from_bytes(shell));
        // Without a shell it is /bin/sh.
        if shell.is_empty()
            || !(has_password || side.is_person(name))
            || has_program(root, program)?
        {
            continue;
        }
        let text = format!(
            "its shell {} is not in the target; nobody can log in with it",
            path::show(shell)
        );
        notes.push(Note::new(Reason::Shell, name, text));
    }
    Ok(notes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn who_can_log_in_has_a_password_or_is_a_person_with_a_shell() {
        let files = AccountFiles {
            passwd: b"root:x:0:0::/:/bin/sh\ndaemon:x:1:1::/:/bin/sh\nadmin:x:1000:1::/:/bin/sh\n\
                      key:x:1001:1::/:/bin/sh\nno:x:1002:1::/:/usr/sbin/nologin\n"
                .to_vec(),
            shadow: Some(
                b"root:$6$x$y:::::::\ndaemon:*:::::::\nadmin:$6$x$z:::::::\nkey:!:::::::\n\
                  no:!:::::::\n"
                    .to_vec(),
            ),
            ..AccountFiles::default()
        };
        let mut files = files;
        files.conventions.uid_min = 1000;
        let found = enterable(&files).unwrap();
        let expected = [
            ("admin".to_owned(), Entry::Password),
            ("key".to_owned(), Entry::Other),
            ("root".to_owned(), Entry::Password),
        ];
        assert_eq!(found, expected.into());
    }

    #[test]
    fn a_shell_that_the_target_lacks_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::create_dir_all(root.join("bin")).unwrap();
        fs::write(root.join("bin/sh"), "").unwrap();
        fs::set_permissions(root.join("bin/sh"), PermissionsExt::from_mode(0o755)).unwrap();
        let files = AccountFiles {
            passwd: b"a:x:1000:1::/:/bin/sh\nb:x:1001:1::/:/bin/zsh\nc:x:5:1::/:/bin/no\n\
                      d:x:1002:1::/:\n"
                .to_vec(),
            ..AccountFiles::default()
        };
        let notes = missing_shells(&files, root).unwrap();
        assert_eq!(notes.len(), 1);
        assert_eq!(notes[0].name, "b");
    }
}
