//! The `.mf` of an OVA: one line with a digest for every other file.

use std::collections::HashSet;

use anyhow::{Context, Result, bail};
use sha1::Sha1;
use sha2::{Sha256, Sha512};

use super::archive::Members;
use crate::progress::Progress;
use crate::refuse;

/// One line.
#[derive(Debug, PartialEq, Eq)]
struct Line<'t> {
    algorithm: Algorithm,
    name: &'t str,
    digest: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Algorithm {
    Sha1,
    Sha256,
    Sha512,
}

/// Checks the digest of every member that the manifest `text` names, and that
/// it names all of `needed`.
///
/// # Errors
/// Class `Refused` for a member that is missing, unlisted or not what it was.
pub fn check(
    text: &str,
    members: &Members<'_>,
    needed: &[&str],
    progress: &dyn Progress,
) -> Result<()> {
    let shown = members.shown();
    let lines = match parse(text) {
        Ok(lines) => lines,
        Err(error) => refuse!("the manifest (.mf) in {shown} cannot be read: {error:#}"),
    };
    let names: HashSet<&str> = lines.iter().map(|line| line.name).collect();
    for name in needed {
        if !names.contains(name) {
            refuse!(
                "the manifest (.mf) in {shown} has no digest of {name}, so it cannot be proved; \
                 export the VM again"
            );
        }
    }
    let mut seen = HashSet::new();
    for line in &lines {
        if !seen.insert((line.name, line.algorithm)) {
            refuse!(
                "the manifest (.mf) in {shown} has two digests of {}; export the VM again",
                line.name
            );
        }
        let Some(member) = members.find(line.name) else {
            refuse!(
                "{shown} does not hold {}, which its manifest (.mf) names; copy it again",
                line.name
            );
        };
        let found = match line.algorithm {
            Algorithm::Sha1 => members.digest::<Sha1>(member, progress),
            Algorithm::Sha256 => members.digest::<Sha256>(member, progress),
            Algorithm::Sha512 => members.digest::<Sha512>(member, progress),
        };
        if found? != line.digest {
            refuse!(
                "{} in {shown} is damaged: its digest is not the one in the manifest (.mf); \
                 copy it again",
                line.name
            );
        }
    }
    Ok(())
}

/// Reads `SHA256(name)= digest`, one a line.
fn parse(text: &str) -> Result<Vec<Line<'_>>> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines
        .map(|line| parse_line(line).with_context(|| format!("{line:.100?}")))
        .collect()
}

fn parse_line(line: &str) -> Result<Line<'_>> {
    let (algorithm, rest) = line.split_once('(').context("no digest of a file")?;
    let (name, digest) = rest.rsplit_once(')').context("no digest of a file")?;
    let (algorithm, length) = match algorithm.trim().to_ascii_uppercase().as_str() {
        "SHA1" => (Algorithm::Sha1, 40),
        "SHA256" => (Algorithm::Sha256, 64),
        "SHA512" => (Algorithm::Sha512, 128),
        other => bail!("{other} is none of SHA1, SHA256 and SHA512"),
    };
    let digest = digest.trim_start().strip_prefix('=').context("no digest")?;
    let digest = digest.trim().to_ascii_lowercase();
    if digest.len() != length || !digest.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        bail!("not a digest of {length} hex digits");
    }
    Ok(Line {
        algorithm,
        name,
        digest,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_all_three_digests_are_read() {
        let (short, long) = ("AB".repeat(20), "0".repeat(128));
        let text = format!("SHA1(a (1).ovf)= {short}\r\n\nsha512 (b.vmdk) ={long}\n");
        let lines = parse(&text).unwrap();
        assert_eq!(lines[0].name, "a (1).ovf");
        assert_eq!(lines[0].digest, short.to_lowercase());
        assert_eq!(lines[1].algorithm, Algorithm::Sha512);
        for bad in ["MD5(a)= 00", "SHA1(a)= 00", "SHA1 a", "SHA1(a) 00"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
