//! The six files of accounts, read from a tree that may be hostile.

use std::fmt;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, Result};

use super::conventions::Conventions;
use super::hashes::{checkable, has_program};
use super::notes::{Note, Reason};
use super::side::Side;
use super::table::field;
use crate::refuse;
use crate::tree::resolve;

const MAX_BYTES: u64 = 16 << 20;
const MAX_SETTINGS_BYTES: u64 = 1 << 20;

/// The account files of a system; all but passwd may be absent.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct AccountFiles {
    /// `/etc/passwd`
    pub passwd: Vec<u8>,
    /// `/etc/shadow`
    pub shadow: Option<Vec<u8>>,
    /// `/etc/group`
    pub group: Option<Vec<u8>>,
    /// `/etc/gshadow`
    pub gshadow: Option<Vec<u8>>,
    /// `/etc/subuid`
    pub subuid: Option<Vec<u8>>,
    /// `/etc/subgid`
    pub subgid: Option<Vec<u8>>,
    /// What else the system says of accounts.
    pub conventions: Conventions,
}

/// Shows sizes: the texts hold secrets.
impl fmt::Debug for AccountFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = |text: &Option<Vec<u8>>| text.as_ref().map(Vec::len);
        f.debug_struct("AccountFiles")
            .field("passwd", &self.passwd.len())
            .field("shadow", &size(&self.shadow))
            .field("group", &size(&self.group))
            .field("gshadow", &size(&self.gshadow))
            .field("subuid", &size(&self.subuid))
            .field("subgid", &size(&self.subgid))
            .field("conventions", &self.conventions)
            .finish()
    }
}

impl AccountFiles {
    /// Reads them from the tree of a system, without leaving it.
    ///
    /// # Errors
    /// When there is no passwd, one of them is no file or cannot be read, or, of
    /// class `Refused`, is larger than 16 MiB.
    pub fn read(root: &Path) -> Result<AccountFiles> {
        let read = |name: &str| read_inside(root, &Path::new("etc").join(name), MAX_BYTES);
        let settings = |name: &str| -> Result<String> {
            let path = Path::new("etc").join(name);
            let text = read_inside(root, &path, MAX_SETTINGS_BYTES)?.unwrap_or_default();
            Ok(String::from_utf8_lossy(&text).into_owned())
        };
        Ok(AccountFiles {
            passwd: read("passwd")?.context("there is no /etc/passwd")?,
            shadow: read("shadow")?,
            group: read("group")?,
            gshadow: read("gshadow")?,
            subuid: read("subuid")?,
            subgid: read("subgid")?,
            conventions: Conventions::parse(
                &settings("login.defs")?,
                &settings("nsswitch.conf")?,
                checkable(root)?,
            ),
        })
    }
}

/// Reads a file of a tree; `None` if there is none.
pub(super) fn read_inside(root: &Path, path: &Path, max_bytes: u64) -> Result<Option<Vec<u8>>> {
    let context = || format!("reading /{}", path.display());
    let Some(found) = resolve::resolve(root, path).with_context(context)? else {
        return Ok(None);
    };
    let file = root.join(found);
    // Opening a named pipe would wait for its other end.
    if !fs::symlink_metadata(&file).with_context(context)?.is_file() {
        refuse!("/{} is no file", path.display());
    }
    let mut bytes = Vec::new();
    let mut file = File::open(file).with_context(context)?.take(max_bytes + 1);
    file.read_to_end(&mut bytes).with_context(context)?;
    if bytes.len() as u64 > max_bytes {
        refuse!("/{} is larger than {} MiB", path.display(), max_bytes >> 20);
    }
    Ok(Some(bytes))
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
        let path = Path::new(std::ffi::OsStr::from_bytes(shell));
        // Without a shell it is /bin/sh.
        if shell.is_empty() || !(has_password || side.is_person(name)) || has_program(root, path)? {
            continue;
        }
        let text = format!(
            "its shell {} is not in the target; nobody can log in with it",
            crate::tree::path::show(shell)
        );
        notes.push(Note::new(Reason::Shell, name, text));
    }
    Ok(notes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn files_are_read_inside_the_tree_and_within_bounds() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::create_dir(root.join("etc")).unwrap();
        assert!(AccountFiles::read(root).is_err());
        symlink("/etc/accounts", root.join("etc/passwd")).unwrap();
        fs::write(root.join("etc/accounts"), "root:x:0:0::/:/bin/sh\n").unwrap();
        fs::write(root.join("etc/login.defs"), "UID_MIN 500\n").unwrap();
        let files = AccountFiles::read(root).unwrap();
        assert_eq!(files.passwd, b"root:x:0:0::/:/bin/sh\n");
        assert_eq!((&files.shadow, files.conventions.uid_min), (&None, 500));
        let shadow = File::create(root.join("etc/shadow")).unwrap();
        shadow.set_len(MAX_BYTES + 1).unwrap();
        let error = AccountFiles::read(root).unwrap_err();
        assert_eq!(format!("{error:#}"), "/etc/shadow is larger than 16 MiB");
        fs::remove_file(root.join("etc/shadow")).unwrap();
        fs::create_dir(root.join("etc/shadow")).unwrap();
        assert!(AccountFiles::read(root).is_err());
    }

    #[test]
    fn a_message_about_files_shows_no_secret() {
        let files = AccountFiles {
            passwd: b"root:secret:0:0::/:/bin/sh\n".to_vec(),
            shadow: Some(b"root:secret:::::::\n".to_vec()),
            ..AccountFiles::default()
        };
        let bytes = format!("{:?}", b"secret");
        let shown = format!("{files:?}");
        assert!(
            !shown.contains("secret") && !shown.contains(&bytes),
            "{shown}"
        );
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
