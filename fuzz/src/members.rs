//! Archives made of what a fuzzer can vary to some purpose.

use arbitrary::Arbitrary;

use crate::{BLOCK, mend_sum};

/// Keys of extended headers that a reader may know.
const KEYS: [&str; 22] = [
    "path",
    "linkpath",
    "size",
    "uid",
    "gid",
    "mtime",
    "hdrcharset",
    "SCHILY.acl.access",
    "SCHILY.acl.default",
    "SCHILY.xattr.user.a%3Db",
    "SCHILY.xattr.security.capability",
    "SCHILY.xattr.system.posix_acl_access",
    "LIBARCHIVE.xattr.user.x",
    "RHT.security.selinux",
    "GNU.sparse.major",
    "GNU.sparse.minor",
    "GNU.sparse.name",
    "GNU.sparse.realsize",
    "GNU.sparse.size",
    "GNU.sparse.offset",
    "GNU.sparse.numbytes",
    "GNU.sparse.map",
];
/// Values that mean something for one of them.
const VALUES: [&[u8]; 16] = [
    b"",
    b"0",
    b"1",
    b"512",
    b"1000",
    b"8589934592",
    b"18446744073709551615",
    b"-1.5",
    b"9223372036854775807.999999999",
    b"../x",
    b"a/b",
    b"0,512",
    b"0,1,600,511",
    b"user::rw-,user:7:r--,group::r--,mask::r--,other::---",
    b"BINARY",
    b"AQID",
];

/// A part of an archive.
#[derive(Arbitrary, Debug)]
pub enum Piece {
    /// A header with the data that belong to it.
    Member(Box<Member>),
    /// An extended header of records.
    Pax {
        is_global: bool,
        records: Vec<Record>,
    },
    /// A format 1.0 sparse file: its records, and its map before its data.
    Sparse { size: u32, map: Vec<(u16, u16)> },
    /// A block of the map of an old GNU sparse file.
    OldMap(Vec<(u16, u16)>),
    /// A long name or link target.
    Long { is_link: bool, name: Vec<u8> },
    /// Blocks of zeros.
    Zeros(u8),
    /// Anything.
    Raw(Vec<u8>),
}

/// A record of an extended header.
#[derive(Arbitrary, Debug)]
pub struct Record {
    key: u8,
    value: Value,
}

#[derive(Arbitrary, Debug)]
enum Value {
    Known(u8),
    Number(u32),
    Numbers(Vec<u16>),
    Bytes(Vec<u8>),
}

/// A header.
#[derive(Arbitrary, Debug)]
pub struct Member {
    name: Name,
    kind: u8,
    mode: u16,
    owner: (u32, u32),
    mtime: i32,
    link: Name,
    device: (u16, u16),
    /// A size that the data do not have.
    lie: Option<u64>,
    data: Vec<u8>,
    sparse: Option<Vec<(u16, u16)>>,
    is_gnu: bool,
    /// A byte that is not as it should be.
    damage: Option<(u16, u8)>,
}

#[derive(Arbitrary, Debug)]
enum Name {
    Short(u8),
    Below(u8, u8),
    Bytes(Vec<u8>),
}

impl Name {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Name::Short(n) => format!("f{}", n % 8).into_bytes(),
            Name::Below(a, b) => format!("d{}/f{}/", a % 4, b % 4).into_bytes(),
            Name::Bytes(bytes) => bytes.clone(),
        }
    }
}

impl Value {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Value::Known(i) => VALUES[*i as usize % VALUES.len()].to_vec(),
            Value::Number(n) => n.to_string().into_bytes(),
            Value::Numbers(all) => {
                let all: Vec<String> = all.iter().map(u16::to_string).collect();
                all.join(",").into_bytes()
            }
            Value::Bytes(bytes) => bytes.clone(),
        }
    }
}

/// Puts an archive together.
pub fn assemble(pieces: &[Piece]) -> Vec<u8> {
    let mut out = Vec::new();
    for piece in pieces {
        match piece {
            Piece::Member(member) => member.write(&mut out),
            Piece::Pax { is_global, records } => {
                let mut body = Vec::new();
                for Record { key, value } in records {
                    let key = KEYS[*key as usize % KEYS.len()];
                    record(&mut body, key, &value.bytes());
                }
                extension(&mut out, if *is_global { b'g' } else { b'x' }, &body);
            }
            Piece::Sparse { size, map } => sparse(&mut out, *size, map),
            Piece::OldMap(map) => {
                let mut block = [0; BLOCK];
                put_map(&mut block, 0, 21, map);
                block[504] = u8::from(map.len() > 21);
                out.extend(block);
            }
            Piece::Long { is_link, name } => {
                extension(&mut out, if *is_link { b'K' } else { b'L' }, name);
            }
            Piece::Zeros(count) => out.resize(out.len() + usize::from(count % 4) * BLOCK, 0),
            Piece::Raw(bytes) => out.extend(bytes),
        }
    }
    out
}

