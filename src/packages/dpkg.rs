//! dpkg's database: plain text below `var/lib/dpkg`.

use anyhow::Result;

use super::Package;
use crate::refuse;

/// Where all of it is; no package owns what is in there.
pub const DIR: &[u8] = b"var/lib/dpkg";
/// The most that is read of each kind of file of one tree.
const MAX_BYTES: usize = 64 << 20;

/// What a file of the database tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Which packages there are.
    Status,
    /// The paths a package owns, absolute, one a line.
    List,
    /// The same with a checksum before each and no slash; of images that
    /// were made without dpkg.
    Sums,
    /// The files that make room for another package's: three lines each.
    Diversions,
}

impl Role {
    const ALL: [Role; 4] = [Role::Status, Role::List, Role::Sums, Role::Diversions];

    /// Tells what the file `path` of a tree is to the database.
    pub fn of(path: &[u8]) -> Option<Role> {
        let name = path.strip_prefix(DIR)?.strip_prefix(b"/")?;
        if let Some(name) = name.strip_prefix(b"info/") {
            return name.ends_with(b".list").then_some(Role::List);
        }
        if let Some(name) = name.strip_prefix(b"status.d/") {
            return Some(match name.ends_with(b".md5sums") {
                true => Role::Sums,
                false => Role::Status,
            });
        }
        match name {
            b"status" => Some(Role::Status),
            b"diversions" => Some(Role::Diversions),
            _ => None,
        }
    }
}

/// The text of a database.
#[derive(Debug, Default)]
pub struct Database {
    texts: [Vec<u8>; Role::ALL.len()],
}

impl Database {
    /// Begins the next file with this role.
    pub fn begin(&mut self, role: Role) {
        // Two stanzas, or two lines, must not become one.
        self.texts[role as usize].extend_from_slice(b"\n\n");
    }

    /// Adds text to the file that was begun last.
    ///
    /// # Errors
    /// Class `Refused` when it becomes too much.
    pub fn add(&mut self, role: Role, text: &[u8]) -> Result<()> {
        let own = &mut self.texts[role as usize];
        if own.len() + text.len() > MAX_BYTES {
            refuse!(
                "its dpkg database ({role:?}) has more than {MAX_BYTES} bytes; \
                 compare file by file with --files"
            );
        }
        own.extend_from_slice(text);
        Ok(())
    }

    /// Returns the installed packages.
    pub fn packages(&self) -> Vec<Package> {
        parse_status(&String::from_utf8_lossy(self.text(Role::Status)))
    }

    /// Calls `own` with every path that belongs to a package.
    pub fn each_owned(&self, own: &mut dyn FnMut(&[u8])) {
        let lines = |role| self.text(role).split(|byte| *byte == b'\n');
        for line in lines(Role::List) {
            own(line.strip_prefix(b"/").unwrap_or(line));
        }
        for line in lines(Role::Sums) {
            // 32 hexadecimal digits and two spaces.
            own(line.get(34..).unwrap_or_default());
        }
        let diversions = lines(Role::Diversions).filter(|line| !line.is_empty());
        for diverted in diversions.skip(1).step_by(3) {
            own(diverted.strip_prefix(b"/").unwrap_or(diverted));
        }
    }

    fn text(&self, role: Role) -> &[u8] {
        &self.texts[role as usize]
    }
}

/// Reads the stanzas of a status file. One without a state is of an image
/// made without dpkg, where everything that is listed is there.
fn parse_status(text: &str) -> Vec<Package> {
    text.split("\n\n").filter_map(parse_stanza).collect()
}

fn parse_stanza(stanza: &str) -> Option<Package> {
    let field = |name: &str| {
        let mut lines = stanza.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::trim))
    };
    let state = field("Status").map(|status| status.rsplit(' ').next().unwrap_or_default());
    if matches!(state, Some("not-installed" | "config-files")) {
        return None;
    }
    Some(Package {
        name: field("Package")?.to_owned(),
        version: field("Version")?.to_owned(),
        architecture: field("Architecture").unwrap_or("all").to_owned(),
    })
}

