//! POSIX ACLs: the kernel's binary form and the text that stands in tars.

use std::fmt::Write;

use anyhow::{Context, Result, bail, ensure};

/// The attribute that holds a file's access ACL.
pub const ACCESS: &[u8] = b"system.posix_acl_access";
/// The attribute that holds a directory's default ACL.
pub const DEFAULT: &[u8] = b"system.posix_acl_default";

const VERSION: u32 = 2;
const NO_ID: u32 = u32::MAX;
const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

/// Renders an attribute as text with numeric ids; `None` if it is not an ACL.
pub fn to_text(blob: &[u8]) -> Option<String> {
    let body = blob.strip_prefix(&VERSION.to_le_bytes())?;
    if body.is_empty() || body.len() % 8 != 0 {
        return None;
    }
    let mut text = String::new();
    for entry in body.chunks_exact(8) {
        let tag = u16::from_le_bytes([entry[0], entry[1]]);
        let perm = u16::from_le_bytes([entry[2], entry[3]]);
        let id = u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]);
        let word = match tag {
            USER_OBJ | USER => "user",
            GROUP_OBJ | GROUP => "group",
            MASK => "mask",
            OTHER => "other",
            _ => return None,
        };
        if perm > 7 {
            return None;
        }
        let comma = if text.is_empty() { "" } else { "," };
        let named = matches!(tag, USER | GROUP);
        let id = if named { id.to_string() } else { String::new() };
        let bit = |mask: u16, letter| if perm & mask != 0 { letter } else { '-' };
        let (r, w, x) = (bit(4, 'r'), bit(2, 'w'), bit(1, 'x'));
        write!(text, "{comma}{word}:{id}:{r}{w}{x}").ok()?;
    }
    Some(text)
}

/// Tells whether the kernel takes an attribute as an ACL: entries in its order, one
/// each for the owner, the group and others, and a mask where somebody is named
/// (`posix_acl_valid` in fs/posix_acl.c).
pub fn is_legal(blob: &[u8]) -> bool {
    let Some(body) = blob.strip_prefix(&VERSION.to_le_bytes()) else {
        return false;
    };
    if body.is_empty() || to_text(blob).is_none() {
        return false;
    }
    let tags: Vec<u16> = body
        .chunks_exact(8)
        .map(|e| u16::from_le_bytes([e[0], e[1]]))
        .collect();
    let count = |tag| tags.iter().filter(|t| **t == tag).count();
    let names_somebody = count(USER) + count(GROUP) > 0;
    tags.is_sorted()
        && [USER_OBJ, GROUP_OBJ, OTHER]
            .iter()
            .all(|tag| count(*tag) == 1)
        && count(MASK) <= 1
        && (count(MASK) == 1 || !names_somebody)
}

/// What a mode shows of an ACL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permissions {
    /// Read, write and execute of owner, group and others.
    pub mode: u32,
    /// The ACL says no more than that, and the kernel keeps none.
    pub is_all: bool,
}

/// Returns what the mode of a file with this access ACL shows: the mask, where
/// there is one, in the place of the group. `None` if it is not an ACL.
pub fn permissions(blob: &[u8]) -> Option<Permissions> {
    to_text(blob)?;
    let (entries, _) = blob[VERSION.to_le_bytes().len()..].as_chunks::<8>();
    let of = |wanted: u16| {
        let entry = entries
            .iter()
            .find(|e| [e[0], e[1]] == wanted.to_le_bytes());
        entry.map(|e| u32::from(e[2]))
    };
    let group = of(MASK).or(of(GROUP_OBJ))?;
    Some(Permissions {
        mode: of(USER_OBJ)? << 6 | group << 3 | of(OTHER)?,
        is_all: entries.len() == 3 && of(MASK).is_none(),
    })
}

/// Tells whether an attribute is an ACL with an entry for somebody that the
/// kernel could not name: such an entry has the id that stands for none.
pub fn names_nobody(blob: &[u8]) -> bool {
    let entries = blob.strip_prefix(&VERSION.to_le_bytes());
    entries.unwrap_or_default().as_chunks().0.iter().any(
        |[tag @ .., _, _, a, b, c, d]: &[u8; 8]| {
            let tag = u16::from_le_bytes(*tag);
            matches!(tag, USER | GROUP) && u32::from_le_bytes([*a, *b, *c, *d]) == NO_ID
        },
    )
}

/// Adds the ids that an ACL names.
pub fn ids(blob: &[u8], users: &mut Vec<u32>, groups: &mut Vec<u32>) {
    let entries = blob.strip_prefix(&VERSION.to_le_bytes());
    for [t0, t1, _, _, id @ ..] in entries.unwrap_or_default().as_chunks::<8>().0 {
        match u16::from_le_bytes([*t0, *t1]) {
            USER => users.push(u32::from_le_bytes(*id)),
            GROUP => groups.push(u32::from_le_bytes(*id)),
            _ => {}
        }
    }
}

