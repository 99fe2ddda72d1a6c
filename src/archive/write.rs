//! Writes the headers of a POSIX pax tar, in the dialect that GNU tar and
//! libarchive both restore completely.

use std::borrow::Cow;

use super::block::BLOCK;
use crate::tree::acl;
use crate::tree::holes::Extent;
use crate::tree::meta::{Kind, Meta, Mtime};
use crate::tree::path::split;
use crate::tree::xattrs::Xattr;

const NAME_BYTES: usize = 100;
const PREFIX_BYTES: usize = 155;
const MAX_OCTAL_ID: u32 = 0o7_777_777;
const MAX_OCTAL_TIME: i64 = 0o77_777_777_777;
const MAX_OCTAL_SIZE: u64 = 0o77_777_777_777;
/// The same name for all extended headers: no reader looks at it, and it
/// packs best.
const PAX_NAME: &[u8] = b"PaxHeaders/pax";

/// One member as it is about to be written.
pub struct NewMember<'a> {
    /// The path relative to the root, which itself is empty.
    pub path: &'a [u8],
    pub meta: &'a Meta,
    /// Where a symlink points, or the first name of a hard link.
    pub link_end: &'a [u8],
    pub is_hard_link: bool,
    pub xattrs: &'a [Xattr],
    /// A regular file's data.
    pub extents: &'a [Extent],
}

