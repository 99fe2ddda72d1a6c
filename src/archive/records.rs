//! The records of pax extended headers, as any of the usual tars writes them.

use std::collections::BTreeMap;

use anyhow::{Context, Error, Result, bail, ensure};

use super::sparse::MapBuilder;
use crate::tree::acl;
use crate::tree::holes::Extent;
use crate::tree::meta::Mtime;
use crate::tree::xattrs::{self, SELINUX, Xattr};

/// What the kernel allows an attribute's name and its value (`XATTR_NAME_MAX`,
/// `XATTR_SIZE_MAX`).
const MAX_XATTR_NAME_BYTES: usize = 255;
const MAX_XATTR_BYTES: usize = 64 << 10;
/// The most that the attributes of one inode may take, names included.
const MAX_XATTRS_BYTES: usize = 1 << 20;

/// What global headers say about every member behind them, as little as can be
/// true of more than one. It is copied for each of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Globals {
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub mtime: Option<Mtime>,
}

impl Globals {
    /// Applies the body of a global header.
    ///
    /// # Errors
    /// When it says what can only be true of one member.
    pub fn apply(&mut self, mut body: &[u8]) -> Result<()> {
        const OF_ONE: [&[u8]; 3] = [b"path", b"linkpath", b"size"];
        const FAMILIES_OF_ONE: [&[u8]; 5] = [
            b"GNU.sparse.",
            b"LIBARCHIVE.xattr.",
            b"RHT.security.selinux",
            b"SCHILY.acl.",
            b"SCHILY.xattr.",
        ];
        while !body.is_empty() {
            let (key, value, rest) = split_record(body)?;
            let is_of_one =
                OF_ONE.contains(&key) || FAMILIES_OF_ONE.iter().any(|f| key.starts_with(f));
            ensure!(
                !is_of_one,
                "a global header says {:.80}, which only a member's own may",
                key.escape_ascii()
            );
            self.record(key, value)
                .with_context(|| format!("record {}", key.escape_ascii()))?;
            body = rest;
        }
        Ok(())
    }

    fn record(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        match key {
            b"uid" => self.uid = optional(value)?,
            b"gid" => self.gid = optional(value)?,
            b"mtime" if value.is_empty() => self.mtime = None,
            b"mtime" => self.mtime = Some(parse_time(value)?),
            _ => {}
        }
        Ok(())
    }
}

/// What extended headers say about the member that follows.
#[derive(Debug, Default)]
pub struct Overrides {
    pub path: Option<Vec<u8>>,
    pub link_path: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub mtime: Option<Mtime>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    xattr_bytes: usize,
    /// ACLs whose text cannot be read, such as one with names of users.
    unread_acls: BTreeMap<&'static [u8], Error>,
    pub sparse: Option<Sparse>,
}

/// What they say about a sparse file.
#[derive(Debug, Default)]
pub struct Sparse {
    pub name: Option<Vec<u8>>,
    pub real_size: Option<u64>,
    /// Format 1.0: the map stands before the data.
    pub map_in_data: bool,
    map: MapBuilder,
}

impl Sparse {
    /// Returns the map of formats 0.0 and 0.1.
    pub fn into_map(self) -> Result<Vec<Extent>> {
        self.map.finish()
    }
}

impl Overrides {
    /// Begins with what global headers say.
    pub fn new(globals: Globals) -> Overrides {
        Overrides {
            uid: globals.uid,
            gid: globals.gid,
            mtime: globals.mtime,
            ..Overrides::default()
        }
    }

    /// Takes the name: what a sparse file is really called comes first.
    pub fn take_name(&mut self) -> Option<Vec<u8>> {
        let sparse_name = self.sparse.as_mut().and_then(|s| s.name.take());
        sparse_name.or_else(|| self.path.take())
    }

    /// Takes the attributes, sorted by name.
    ///
    /// # Errors
    /// When an ACL could be read in no form.
    pub fn take_xattrs(&mut self) -> Result<Vec<Xattr>> {
        for (name, error) in std::mem::take(&mut self.unread_acls) {
            if !self.xattrs.contains_key(name) {
                return Err(error.context(format!("attribute {}", name.escape_ascii())));
            }
        }
        let xattrs = std::mem::take(&mut self.xattrs).into_iter();
        Ok(xattrs.map(|(name, value)| Xattr { name, value }).collect())
    }

