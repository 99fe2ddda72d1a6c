//! Password hashes by their kind (crypt(5)), and which of them a system can check.

use std::path::Path;

use anyhow::Result;

use super::inside::read_inside;
use super::notes::{Note, Reason};

/// A kind of hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// No password is asked for.
    Empty,
    /// No password fits.
    Locked,
    /// The classical 13 characters.
    Des,
    /// `_`, DES of BSDi.
    BigDes,
    /// `$1$`.
    Md5,
    /// `$2a$`, `$2b$`, `$2x$` and `$2y$`.
    Bcrypt,
    /// `$3$`.
    Nt,
    /// `$5$`.
    Sha256,
    /// `$6$`.
    Sha512,
    /// `$7$`.
    Scrypt,
    /// `$y$`.
    Yescrypt,
    /// `$gy$`.
    GostYescrypt,
    /// `$sha1`.
    Sha1,
    /// `$md5`.
    SunMd5,
    /// None that is known here.
    Unknown,
}

/// How the kinds begin, and what a libcrypt that knows one holds.
const PREFIXES: [(&str, Kind, &[u8]); 14] = [
    ("_", Kind::BigDes, b"_\0"),
    ("$1$", Kind::Md5, b"$1$\0"),
    ("$2a$", Kind::Bcrypt, b"$2b$\0"),
    ("$2b$", Kind::Bcrypt, b"$2b$\0"),
    ("$2x$", Kind::Bcrypt, b"$2b$\0"),
    ("$2y$", Kind::Bcrypt, b"$2b$\0"),
    ("$3$", Kind::Nt, b"$3$\0"),
    ("$5$", Kind::Sha256, b"$5$\0"),
    ("$6$", Kind::Sha512, b"$6$\0"),
    ("$7$", Kind::Scrypt, b"$7$\0"),
    ("$y$", Kind::Yescrypt, b"$y$\0"),
    ("$gy$", Kind::GostYescrypt, b"$gy$\0"),
    ("$sha1", Kind::Sha1, b"$sha1\0"),
    ("$md5", Kind::SunMd5, b"$md5\0"),
];

/// What glibc's own libcrypt checks, since 2.7.
const GLIBC: [Kind; 4] = [Kind::Des, Kind::Md5, Kind::Sha256, Kind::Sha512];

impl Kind {
    /// Tells the kind of a hash.
    pub fn of(hash: &[u8]) -> Kind {
        let is_des = |byte: &u8| byte.is_ascii_alphanumeric() || b"./".contains(byte);
        match hash {
            b"" => Kind::Empty,
            // What is neither a known prefix nor characters of DES fits nothing.
            [b'!' | b'*', ..] | b"x" => Kind::Locked,
            _ if hash.len() == 13 && hash.iter().all(is_des) => Kind::Des,
            _ => PREFIXES
                .iter()
                .find(|(prefix, ..)| hash.starts_with(prefix.as_bytes()))
                .map_or(Kind::Unknown, |(_, kind, _)| *kind),
        }
    }

    /// Tells whether somebody gets in with it, with a password or without one.
    pub fn is_open(self) -> bool {
        self != Kind::Locked
    }

    /// Tells whether there is a password that fits.
    pub fn is_set(self) -> bool {
        !matches!(self, Kind::Locked | Kind::Empty)
    }
}

/// The kinds of hashes that a system can check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checker(Vec<Kind>);

impl Checker {
    /// One that checks every kind known here.
    pub fn all() -> Checker {
        let kinds = PREFIXES.iter().map(|(_, kind, _)| *kind);
        Checker(kinds.chain([Kind::Des]).collect())
    }

    /// glibc's own, which CentOS 7 has.
    pub fn glibc() -> Checker {
        Checker(GLIBC.to_vec())
    }

    /// Tells whether it can check a hash, if there is anything to check.
    pub fn can_check(&self, hash: &[u8]) -> bool {
        let kind = Kind::of(hash);
        !kind.is_set() || self.0.contains(&kind)
    }

    /// Reads it from the bytes of a libcrypt: libxcrypt names its version and
    /// holds the prefix of each kind it was built with, glibc's does not.
    fn of_library(bytes: &[u8]) -> Checker {
        let holds = |wanted: &[u8]| bytes.windows(wanted.len()).any(|part| part == wanted);
        if !holds(b"XCRYPT_2.0") {
            return Checker::glibc();
        }
        let built_in = PREFIXES.iter().filter(|(.., proof)| holds(proof));
        let kinds = built_in.map(|(_, kind, _)| *kind);
        Checker(kinds.chain([Kind::Des]).collect())
    }
}

const LIBRARY_DIRS: [&str; 6] = [
    "usr/lib64",
    "usr/lib/x86_64-linux-gnu",
    "lib64",
    "lib/x86_64-linux-gnu",
    "usr/lib",
    "lib",
];
/// Where both are, programs of the distribution use the newer one.
const LIBRARIES: [&str; 2] = ["libcrypt.so.2", "libcrypt.so.1"];
const MAX_LIBRARY_BYTES: u64 = 8 << 20;