impl NewMember<'_> {
    /// Appends everything that comes before the member's data.
    pub fn write(&self, out: &mut Vec<u8>) {
        let stored: u64 = self.extents.iter().map(|e| e.length).sum();
        let is_file = self.meta.kind == Kind::File && !self.is_hard_link;
        let is_sparse = is_file && stored != self.meta.size_bytes;
        let map = if is_sparse { self.map() } else { Vec::new() };
        let size = if is_file {
            stored + map.len() as u64
        } else {
            0
        };

        let shown = self.shown_path();
        let mut records = Records::default();
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(self.entry_type());
        header.set_mode(self.meta.mode);
        if is_sparse {
            self.sparse_records(&shown, &mut records);
            let name = [b"GNUSparseFile.0/", split(self.path).1].concat();
            put_name(&mut header, &name[..name.len().min(NAME_BYTES)]);
        } else if !put_name(&mut header, &shown) {
            records.path("path", &shown);
        }
        self.put_link_end(&mut header, &mut records);
        header.set_size(size);
        if size > MAX_OCTAL_SIZE {
            records.text("size", &size.to_string());
        }
        self.put_owner(&mut header, &mut records);
        self.put_mtime(&mut header, &mut records);
        if matches!(self.meta.kind, Kind::Char | Kind::Block) {
            // Linux device numbers have 12 and 20 bits.
            let number = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
            put_octal(&mut header, 329..337, number(self.meta.device.0).into());
            put_octal(&mut header, 337..345, number(self.meta.device.1).into());
        }
        self.xattr_records(&mut records);
        header.set_cksum();

        if !records.0.is_empty() {
            let mut pax = tar::Header::new_ustar();
            put_name(&mut pax, PAX_NAME);
            pax.set_entry_type(tar::EntryType::XHeader);
            pax.set_mode(0o644);
            pax.set_uid(0);
            pax.set_gid(0);
            pax.set_mtime(0);
            pax.set_size(records.0.len() as u64);
            pax.set_cksum();
            out.extend_from_slice(pax.as_bytes());
            out.extend_from_slice(&records.0);
            pad(out, records.0.len());
        }
        out.extend_from_slice(header.as_bytes());
        out.extend_from_slice(&map);
    }

    fn shown_path(&self) -> Vec<u8> {
        match (self.meta.kind, self.path) {
            (Kind::Dir, b"") => b"./".to_vec(),
            (Kind::Dir, path) => [&plain(path)[..], b"/"].concat(),
            (_, path) => plain(path).into_owned(),
        }
    }

    fn entry_type(&self) -> tar::EntryType {
        match self.meta.kind {
            _ if self.is_hard_link => tar::EntryType::Link,
            Kind::File => tar::EntryType::Regular,
            Kind::Dir => tar::EntryType::Directory,
            Kind::Symlink => tar::EntryType::Symlink,
            Kind::Char => tar::EntryType::Char,
            Kind::Block => tar::EntryType::Block,
            Kind::Fifo => tar::EntryType::Fifo,
        }
    }

    /// Builds the map that stands before the data of a sparse file.
    fn map(&self) -> Vec<u8> {
        let mut extents = self.extents.to_vec();
        let end = extents.last().map_or(0, Extent::end);
        if end < self.meta.size_bytes {
            // GNU tar makes the hole at the end from an empty extent only.
            extents.push(Extent {
                offset: self.meta.size_bytes,
                length: 0,
            });
        }
        let mut map = format!("{}\n", extents.len());
        for extent in extents {
            map.push_str(&format!("{}\n{}\n", extent.offset, extent.length));
        }
        let mut map = map.into_bytes();
        let length = map.len();
        pad(&mut map, length);
        map
    }

    fn sparse_records(&self, shown: &[u8], records: &mut Records) {
        records.text("GNU.sparse.major", "1");
        records.text("GNU.sparse.minor", "0");
        records.path("GNU.sparse.name", shown);
        records.text("GNU.sparse.realsize", &self.meta.size_bytes.to_string());
    }

    fn put_link_end(&self, header: &mut tar::Header, records: &mut Records) {
        let link_end = match self.is_hard_link {
            true => plain(self.link_end),
            false => Cow::Borrowed(self.link_end),
        };
        // A beginning of what is too long: of a link whose header has no target
        // at all, bsdtar may make a file.
        let start = &link_end[..link_end.len().min(NAME_BYTES)];
        header.as_old_mut().linkname[..start.len()].copy_from_slice(start);
        if start != &link_end[..] {
            records.path("linkpath", &link_end);
        }
    }

    fn put_owner(&self, header: &mut tar::Header, records: &mut Records) {
        let mut put = |id: u32, key| {
            if id > MAX_OCTAL_ID {
                records.text(key, &id.to_string());
                return 0;
            }
            u64::from(id)
        };
        header.set_uid(put(self.meta.uid, "uid"));
        header.set_gid(put(self.meta.gid, "gid"));
    }

    fn put_mtime(&self, header: &mut tar::Header, records: &mut Records) {
        let mtime = self.meta.mtime;
        let fits = (0..=MAX_OCTAL_TIME).contains(&mtime.seconds);
        header.set_mtime(match u64::try_from(mtime.seconds) {
            Ok(seconds) if fits => seconds,
            _ => 0,
        });
        if !fits || mtime.nanoseconds != 0 {
            records.text("mtime", &decimal(mtime));
        }
    }

    fn xattr_records(&self, records: &mut Records) {
        for xattr in self.xattrs {
            let text = match xattr.name.as_slice() {
                acl::ACCESS => Some("SCHILY.acl.access"),
                acl::DEFAULT => Some("SCHILY.acl.default"),
                _ => None,
            }
            .and_then(|key| Some((key, acl::to_text(&xattr.value)?)));
            let is_whole =
                |text: &str| acl::from_text(text.as_bytes()).is_ok_and(|blob| blob == xattr.value);
            // An ACL whose text is too long or has another order also stands
            // there as it is, before the text, which stock tools go by.
            if !text.as_ref().is_some_and(|(_, text)| is_whole(text)) {
                records.xattr(xattr);
            }
            if let Some((key, text)) = text {
                records.text(key, &text);
            }
        }
    }
}

/// The records of an extended header.
#[derive(Default)]
struct Records(Vec<u8>);

impl Records {
    fn text(&mut self, key: &str, value: &str) {
        self.bytes(key.as_bytes(), value.as_bytes());
    }

    fn xattr(&mut self, xattr: &Xattr) {
        let mut key = b"SCHILY.xattr.".to_vec();
        // A key ends at the first `=`; GNU tar escapes it like this.
        for byte in &xattr.name {
            match byte {
                b'%' => key.extend(b"%25"),
                b'=' => key.extend(b"%3D"),
                byte => key.push(*byte),
            }
        }
        self.bytes(&key, &xattr.value);
    }

    fn path(&mut self, key: &str, path: &[u8]) {
        if str::from_utf8(path).is_err() && !self.0.starts_with(b"21 hdrcharset=BINARY\n") {
            let mut first = Records::default();
            first.text("hdrcharset", "BINARY");
            self.0.splice(..0, first.0);
        }
        self.bytes(key.as_bytes(), path);
    }

