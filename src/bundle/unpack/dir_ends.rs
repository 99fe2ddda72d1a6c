//! What directories get once their content is there, kept compactly.

use anyhow::Result;

use crate::tree::meta::{Meta, Mtime};
use crate::tree::xattrs::Xattr;

/// Times and default ACLs of directories, about 40 bytes each: a path is
/// stored as what it does not share with the one before it.
#[derive(Default)]
pub struct DirEnds {
    bytes: Vec<u8>,
    last: Vec<u8>,
    root: Option<RootEnd>,
}

/// What the root of the tree gets, when all else is done.
pub struct RootEnd {
    pub meta: Meta,
    pub xattrs: Vec<Xattr>,
}

/// What is called with path, time and default ACL.
type Visit<'a> = &'a mut dyn FnMut(&[u8], Mtime, Option<&[u8]>) -> Result<()>;

impl DirEnds {
    /// Adds a directory.
    pub fn push(&mut self, path: &[u8], mtime: Mtime, default_acl: Option<&[u8]>) {
        let pairs = self.last.iter().zip(path);
        let shared = pairs.take_while(|(a, b)| a == b).count();
        self.put(shared);
        self.put_bytes(&path[shared..]);
        self.bytes.extend(mtime.seconds.to_le_bytes());
        self.bytes.extend(mtime.nanoseconds.to_le_bytes());
        self.put_bytes(default_acl.unwrap_or_default());
        self.last.truncate(shared);
        self.last.extend_from_slice(&path[shared..]);
    }

    /// Adds the root, of which what came last counts.
    pub fn push_root(&mut self, meta: Meta, xattrs: &[Xattr]) {
        let xattrs = xattrs.to_vec();
        self.root = Some(RootEnd { meta, xattrs });
    }

    /// Returns what the root gets, where it was added.
    pub fn root(&self) -> Option<&RootEnd> {
        self.root.as_ref()
    }

    /// Visits all directories but the root in the order they were added.
    pub fn visit(&self, visit: Visit) -> Result<()> {
        let mut rest = &self.bytes[..];
        let mut path = Vec::new();
        while !rest.is_empty() {
            let shared = take_number(&mut rest);
            path.truncate(shared);
            path.extend_from_slice(take_sized(&mut rest));
            let mtime = Mtime {
                seconds: i64::from_le_bytes(take(&mut rest)),
                nanoseconds: u32::from_le_bytes(take(&mut rest)),
            };
            let acl = take_sized(&mut rest);
            visit(&path, mtime, Some(acl).filter(|a| !a.is_empty()))?;
        }
        Ok(())
    }

    fn put_bytes(&mut self, bytes: &[u8]) {
        self.put(bytes.len());
        self.bytes.extend_from_slice(bytes);
    }

    fn put(&mut self, number: usize) {
        let number = u32::try_from(number).expect("headers are far below 4 GiB");
        self.bytes.extend(number.to_le_bytes());
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> [u8; N] {
    let (head, tail) = rest.split_first_chunk().expect("written by push");
    *rest = tail;
    *head
}

fn take_number(rest: &mut &[u8]) -> usize {
    u32::from_le_bytes(take(rest)) as usize
}

fn take_sized<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let length = take_number(rest);
    let (head, tail) = rest.split_at(length);
    *rest = tail;
    head
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_come_back_as_they_were_added() {
        type Added<'a> = (&'a [u8], i64, Option<&'a [u8]>);
        let added: [Added; 4] = [
            (b"", -1, None),
            (b"usr/share", 5, Some(b"acl")),
            (b"usr/share/doc", 6, None),
            (b"usr", 7, None),
        ];
        let mut ends = DirEnds::default();
        for (path, seconds, acl) in added {
            let mtime = Mtime {
                seconds,
                nanoseconds: 1,
            };
            ends.push(path, mtime, acl);
        }
        let mut seen = Vec::new();
        ends.visit(&mut |path, mtime, acl| {
            seen.push((path.to_vec(), mtime.seconds, acl.map(<[u8]>::to_vec)));
            Ok(())
        })
        .unwrap();
        let expected = added.map(|(p, s, a)| (p.to_vec(), s, a.map(<[u8]>::to_vec)));
        assert_eq!(seen, expected);
    }
}