impl Member {
    fn write(&self, out: &mut Vec<u8>) {
        let mut block = [0; BLOCK];
        put(&mut block[..100], &self.name.bytes());
        octal(&mut block[100..108], self.mode.into());
        octal(&mut block[108..116], self.owner.0.into());
        octal(&mut block[116..124], self.owner.1.into());
        let size = self.lie.unwrap_or(self.data.len() as u64);
        octal(&mut block[124..136], size);
        octal(&mut block[136..148], i64::from(self.mtime).cast_unsigned());
        const KINDS: &[u8] = b"\x00012345670SDVMgxKLQ";
        block[156] = KINDS[self.kind as usize % KINDS.len()];
        put(&mut block[157..257], &self.link.bytes());
        let magic: &[u8] = if self.is_gnu {
            b"ustar  \0"
        } else {
            b"ustar\x0000"
        };
        put(&mut block[257..265], magic);
        octal(&mut block[329..337], self.device.0.into());
        octal(&mut block[337..345], self.device.1.into());
        if let Some(map) = &self.sparse {
            block[156] = b'S';
            put_map(&mut block, 386, 4, map);
            block[482] = u8::from(map.len() > 4);
            let end = map
                .iter()
                .map(|(at, length)| u64::from(*at) + u64::from(*length));
            octal(&mut block[483..495], end.max().unwrap_or(0));
        }
        if let Some((at, byte)) = self.damage {
            block[at as usize % BLOCK] = byte;
        }
        mend_sum(&mut block);
        out.extend(block);
        padded(out, &self.data);
    }
}

fn sparse(out: &mut Vec<u8>, size: u32, map: &[(u16, u16)]) {
    let mut records = Vec::new();
    record(&mut records, "GNU.sparse.major", b"1");
    record(&mut records, "GNU.sparse.minor", b"0");
    record(&mut records, "GNU.sparse.name", b"holes");
    record(
        &mut records,
        "GNU.sparse.realsize",
        size.to_string().as_bytes(),
    );
    extension(out, b'x', &records);
    let mut text = format!("{}\n", map.len());
    let (mut at, mut data) = (0, 0);
    for (gap, length) in map {
        at += u64::from(*gap);
        text += &format!("{at}\n{length}\n");
        at += u64::from(*length);
        data += usize::from(*length % 600);
    }
    let mut body = text.into_bytes();
    body.resize(body.len().next_multiple_of(BLOCK), 0);
    body.resize(body.len() + data, b'd');
    extension(out, b'0', &body);
}

fn record(body: &mut Vec<u8>, key: &str, value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    body.extend(format!("{length} {key}=").bytes());
    body.extend(value);
    body.push(b'\n');
}

fn extension(out: &mut Vec<u8>, kind: u8, body: &[u8]) {
    let mut block = [0; BLOCK];
    put(&mut block[..100], b"extended");
    octal(&mut block[100..108], 0o644);
    octal(&mut block[108..116], 0);
    octal(&mut block[116..124], 0);
    octal(&mut block[124..136], body.len() as u64);
    octal(&mut block[136..148], 0);
    block[156] = kind;
    put(&mut block[257..265], b"ustar\x0000");
    mend_sum(&mut block);
    out.extend(block);
    padded(out, body);
}

fn padded(out: &mut Vec<u8>, body: &[u8]) {
    out.extend(body);
    out.resize(out.len().next_multiple_of(BLOCK), 0);
}

fn put_map(block: &mut [u8], at: usize, room: usize, map: &[(u16, u16)]) {
    for (i, (offset, length)) in map.iter().take(room).enumerate() {
        octal(&mut block[at + 24 * i..][..12], (*offset).into());
        octal(&mut block[at + 24 * i + 12..][..12], (*length).into());
    }
}

fn put(field: &mut [u8], bytes: &[u8]) {
    let length = bytes.len().min(field.len());
    field[..length].copy_from_slice(&bytes[..length]);
}

/// Writes a number in octal, or in binary where it is too large.
fn octal(field: &mut [u8], number: u64) {
    let width = field.len() - 1;
    let text = format!("{number:0width$o}");
    if text.len() == width {
        put(field, text.as_bytes());
        return;
    }
    let bytes = number.to_be_bytes();
    let start = field.len().saturating_sub(bytes.len());
    let skipped = bytes.len() - (field.len() - start);
    field[start..].copy_from_slice(&bytes[skipped..]);
    field[0] = 0x80 | (field[0] & 0x7f);
}
