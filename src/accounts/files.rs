//! The six files of accounts, read from a tree that may be hostile.

use std::fmt;
use std::path::Path;

use anyhow::{Context, Result};

use super::conventions::Conventions;
use super::hashes::checkable;
use super::inside::read_inside;

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

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};
    use std::os::unix::fs::symlink;

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
}