/// Returns an ACL in which each user and each group it names has the id that
/// `user` or `group` answers; `None` if it is not an ACL.
pub fn with_ids(
    blob: &[u8],
    user: impl Fn(u32) -> u32,
    group: impl Fn(u32) -> u32,
) -> Option<Vec<u8>> {
    to_text(blob)?;
    let (version, entries) = blob.split_at(VERSION.to_le_bytes().len());
    let mut entries: Vec<(u16, u32, [u8; 2])> = entries
        .as_chunks::<8>()
        .0
        .iter()
        .map(|[t0, t1, p0, p1, id @ ..]| {
            let (tag, id) = (u16::from_le_bytes([*t0, *t1]), u32::from_le_bytes(*id));
            let id = match tag {
                USER => user(id),
                GROUP => group(id),
                _ => id,
            };
            (tag, id, [*p0, *p1])
        })
        .collect();
    // Tools look for an id in this order; what is sorted stays as it was.
    entries.sort_by_key(|(tag, id, _)| (*tag, *id));
    let mut rewritten = version.to_vec();
    for (tag, id, perm) in entries {
        rewritten.extend(tag.to_le_bytes());
        rewritten.extend(perm);
        rewritten.extend(id.to_le_bytes());
    }
    Some(rewritten)
}

/// Reads the text of an ACL: entries parted by commas or newlines, ids
/// numeric, either in the name's place or in a fourth field.
pub fn from_text(text: &[u8]) -> Result<Vec<u8>> {
    let text = str::from_utf8(text).context("an ACL is not text")?;
    ensure!(text.len() <= 64 << 10, "an ACL is longer than 64 KiB");
    let mut entries = Vec::new();
    for part in text.split([',', '\n']) {
        let part = part.split('#').next().unwrap_or_default().trim();
        if !part.is_empty() {
            entries.push(parse_entry(part).with_context(|| format!("ACL entry {part:.60?}"))?);
        }
    }
    ensure!(!entries.is_empty(), "an ACL is empty");
    // The kernel accepts entries in this order only.
    entries.sort_unstable();
    let mut blob = VERSION.to_le_bytes().to_vec();
    for (tag, id, perm) in entries {
        blob.extend(tag.to_le_bytes());
        blob.extend(perm.to_le_bytes());
        blob.extend(id.to_le_bytes());
    }
    Ok(blob)
}

fn parse_entry(part: &str) -> Result<(u16, u32, u16)> {
    let part = part.strip_prefix("default:").unwrap_or(part);
    let fields: Vec<&str> = part.split(':').collect();
    let (word, name, perm, number) = match fields[..] {
        // Some write `mask:rwx` and `other:r--` without the empty field.
        [word, perm] => (word, "", perm, None),
        [word, name, perm] => (word, name, perm, None),
        [word, name, perm, number] => (word, name, perm, Some(number)),
        _ => bail!("it has {} fields", fields.len()),
    };
    let tag = match (word, name.is_empty()) {
        ("user" | "u", true) => USER_OBJ,
        ("user" | "u", false) => USER,
        ("group" | "g", true) => GROUP_OBJ,
        ("group" | "g", false) => GROUP,
        ("mask" | "m", true) => MASK,
        ("other" | "o", true) => OTHER,
        _ => bail!("its kind is unknown"),
    };
    let id = match tag {
        USER | GROUP => number.unwrap_or(name).parse().ok().with_context(|| {
            format!("{name:?} is not a number; GNU tar also keeps the numbers with --xattrs --xattrs-include='*'")
        })?,
        _ => NO_ID,
    };
    let mut bits = 0;
    for letter in perm.bytes() {
        bits |= match letter {
            b'r' => 4,
            b'w' => 2,
            b'x' => 1,
            b'-' => 0,
            _ => bail!("its permissions are unknown"),
        };
    }
    Ok((tag, id, bits))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "user::rwx,user:5:r--,user:1000:---,group::r-x,mask::r-x,other::---";

    #[test]
    fn an_acl_survives_text_in_any_of_its_dialects() {
        let blob = from_text(TEXT.as_bytes()).unwrap();
        assert_eq!(to_text(&blob).unwrap(), TEXT);
        for dialect in [
            "user::rwx\nother::---\nuser:1000:---\nuser:5:r--\t#effective:r--\ngroup::r-x\nmask::r-x\n",
            "u::rwx,user:joe:---:1000,user:ann:r--:5,g::r-x,m:r-x,o:---",
        ] {
            assert_eq!(from_text(dialect.as_bytes()).unwrap(), blob, "{dialect}");
        }
    }

    #[test]
    fn an_entry_for_nobody_is_found() {
        for (text, expected) in [
            (TEXT, false),
            (
                "user::rwx,user:4294967295:r--,group::r-x,mask::r-x,other::---",
                true,
            ),
            (
                "user::rwx,group:4294967295:r--,group::r-x,mask::r-x,other::---",
                true,
            ),
        ] {
            assert_eq!(names_nobody(&from_text(text.as_bytes()).unwrap()), expected);
        }
        assert!(!names_nobody(b"something else"));
    }

    #[test]
    fn what_is_not_an_acl_is_refused() {
        for text in ["", "user:joe:rwx", "user::rwz", "x::rwx", "user:1:2:3:4"] {
            assert!(from_text(text.as_bytes()).is_err(), "{text}");
        }
        for blob in [&b""[..], b"\x02\0\0\0", b"\x03\0\0\0\x01\0\x07\0\0\0\0\0"] {
            assert!(to_text(blob).is_none());
        }
    }
}