    fn bytes(&mut self, key: &[u8], value: &[u8]) {
        // The length counts its own digits.
        let rest = key.len() + value.len() + 3;
        let mut length = rest;
        while length != rest + length.to_string().len() {
            length = rest + length.to_string().len();
        }
        self.0.extend(format!("{length} ").bytes());
        self.0.extend(key);
        self.0.push(b'=');
        self.0.extend(value);
        self.0.push(b'\n');
    }
}

/// Keeps what bsdtar would cut off as the beginning of a Windows path.
fn plain(path: &[u8]) -> Cow<'_, [u8]> {
    match path {
        [b'\\', ..] | [_, b':', ..] => Cow::Owned([b"./", path].concat()),
        path => Cow::Borrowed(path),
    }
}

/// Puts a path into a header's name and prefix, if it fits.
fn put_name(header: &mut tar::Header, path: &[u8]) -> bool {
    let (prefix, name) = if path.len() <= NAME_BYTES {
        (&b""[..], path)
    } else {
        let first = path.len() - NAME_BYTES - 1;
        let slash = path[first..path.len() - 1].iter().position(|b| *b == b'/');
        match slash.map(|i| first + i) {
            Some(at) if (1..=PREFIX_BYTES).contains(&at) => (&path[..at], &path[at + 1..]),
            _ => return false,
        }
    };
    let ustar = header.as_ustar_mut().expect("made by new_ustar");
    ustar.prefix[..prefix.len()].copy_from_slice(prefix);
    ustar.name[..name.len()].copy_from_slice(name);
    true
}

fn put_octal(header: &mut tar::Header, field: std::ops::Range<usize>, number: u64) {
    let digits = format!("{number:0width$o}", width = field.len() - 1);
    header.as_mut_bytes()[field.start..field.end - 1].copy_from_slice(digits.as_bytes());
}

/// Writes a point in time as a decimal number of seconds.
fn decimal(mtime: Mtime) -> String {
    let (mut seconds, mut nanoseconds) = (mtime.seconds, mtime.nanoseconds);
    let mut sign = "";
    if seconds < 0 {
        // 0.5 seconds before 1970 is second -1 plus 0.5, and written -0.5.
        sign = "-";
        if nanoseconds > 0 {
            seconds += 1;
            nanoseconds = 1_000_000_000 - nanoseconds;
        }
    }
    let whole = seconds.unsigned_abs();
    if nanoseconds == 0 {
        return format!("{sign}{whole}");
    }
    let text = format!("{sign}{whole}.{nanoseconds:09}");
    text.trim_end_matches('0').to_owned()
}

/// Appends zeros up to the next block after `length` bytes.
pub fn pad(out: &mut Vec<u8>, length: usize) {
    out.resize(out.len() + length.next_multiple_of(BLOCK) - length, 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_posix_wants_them() {
        for (seconds, nanoseconds, text) in [
            (0, 0, "0"),
            (5, 120_000_000, "5.12"),
            (-1, 0, "-1"),
            (-1, 500_000_000, "-0.5"),
            (-2, 1, "-1.999999999"),
            (1 << 40, 1, "1099511627776.000000001"),
        ] {
            let mtime = Mtime {
                seconds,
                nanoseconds,
            };
            assert_eq!(decimal(mtime), text);
        }
    }

    #[test]
    fn record_lengths_count_their_own_digits() {
        for length in 0..1200 {
            let mut records = Records::default();
            records.bytes(b"k", &vec![b'v'; length]);
            let text = String::from_utf8(records.0).unwrap();
            let (count, _) = text.split_once(' ').unwrap();
            assert_eq!(count.parse::<usize>().unwrap(), text.len());
        }
    }

    #[test]
    fn a_plain_file_takes_one_header_and_a_split_name_is_read_back() {
        let path = ["d"; 60].join("/") + "/" + &"n".repeat(90);
        let meta = Meta {
            mode: 0o644,
            ..Meta::default()
        };
        let mut out = Vec::new();
        NewMember {
            path: path.as_bytes(),
            meta: &meta,
            link_end: b"",
            is_hard_link: false,
            xattrs: &[],
            extents: &[],
        }
        .write(&mut out);
        assert_eq!(out.len(), BLOCK);
        let header = tar::Header::from_byte_slice(&out);
        assert_eq!(&*header.path_bytes(), path.as_bytes());
    }
}