/// Reads the configuration files in a status file, each with its MD5 as delivered
/// (deb-conffiles(5)); those of packages that were removed are left out.
pub fn conffiles(status: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for stanza in status.split("\n\n") {
        let lines = stanza
            .lines()
            .skip_while(|line| !line.starts_with("Conffiles:"));
        let lines = lines.skip(1).take_while(|line| line.starts_with(' '));
        found.extend(lines.filter_map(|line| {
            let mut words = line.trim().rsplitn(2, ' ');
            let (sum, path) = (words.next()?, words.next()?);
            (sum.len() == 32).then(|| (path.to_owned(), sum.to_owned()))
        }));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "\
Package: adduser
Status: install ok installed
Priority: important
Architecture: all
Version: 3.134
Description: add and remove users and groups
 Version: not this one
 .
 Status: nor this.

Package: libc6
Status: install ok half-configured
Architecture: amd64
Multi-Arch: same
Version: 2.36-9+deb12u4

Package: removed
Status: deinstall ok config-files
Architecture: amd64
Version: 1

Package: never
Status: install ok not-installed
Architecture: amd64

Package: distroless
Version: 1:2~3
";

    #[test]
    fn what_is_installed_is_read_from_the_status() {
        let found: Vec<String> = parse_status(STATUS)
            .into_iter()
            .map(|p| format!("{} {} {}", p.name, p.version, p.architecture))
            .collect();
        assert_eq!(
            found,
            [
                "adduser 3.134 all",
                "libc6 2.36-9+deb12u4 amd64",
                "distroless 1:2~3 all",
            ]
        );
        assert_eq!(parse_status(""), []);
        assert_eq!(parse_status("Package: no-version\n\n\n\n: x\n"), []);
    }

    #[test]
    fn files_of_the_database_are_known_by_their_paths() {
        for (path, role) in [
            ("var/lib/dpkg/status", Some(Role::Status)),
            ("var/lib/dpkg/status-old", None),
            ("var/lib/dpkg/status.d/base", Some(Role::Status)),
            ("var/lib/dpkg/status.d/base.md5sums", Some(Role::Sums)),
            ("var/lib/dpkg/info/libc6:amd64.list", Some(Role::List)),
            ("var/lib/dpkg/info/libc6:amd64.md5sums", None),
            ("var/lib/dpkg/diversions", Some(Role::Diversions)),
            ("var/lib/dpkg/available", None),
            ("var/lib/dpkg", None),
            ("srv/var/lib/dpkg/status", None),
        ] {
            assert_eq!(Role::of(path.as_bytes()), role, "{path}");
        }
    }

    #[test]
    fn owned_paths_come_from_lists_checksums_and_diversions() {
        let mut database = Database::default();
        for (role, text) in [
            (Role::List, &b"/.\n/bin\n/bin/ls"[..]),
            (Role::List, b"/bin/sh\n/odd \xff"),
            (
                Role::Sums,
                b"d41d8cd98f00b204e9800998ecf8427e  etc/os-release\nshort\n",
            ),
            (
                Role::Diversions,
                b"/bin/sh\n/bin/sh.distrib\ndash\n/a\n/b\n:\n",
            ),
        ] {
            database.begin(role);
            database.add(role, text).unwrap();
        }
        let mut owned = Vec::new();
        database.each_owned(&mut |path| {
            if !path.is_empty() {
                owned.push(path.escape_ascii().to_string());
            }
        });
        assert_eq!(
            owned,
            [
                ".",
                "bin",
                "bin/ls",
                "bin/sh",
                "odd \\xff",
                "etc/os-release",
                "bin/sh.distrib",
                "b"
            ]
        );
    }

    #[test]
    fn a_database_that_is_too_large_is_refused_with_the_way_out() {
        let mut database = Database::default();
        let text = vec![b'x'; MAX_BYTES];
        database.add(Role::Status, &text).unwrap();
        let error = database.add(Role::Status, b"x").unwrap_err().to_string();
        assert!(error.contains("--files"), "{error}");
    }

    #[test]
    fn configuration_files_are_read_with_their_sums() {
        let sum = "0123456789abcdef0123456789abcdef";
        let status = format!(
            "Package: a\nConffiles:\n /etc/a b {sum}\n /etc/old {sum} obsolete\n /etc/new newconffile\n\
             Description: x\n /etc/no {sum}\n\nPackage: b\nConffiles:\n /etc/b {sum}\n"
        );
        let wanted = [("/etc/a b", sum), ("/etc/b", sum)];
        let wanted = wanted.map(|(path, sum)| (path.to_owned(), sum.to_owned()));
        assert_eq!(conffiles(&status), wanted);
    }
}
