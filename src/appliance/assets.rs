//! What a system proves itself with, and who gets in: its certificates, whether its
//! clock is synchronized, its accounts. Written down before an upgrade, for the report
//! after it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::context::Appliance;
use crate::accounts::{AccountFiles, Entry, enterable};
use crate::linux::x509::{self, Validity};
use crate::system::Cmd;

/// The record's name in a slot's directory on `/boot`.
pub const FILE: &str = "assets.yaml";

/// Where servers that have certificates keep their settings.
const SETTINGS: [&str; 9] = [
    "/etc/apache2",
    "/etc/dovecot",
    "/etc/haproxy",
    "/etc/httpd",
    "/etc/ldap",
    "/etc/lighttpd",
    "/etc/nginx",
    "/etc/openldap",
    "/etc/postfix",
];

/// What they call the file of a certificate.
const WORDS: [&str; 8] = [
    "SSLCertificateFile",
    "crt",
    "olcTLSCertificateFile",
    "smtpd_tls_cert_file",
    "ssl.pemfile",
    "ssl_cert",
    "ssl_certificate",
    "TLSCertificateFile",
];

/// The most files of settings that are read of one server.
const MAX_FILES: usize = 200;

/// The most that is read of one, in bytes.
const MAX_BYTES: u64 = 256 << 10;

/// How deep their directories are looked into.
const MAX_DEPTH: usize = 3;

/// The most certificates and accounts that are written down: a record is small.
const MAX_CERTIFICATES: usize = 100;
const MAX_ACCOUNTS: usize = 500;

/// The longest path that is written down, in bytes.
const MAX_PATH_BYTES: usize = 200;

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assets {
    /// When each certificate is valid; `None` where there is none that can be read.
    #[serde(default)]
    pub certificates: BTreeMap<PathBuf, Option<Validity>>,
    /// Whether the clock is synchronized; `None` where nobody can tell.
    #[serde(default)]
    pub is_synchronized: Option<bool>,
    /// Who can log in, and how; `None` where that cannot be read.
    #[serde(default)]
    pub accounts: Option<BTreeMap<String, Entry>>,
}

impl Assets {
    /// Looks at the running system; what cannot be read is not known.
    pub fn look(appliance: &Appliance) -> Assets {
        let files = AccountFiles::read(&appliance.at("/"));
        let accounts = files.and_then(|files| enterable(&files)).ok();
        Assets {
            certificates: certificates(appliance),
            is_synchronized: is_synchronized(appliance),
            accounts: accounts.map(|all| all.into_iter().take(MAX_ACCOUNTS).collect()),
        }
    }
}

/// Asks the service that every systemd since 219 has.
fn is_synchronized(appliance: &Appliance) -> Option<bool> {
    const SERVICE: &str = "org.freedesktop.timedate1";
    let ask = Cmd::new("busctl").args([
        "get-property",
        SERVICE,
        "/org/freedesktop/timedate1",
        SERVICE,
        "NTPSynchronized",
    ]);
    match appliance.sys.run(&ask).ok()?.trim() {
        "b true" => Some(true),
        "b false" => Some(false),
        _ => None,
    }
}

fn certificates(appliance: &Appliance) -> BTreeMap<PathBuf, Option<Validity>> {
    let mut paths: BTreeSet<PathBuf> = appliance.config.certificates.iter().cloned().collect();
    for dir in SETTINGS {
        let mut files = Vec::new();
        list(&appliance.at(dir), MAX_DEPTH, &mut files);
        for file in files {
            let text = read(&file, MAX_BYTES).unwrap_or_default();
            paths.extend(named_in(&String::from_utf8_lossy(&text)));
        }
    }
    let is_short = |path: &PathBuf| path.as_os_str().len() <= MAX_PATH_BYTES;
    let paths = paths.into_iter().filter(is_short).take(MAX_CERTIFICATES);
    let validity = |path: &Path| {
        let content = read(&appliance.at(path), x509::MAX_BYTES)?;
        x509::validity(&content)
    };
    paths.map(|path| (path.clone(), validity(&path))).collect()
}

/// Lists the files in `dir` and in its directories.
fn list(dir: &Path, depth: usize, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        if kind.is_dir() && depth > 1 {
            list(&path, depth - 1, files);
        } else if files.len() < MAX_FILES && path.is_file() {
            files.push(path);
        }
    }
}

fn read(path: &Path, max_bytes: u64) -> Option<Vec<u8>> {
    if !path.is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    let file = File::open(path).ok()?;
    file.take(max_bytes).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// Lists the files of certificates that settings name: the word for it, then, perhaps
/// behind a sign or in quotes, the path.
fn named_in(text: &str) -> Vec<PathBuf> {
    let is_between = |c: char| c.is_whitespace() || "=\"';<".contains(c);
    let lines = text
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'));
    let pairs = lines.flat_map(|line| {
        let words: Vec<&str> = line.split(is_between).filter(|it| !it.is_empty()).collect();
        let pairs: Vec<(&str, &str)> = words.windows(2).map(|pair| (pair[0], pair[1])).collect();
        pairs
    });
    let is_one = |(word, path): &(&str, &str)| {
        WORDS.contains(&word.trim_end_matches(':')) && path.starts_with('/')
    };
    pairs
        .filter(is_one)
        .map(|(_, path)| PathBuf::from(path))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_found_in_the_settings_of_several_servers() {
        let text = "\
            # ssl_certificate /old.pem;\n\
            server { ssl_certificate     /etc/ssl/a.pem; ssl_certificate_key /etc/ssl/k.pem; }\n\
            SSLCertificateFile \"/etc/pki/b.crt\"\n\
            smtpd_tls_cert_file=/etc/c.pem\n\
            ssl_cert = </etc/dovecot/d.pem\n\
            bind *:443 ssl crt /etc/haproxy/e.pem\n\
            ssl_certificate relative.pem;\n";
        let found = named_in(text);
        let names = found.iter().map(|path| path.to_str().unwrap());
        assert_eq!(
            names.collect::<Vec<_>>(),
            [
                "/etc/ssl/a.pem",
                "/etc/pki/b.crt",
                "/etc/c.pem",
                "/etc/dovecot/d.pem",
                "/etc/haproxy/e.pem"
            ]
        );
    }
}
