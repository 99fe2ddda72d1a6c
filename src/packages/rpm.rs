//! RPM's database: binary files that only rpm itself can read.

use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Error, Result};

use super::Package;
use crate::system::{Cmd, System};

/// Where the database may be; no package owns what is in there.
pub const DIRS: [&[u8]; 2] = [b"var/lib/rpm", b"usr/lib/sysimage/rpm"];
/// The files that hold the packages, in all formats there have been.
const FILES: [&[u8]; 6] = [
    b"Packages",
    b"Packages.db",
    b"Index.db",
    b"rpmdb.sqlite",
    b"rpmdb.sqlite-wal",
    b"rpmdb.sqlite-shm",
];

const FORMAT: &str =
    r"%{NAME}\t%|EPOCH?{%{EPOCH}:}:{}|%{VERSION}-%{RELEASE}\t%|ARCH?{%{ARCH}}:{(none)}|\n";

/// Tells which of [`DIRS`] the file `path` is a database in, and its name there.
pub fn place_of(path: &[u8]) -> Option<(usize, &'static [u8])> {
    let places = DIRS.iter().enumerate();
    places
        .filter_map(|(number, dir)| Some((number, path.strip_prefix(*dir)?.strip_prefix(b"/")?)))
        .find_map(|(number, name)| {
            let known = FILES.iter().find(|file| **file == name)?;
            Some((number, *known))
        })
}

/// Asks rpm for the packages in the database in `dir`.
///
/// # Errors
/// When there is no rpm, or it cannot read the database.
pub fn packages(sys: &dyn System, dir: &Path) -> Result<Vec<Package>> {
    let text = sys.run(&query(dir).args(["--queryformat", FORMAT]))?;
    Ok(text.lines().filter_map(parse_line).collect())
}

/// Asks rpm for the paths that belong to packages in the database in `dir`.
///
/// # Errors
/// Like [`packages`].
pub fn owned(sys: &dyn System, dir: &Path) -> Result<Vec<String>> {
    let text = sys.run(&query(dir).arg("--list"))?;
    Ok(parse_list(&text))
}

/// Asks rpm for the configuration files of packages in the database in `dir`, each
/// with the digest it was delivered with.
///
/// # Errors
/// Like [`packages`].
pub fn configuration(sys: &dyn System, dir: &Path) -> Result<Vec<(String, String)>> {
    let text = sys.run(&query(dir).args(["--configfiles", "--dump"]))?;
    Ok(text.lines().filter_map(parse_dumped).collect())
}

/// Reads a line of `rpm --dump` (rpm(8)): a path, ten fields behind it, of which
/// the third is the digest.
pub fn parse_dumped(line: &str) -> Option<(String, String)> {
    let mut fields: Vec<&str> = line.rsplitn(11, ' ').collect();
    fields.reverse();
    let [path, _size, _mtime, digest, ..] = fields[..] else {
        return None;
    };
    (fields.len() == 11).then(|| (path.to_owned(), digest.to_owned()))
}

/// Tells whether `error` means that this machine has no rpm.
pub fn is_missing(error: &Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|e| e.kind() == ErrorKind::NotFound)
    })
}

fn query(dir: &Path) -> Cmd {
    Cmd::new("rpm")
        .arg("--dbpath")
        .arg(dir)
        // Signatures too old for this machine's rules would hide packages;
        // the bundle has been proved whole already.
        .args(["--query", "--all", "--nosignature", "--nodigest"])
        .interruptible()
}

/// Reads a line of [`packages`], whose columns a tab parts.
pub fn parse_line(line: &str) -> Option<Package> {
    let mut fields = line.split('\t');
    Some(Package {
        name: fields.next()?.to_owned(),
        version: fields.next()?.to_owned(),
        architecture: fields.next()?.to_owned(),
    })
}

/// Reads what `rpm --list` prints, but for what it says of packages without files.
pub fn parse_list(text: &str) -> Vec<String> {
    let paths = text.lines().filter_map(|line| line.strip_prefix('/'));
    paths.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn databases_of_all_formats_are_known_by_their_paths() {
        for (path, place) in [
            ("var/lib/rpm/Packages", Some((0, &b"Packages"[..]))),
            (
                "usr/lib/sysimage/rpm/rpmdb.sqlite",
                Some((1, b"rpmdb.sqlite")),
            ),
            ("var/lib/rpm/__db.001", None),
            ("var/lib/rpm/deep/Packages", None),
            ("var/lib/rpmdb/Packages", None),
            ("var/lib/rpm", None),
        ] {
            assert_eq!(place_of(path.as_bytes()), place, "{path}");
        }
    }

    #[test]
    fn rpm_is_asked_for_columns_and_they_are_read() {
        let cmd = query(Path::new("/tmp/db")).args(["--queryformat", FORMAT]);
        assert!(
            cmd.to_string()
                .starts_with("rpm --dbpath /tmp/db --query --all "),
            "{cmd}"
        );
        let bash = parse_line("bash\t4.2.46-35.el7_9\tx86_64").unwrap();
        assert_eq!(bash.version, "4.2.46-35.el7_9");
        assert_eq!(parse_line("warning: odd"), None);
        let dumped = "/etc/a b 12 1700000000 e3b0c442 0100644 root root 1 0 0 X";
        let wanted = ("/etc/a b".to_owned(), "e3b0c442".to_owned());
        assert_eq!(parse_dumped(dumped), Some(wanted));
        assert_eq!(parse_dumped("(contains no files)"), None);
        let list = "/etc\n/usr/bin/x\n(contains no files)\n\n";
        assert_eq!(parse_list(list), ["etc", "usr/bin/x"]);
    }
}
