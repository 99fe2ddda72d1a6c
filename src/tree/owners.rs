//! Owners as a user namespace shows them: all that it does not map look the same.

use std::fs;
use std::io;

use anyhow::{Context, Result};
use nix::sys::stat::FileStat;

use super::acl;
use super::xattrs::Xattr;
use crate::refuse;

/// What kernels without the setting show.
const DEFAULT_OVERFLOW: u32 = 65534;
/// All ids but the last, which stands for none.
const ALL_IDS: u64 = u32::MAX as u64;

const WAY_OUT: &str = "build as root outside of it, or in one that maps all ids";

/// The ids that may stand for any owner, none where every id is mapped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overflow {
    uid: Option<u32>,
    gid: Option<u32>,
}

impl Overflow {
    /// Asks the kernel about this process.
    ///
    /// # Errors
    /// When it answers in an unknown way.
    pub fn of_this_process() -> Result<Overflow> {
        let ask = |map: &str, overflow: &str| -> Result<Option<u32>> {
            let map = read(&format!("/proc/self/{map}"))?;
            let overflow = read(&format!("/proc/sys/kernel/{overflow}"))?;
            ambiguous_id(map.as_deref(), overflow.as_deref())
        };
        Ok(Overflow {
            uid: ask("uid_map", "overflowuid")?,
            gid: ask("gid_map", "overflowgid")?,
        })
    }

    /// Tells whether this is a user namespace of its own, as far as its maps show.
    pub fn is_in_namespace(&self) -> bool {
        self.uid.or(self.gid).is_some()
    }

    /// Checks that an entry's owner and group are known to be its own.
    ///
    /// # Errors
    /// Class `Refused`, with the way out, when one of them may be another.
    pub fn check(&self, stat: &FileStat) -> Result<()> {
        let of = |word, id: u32, overflow| (overflow == Some(id)).then_some((word, id));
        let unknown = of("user", stat.st_uid, self.uid).or(of("group", stat.st_gid, self.gid));
        let Some((word, id)) = unknown else {
            return Ok(());
        };
        refuse!(
            "it seems to belong to {word} {id}, as everything does whose owner this user namespace \
             does not map; {WAY_OUT}"
        )
    }
}

/// Checks that whoever ACLs name is known.
///
/// # Errors
/// Class `Refused`, with the way out, when somebody is not.
pub fn check_acls(xattrs: &[Xattr]) -> Result<()> {
    let is_acl = |x: &&Xattr| x.name == acl::ACCESS || x.name == acl::DEFAULT;
    if xattrs
        .iter()
        .filter(is_acl)
        .any(|x| acl::names_nobody(&x.value))
    {
        refuse!("its ACL names somebody whom this user namespace does not map; {WAY_OUT}");
    }
    Ok(())
}

fn read(path: &str) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        // A kernel without user namespaces, or a tree without /proc.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some).with_context(|| format!("reading {path}")),
    }
}

/// Returns the id that unmapped ones are shown as, if there can be any.
fn ambiguous_id(map: Option<&str>, overflow: Option<&str>) -> Result<Option<u32>> {
    let Some(map) = map else { return Ok(None) };
    let lengths = map.lines().map(|line| {
        let length = line.split_whitespace().nth(2);
        length.and_then(|length| length.parse::<u64>().ok())
    });
    let mapped: Option<u64> = lengths.sum();
    let mapped = mapped.with_context(|| format!("reading the id map {map:?}"))?;
    if mapped >= ALL_IDS {
        return Ok(None);
    }
    let Some(overflow) = overflow else {
        return Ok(Some(DEFAULT_OVERFLOW));
    };
    let overflow = overflow.trim().parse();
    overflow.map(Some).context("reading the overflow id")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_map_with_gaps_makes_an_id_ambiguous() {
        let whole = "         0          0 4294967295\n";
        let of = |map| ambiguous_id(Some(map), Some("99\n")).unwrap();
        assert_eq!(of(whole), None);
        assert_eq!(of("0 1 1\n1 0 1\n2 2 4294967293\n"), None);
        assert_eq!(of("0 1000 1\n"), Some(99));
        assert_eq!(of("0 1000 1\n1 100000 65536\n"), Some(99));
        assert_eq!(of(""), Some(99), "no id is mapped yet");
        assert_eq!(ambiguous_id(None, None).unwrap(), None);
        assert_eq!(ambiguous_id(Some("0 0 1"), None).unwrap(), Some(65534));
        assert!(ambiguous_id(Some("0 0 x"), None).is_err());
    }
}