    /// Applies the body of an extended header.
    pub fn apply(&mut self, mut body: &[u8]) -> Result<()> {
        while !body.is_empty() {
            let (key, value, rest) = split_record(body)?;
            self.record(key, value)
                .with_context(|| format!("record {}", key.escape_ascii()))?;
            body = rest;
        }
        Ok(())
    }

    fn record(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        match key {
            b"path" => self.path = text(value),
            b"linkpath" => self.link_path = text(value),
            b"size" => self.size = optional(value)?,
            b"uid" => self.uid = optional(value)?,
            b"gid" => self.gid = optional(value)?,
            b"mtime" if !value.is_empty() => self.mtime = Some(parse_time(value)?),
            b"RHT.security.selinux" => self.attribute(SELINUX, value.to_vec())?,
            // The binary form, where both are there, has no names in it.
            b"SCHILY.acl.access" => self.acl(acl::ACCESS, value)?,
            b"SCHILY.acl.default" => self.acl(acl::DEFAULT, value)?,
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.attribute(&unescape(name), value.to_vec())?;
                } else if let Some(name) = key.strip_prefix(b"LIBARCHIVE.xattr.") {
                    self.attribute(&unescape(name), decode_base64(value)?)?;
                } else if let Some(word) = key.strip_prefix(b"GNU.sparse.") {
                    self.sparse(word, value)?;
                }
            }
        }
        Ok(())
    }

    fn attribute(&mut self, name: &[u8], value: Vec<u8>) -> Result<()> {
        if !xattrs::is_kept(name) || name.contains(&0) {
            return Ok(());
        }
        ensure!(
            name.len() <= MAX_XATTR_NAME_BYTES && value.len() <= MAX_XATTR_BYTES,
            "an attribute has a name of {} and a value of {} bytes, more than \
             {MAX_XATTR_NAME_BYTES} or {MAX_XATTR_BYTES}",
            name.len(),
            value.len()
        );
        self.xattr_bytes += name.len() + value.len();
        if let Some(last) = self.xattrs.insert(name.to_vec(), value) {
            self.xattr_bytes -= name.len() + last.len();
        }
        ensure!(
            self.xattr_bytes <= MAX_XATTRS_BYTES,
            "its attributes have more than {MAX_XATTRS_BYTES} bytes"
        );
        Ok(())
    }

    fn acl(&mut self, name: &'static [u8], value: &[u8]) -> Result<()> {
        if value.is_empty() || self.xattrs.contains_key(name) {
            return Ok(());
        }
        match acl::from_text(value) {
            Ok(blob) => self.attribute(name, blob),
            // The binary form may follow.
            Err(error) => {
                self.unread_acls.insert(name, error);
                Ok(())
            }
        }
    }

    fn sparse(&mut self, word: &[u8], value: &[u8]) -> Result<()> {
        let sparse = self.sparse.get_or_insert_default();
        match word {
            b"major" => {
                ensure!(
                    matches!(value, b"0" | b"1"),
                    "sparse format {} is unknown",
                    value.escape_ascii()
                );
                sparse.map_in_data = value == b"1";
            }
            b"name" => sparse.name = text(value),
            b"realsize" | b"size" => sparse.real_size = optional(value)?,
            b"offset" | b"numbytes" => sparse.map.push(number(value)?)?,
            b"map" => {
                for part in value.split(|b| *b == b',').filter(|p| !p.is_empty()) {
                    sparse.map.push(number(part)?)?;
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// Splits `LENGTH KEY=VALUE\n` off the front.
fn split_record(body: &[u8]) -> Result<(&[u8], &[u8], &[u8])> {
    let space = body.iter().take(20).position(|b| *b == b' ');
    let length = space.and_then(|end| number::<usize>(&body[..end]).ok());
    let (Some(space), Some(length)) = (space, length) else {
        bail!("an extended header does not start with its length");
    };
    let record = body.get(space + 1..length);
    let Some(record) = record.and_then(|r| r.strip_suffix(b"\n")) else {
        bail!("an extended header has a record of {length} bytes that does not fit");
    };
    let Some(equals) = record.iter().position(|b| *b == b'=') else {
        bail!("an extended header has a record without a value");
    };
    Ok((&record[..equals], &record[equals + 1..], &body[length..]))
}

fn text(value: &[u8]) -> Option<Vec<u8>> {
    Some(value.to_vec()).filter(|v| !v.is_empty())
}

fn optional<T: std::str::FromStr>(value: &[u8]) -> Result<Option<T>> {
    match value {
        b"" => Ok(None),
        value => number(value).map(Some),
    }
}

fn number<T: std::str::FromStr>(value: &[u8]) -> Result<T> {
    let is_plain = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    let parsed = str::from_utf8(value).ok().and_then(|v| v.parse().ok());
    match parsed {
        Some(number) if is_plain => Ok(number),
        _ => bail!("{:.40} is not a number it may have", value.escape_ascii()),
    }
}

fn parse_time(value: &[u8]) -> Result<Mtime> {
    let (is_negative, digits) = match value.strip_prefix(b"-") {
        Some(digits) => (true, digits),
        None => (false, value),
    };
    let mut parts = digits.splitn(2, |b| *b == b'.');
    let seconds: i64 = number(parts.next().unwrap_or_default())?;
    let mut nanoseconds = 0_u32;
    let mut scale = 100_000_000;
    for byte in parts.next().unwrap_or_default() {
        ensure!(byte.is_ascii_digit(), "it is not a time");
        nanoseconds += u32::from(byte - b'0') * scale;
        scale /= 10;
    }
    Ok(match (is_negative, nanoseconds) {
        (false, _) => Mtime {
            seconds,
            nanoseconds,
        },
        (true, 0) => Mtime {
            seconds: -seconds,
            nanoseconds: 0,
        },
        (true, _) => Mtime {
            seconds: -seconds - 1,
            nanoseconds: 1_000_000_000 - nanoseconds,
        },
    })
}

/// Undoes `%3D` and its like.
fn unescape(name: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(name.len());
    let mut at = 0;
    while at < name.len() {
        let hex = (name[at] == b'%')
            .then(|| name.get(at + 1..at + 3))
            .flatten()
            .and_then(|digits| str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        plain.push(hex.unwrap_or(name[at]));
        at += if hex.is_some() { 3 } else { 1 };
    }
    plain
}

fn decode_base64(text: &[u8]) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count) = (0_u32, 0);
    for letter in text.iter().filter(|b| **b != b'=' && **b != b'\n') {
        let value = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => bail!("it is not base64"),
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count).to_le_bytes()[0]);
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(body: &[u8]) -> Result<Overrides> {
        let mut overrides = Overrides::default();
        overrides.apply(body)?;
        Ok(overrides)
    }

    #[test]
    fn records_of_all_dialects_are_understood() {
        let mut body = Vec::new();
        for record in [
            &b"path=a\nb/c"[..],
            b"mtime=-1.500000000999999",
            b"uid=123",
            b"comment=whatever",
            b"LIBARCHIVE.xattr.user.a%20b=AQID",
            b"SCHILY.xattr.user.x%3Dy=\0",
            b"RHT.security.selinux=system_u:x:y",
        ] {
            // Two digits, the space and the newline count as well.
            body.extend(format!("{:02} ", record.len() + 4).bytes());
            body.extend(record);
            body.push(b'\n');
        }
        let overrides = apply(&body);
        let overrides = overrides.unwrap();
        assert_eq!(overrides.path.as_deref(), Some(&b"a\nb/c"[..]));
        assert_eq!(overrides.uid, Some(123));
        let mtime = overrides.mtime.unwrap();
        assert_eq!((mtime.seconds, mtime.nanoseconds), (-2, 500_000_000));
        let xattrs: Vec<(&[u8], &[u8])> = overrides
            .xattrs
            .iter()
            .map(|(name, value)| (&name[..], &value[..]))
            .collect();
        assert_eq!(
            xattrs,
            [
                (&b"security.selinux"[..], &b"system_u:x:y"[..]),
                (b"user.a b", b"\x01\x02\x03"),
                (b"user.x=y", b"\0"),
            ]
        );
    }

    #[test]
    fn a_binary_acl_wins_over_its_text() {
        let text = b"user::rwx,group::r--,other::---";
        for order in [false, true] {
            let mut overrides = Overrides::default();
            let binary = |o: &mut Overrides| {
                o.record(b"SCHILY.xattr.system.posix_acl_access", b"B")
                    .unwrap()
            };
            if order {
                binary(&mut overrides);
            }
            for text in [&text[..], b"user:somebody:r--"] {
                overrides.record(b"SCHILY.acl.access", text).unwrap();
            }
            if !order {
                binary(&mut overrides);
            }
            let xattrs = overrides.take_xattrs().unwrap();
            assert_eq!((xattrs.len(), &xattrs[0].value[..]), (1, &b"B"[..]));
        }
    }

    #[test]
    fn an_acl_with_names_is_refused_unless_its_binary_form_is_there() {
        let named = b"44 SCHILY.acl.access=user::rwx,user:ann:r--\n";
        let mut overrides = apply(named).unwrap();
        let error = overrides.take_xattrs().unwrap_err();
        assert!(format!("{error:#}").contains("\"ann\""), "{error:#}");
        let mut overrides = apply(named).unwrap();
        let binary = b"SCHILY.xattr.system.posix_acl_access";
        overrides.record(binary, b"B").unwrap();
        assert_eq!(overrides.take_xattrs().unwrap().len(), 1);
    }

    #[test]
    fn attributes_are_bounded_one_by_one_and_together() {
        let mut overrides = Overrides::default();
        let mut set = |name: &str, bytes: usize| {
            let key = format!("SCHILY.xattr.user.{name}");
            overrides.record(key.as_bytes(), &vec![0; bytes])
        };
        set("a", MAX_XATTR_BYTES).unwrap();
        for (name, bytes) in [("b", MAX_XATTR_BYTES + 1), (&"n".repeat(251)[..], 1)] {
            let error = format!("{:#}", set(name, bytes).unwrap_err());
            assert!(error.contains("an attribute has"), "{error}");
        }
        // What comes again takes the place of what came before.
        for _ in 0..100 {
            set("a", MAX_XATTR_BYTES).unwrap();
        }
        let refused = (0..16).find_map(|n| set(&n.to_string(), MAX_XATTR_BYTES).err());
        let error = format!("{:#}", refused.unwrap());
        assert!(error.contains("its attributes have more than"), "{error}");
    }

    #[test]
    fn a_global_header_says_nothing_that_is_true_of_one_member() {
        let mut globals = Globals::default();
        let record = |text: &str| {
            // Two digits, the space and the newline count as well.
            format!("{:02} {text}\n", text.len() + 4).into_bytes()
        };
        for text in ["uid=7", "mtime=5", "comment=x"] {
            globals.apply(&record(text)).unwrap();
        }
        assert_eq!((globals.uid, globals.gid), (Some(7), None));
        globals.apply(&record("uid=")).unwrap();
        assert_eq!(globals.uid, None);
        for text in [
            "path=x",
            "size=1",
            "SCHILY.xattr.user.a=",
            "RHT.security.selinux=abc",
            "GNU.sparse.major=1",
            "uid=-1",
        ] {
            let error = globals.apply(&record(text)).unwrap_err();
            let key = text.split('=').next().unwrap();
            assert!(format!("{error:#}").contains(key), "{error:#}");
        }
    }

    #[test]
    fn malformed_records_are_refused() {
        for body in [
            &b"x"[..],
            b"5 a=b\n",
            b"99999999999999999999 a=b\n",
            b"99 a=b\n",
            b"0 a=b\n",
            b"3 a\n",
            b"6 ab=c",
            b"10 uid=-1\n",
            b"18 uid=4294967296\n",
            b"11 mtime=x\n",
            b"22 GNU.sparse.major=2\n",
        ] {
            assert!(apply(body).is_err(), "{}", body.escape_ascii());
        }
    }
}