/// Looks into the tree of a system for what its libcrypt can check. Where there
/// is none, it counts as the least able one.
///
/// # Errors
/// When the tree cannot be read.
pub fn checkable(root: &Path) -> Result<Checker> {
    for library in LIBRARIES {
        for dir in LIBRARY_DIRS {
            let path = Path::new(dir).join(library);
            if let Some(bytes) = read_inside(root, &path, MAX_LIBRARY_BYTES)? {
                return Ok(Checker::of_library(&bytes));
            }
        }
    }
    Ok(Checker::glibc())
}

/// Names an account whose hash a system cannot check.
pub fn hash_note(name: &[u8], hash: &[u8], checker: &Checker) -> Option<Note> {
    let what = match Kind::of(hash) {
        _ if checker.can_check(hash) => return None,
        Kind::Unknown => "its password is hashed in a way nobody knows".to_owned(),
        kind => {
            let prefix = PREFIXES.iter().find(|(_, known, _)| *known == kind);
            let prefix = prefix.map_or("", |(prefix, ..)| *prefix);
            format!("its password is hashed as {prefix}, which that system cannot check")
        }
    };
    let text = format!("{what}; log in with a key, or set the password anew");
    Some(Note::new(Reason::Hash, name, text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn hashes_are_told_apart() {
        for (hash, kind) in [
            ("", Kind::Empty),
            ("!", Kind::Locked),
            ("!!", Kind::Locked),
            ("*", Kind::Locked),
            ("!$6$a$b", Kind::Locked),
            ("x", Kind::Locked),
            ("abJnggxhB/yWI", Kind::Des),
            ("_J9..rasmBYk8r9AiWNc", Kind::BigDes),
            ("$1$a$b", Kind::Md5),
            ("$2b$05$x", Kind::Bcrypt),
            ("$2y$05$x", Kind::Bcrypt),
            ("$5$a$b", Kind::Sha256),
            ("$6$rounds=5000$a$b", Kind::Sha512),
            ("$7$C6..../....a", Kind::Scrypt),
            ("$y$j9T$a$b", Kind::Yescrypt),
            ("$gy$j9T$a$b", Kind::GostYescrypt),
            ("$8$x", Kind::Unknown),
            ("secret", Kind::Unknown),
        ] {
            assert_eq!(Kind::of(hash.as_bytes()), kind, "{hash}");
        }
    }

    #[test]
    fn only_a_hash_that_cannot_be_checked_is_named_and_not_shown() {
        let yescrypt = b"$y$j9T$salt$secret";
        let note = hash_note(b"admin", yescrypt, &Checker::glibc()).unwrap();
        assert_eq!(note.name, "admin");
        assert!(note.text.contains("$y$"), "{note}");
        assert!(!note.text.contains("salt"), "{note}");
        assert!(hash_note(b"admin", yescrypt, &Checker::all()).is_none());
        for hash in ["", "!", "!$y$j9T$a$b", "$6$a$b", "abJnggxhB/yWI"] {
            assert!(hash_note(b"a", hash.as_bytes(), &Checker::glibc()).is_none());
        }
        let odd = hash_note(b"a", b"hunter2", &Checker::all()).unwrap();
        assert!(!odd.text.contains("hunter2"), "{odd}");
    }

    #[test]
    fn what_a_tree_can_check_is_read_from_its_library() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        assert_eq!(checkable(root).unwrap(), Checker::glibc());
        fs::create_dir_all(root.join("usr/lib64")).unwrap();
        std::os::unix::fs::symlink("usr/lib64", root.join("lib64")).unwrap();
        fs::write(root.join("usr/lib64/libcrypt-2.17.so"), "$6$ and more").unwrap();
        let link = root.join("usr/lib64/libcrypt.so.1");
        std::os::unix::fs::symlink("/lib64/libcrypt-2.17.so", link).unwrap();
        assert_eq!(checkable(root).unwrap(), Checker::glibc());
        let newer = root.join("usr/lib64/libcrypt.so.2");
        fs::write(&newer, "XCRYPT_2.0\0$6$\0$2b$\0").unwrap();
        let early = checkable(root).unwrap();
        assert!(early.can_check(b"$2a$05$x") && !early.can_check(b"$y$j9T$a$b"));
        fs::write(&newer, "XCRYPT_2.0\0$6$\0$y$\0").unwrap();
        assert!(checkable(root).unwrap().can_check(b"$y$j9T$a$b"));
    }

    #[test]
    fn this_machines_own_library_checks_yescrypt() {
        let checker = checkable(Path::new("/")).unwrap();
        assert!(checker.can_check(b"$y$j9T$a$b"));
        assert!(checker.can_check(b"$6$a$b"));
    }
}
