//! The text of a VMDK's descriptor, read into a model and written from it.
//!
//! `qemu-img` reads such a text with `sscanf`, to which any blank is any other and
//! the end of a line is one too. So it never sees the text: each line is one of a few
//! forms, byte by byte, or the whole is refused, and what `qemu-img` gets is
//! [rendered](Descriptor::render) from what was understood.

use std::ffi::OsString;
use std::fmt::{self, Write};
use std::os::unix::ffi::OsStringExt;

use anyhow::{Context, Result, bail, ensure};

/// More parts than a disk has; one program cannot have many more files open.
pub const MAX_EXTENTS: usize = 400;
/// Sectors of the largest disk that is read: 16 TiB.
const MAX_SECTORS: u64 = (16 << 40) / 512;
/// What a CID says where there is none.
const NO_PARENT: &str = "ffffffff";

/// Kinds of whole disks that `qemu-img` reads.
const CREATE_TYPES: [&str; 6] = [
    "monolithicFlat",
    "twoGbMaxExtentFlat",
    "twoGbMaxExtentSparse",
    "vmfs",
    "vmfsSparse",
    "seSparse",
];

/// Keys that say nothing about where the bytes are.
const OTHER_KEYS: [&str; 7] = [
    "version",
    "encoding",
    "CID",
    "isNativeSnapshot",
    "changeTrackPath",
    "digestFilename",
    "objectID",
];

/// A descriptor.
#[derive(Debug, PartialEq, Eq)]
pub struct Descriptor {
    create_type: &'static str,
    /// The parts of the disk, in order.
    pub extents: Vec<Extent>,
}

/// One part of the disk.
#[derive(Debug, PartialEq, Eq)]
pub struct Extent {
    /// How many sectors of the disk it is.
    pub sectors: u64,
    /// How they are stored.
    pub kind: Kind,
    /// The name of the file it is in.
    pub file: OsString,
    /// The sector of the file it starts at.
    pub offset: u64,
}

/// How a part is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Sector after sector.
    Flat,
    /// The same, as ESX writes it.
    Vmfs,
    /// In grains.
    Sparse,
    /// In ESX's grains.
    VmfsSparse,
    /// In the grains of later ESX.
    SeSparse,
}

impl Kind {
    fn parse(word: &[u8]) -> Option<Kind> {
        [
            Kind::Flat,
            Kind::Vmfs,
            Kind::Sparse,
            Kind::VmfsSparse,
            Kind::SeSparse,
        ]
        .into_iter()
        .find(|kind| kind.word().as_bytes() == word)
    }

    fn word(self) -> &'static str {
        match self {
            Kind::Flat => "FLAT",
            Kind::Vmfs => "VMFS",
            Kind::Sparse => "SPARSE",
            Kind::VmfsSparse => "VMFSSPARSE",
            Kind::SeSparse => "SESPARSE",
        }
    }

    /// Tells whether its sectors stand one after the other in the file.
    pub fn is_flat(self) -> bool {
        matches!(self, Kind::Flat | Kind::Vmfs)
    }
}

/// Tells whether the disk holds only what differs from a parent.
pub fn has_parent(text: &[u8]) -> bool {
    const HINT: &[u8] = b"parentFileNameHint";
    text.windows(HINT.len()).any(|window| window == HINT)
}

/// Reads a descriptor.
///
/// # Errors
/// When a line has none of the forms that are known, with its number.
pub fn parse(text: &[u8]) -> Result<Descriptor> {
    // `qemu-img` fills up what it writes.
    let end = text.iter().rposition(|byte| *byte != 0);
    let text = &text[..end.map_or(0, |last| last + 1)];
    let mut create_type = None;
    let mut extents = Vec::new();
    let mut sectors = 0;
    for (line, number) in text.split(|byte| *byte == b'\n').zip(1..) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        match parse_line(line).with_context(|| format!("line {number}"))? {
            Line::Nothing => {}
            Line::Type(_) if create_type.is_some() => bail!("line {number}: a second createType"),
            Line::Type(found) => create_type = Some(found),
            Line::Extent(extent) => {
                sectors += extent.sectors;
                ensure!(
                    sectors <= MAX_SECTORS && extents.len() < MAX_EXTENTS,
                    "line {number}: a disk of more than {MAX_EXTENTS} parts or {MAX_SECTORS} \
                     sectors"
                );
                extents.push(extent);
            }
        }
    }
    ensure!(!extents.is_empty(), "it names no part of a disk");
    Ok(Descriptor {
        create_type: create_type.context("it has no createType")?,
        extents,
    })
}

impl Descriptor {
    /// Writes the text for `qemu-img`, with `paths` as the files of the parts.
    pub fn render(&self, paths: &[impl fmt::Display]) -> String {
        let mut text = format!(
            "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID={NO_PARENT}\n\
             createType=\"{}\"\n\n",
            self.create_type
        );
        for (extent, path) in self.extents.iter().zip(paths) {
            let (sectors, kind) = (extent.sectors, extent.kind.word());
            // What may not be written to is read like any other, but `qemu-img` would
            // leave it out.
            let _ = write!(text, "RW {sectors} {kind} \"{path}\"");
            if extent.kind == Kind::Flat {
                let _ = write!(text, " {}", extent.offset);
            }
            text.push('\n');
        }
        text
    }
}

enum Line {
    Nothing,
    Type(&'static str),
    Extent(Extent),
}

fn parse_line(line: &[u8]) -> Result<Line> {
    let line = trim(line);
    if line.is_empty() || line.starts_with(b"#") {
        return Ok(Line::Nothing);
    }
    let is_printable = |byte: &u8| *byte == b'\t' || !byte.is_ascii_control();
    ensure!(
        line.iter().all(is_printable),
        "a control character in {}",
        line.escape_ascii()
    );
    match next_word(line) {
        (b"RW" | b"RDONLY", rest) => parse_extent(rest).map(Line::Extent),
        (b"NOACCESS", _) => bail!("a part of the disk that may not be read"),
        _ => parse_setting(line),
    }
}

fn parse_setting(line: &[u8]) -> Result<Line> {
    let unknown = || format!("{:?} is nothing that is known", shown(line));
    let equals = line.iter().position(|byte| *byte == b'=');
    let (key, value) = line.split_at(equals.with_context(unknown)?);
    let key = std::str::from_utf8(trim(key)).with_context(unknown)?;
    let value = unquoted(trim(&value[1..])).with_context(unknown)?;
    match key {
        "createType" => {
            let known = CREATE_TYPES.iter().find(|t| t.as_bytes() == value);
            let known = known.with_context(|| format!("createType {:?}", shown(value)))?;
            Ok(Line::Type(known))
        }
        "parentCID" => {
            ensure!(
                value.eq_ignore_ascii_case(NO_PARENT.as_bytes()),
                "the disk is a snapshot"
            );
            Ok(Line::Nothing)
        }
        _ if key.starts_with("ddb.") || OTHER_KEYS.contains(&key) => Ok(Line::Nothing),
        _ => bail!(unknown()),
    }
}

/// Reads what follows the access of an extent: `SECTORS KIND "FILE" [OFFSET]`.
fn parse_extent(rest: &[u8]) -> Result<Extent> {
    let (sectors, rest) = next_word(rest);
    let sectors = number(sectors)?;
    ensure!(sectors > 0, "a part of no size");
    let (kind, rest) = next_word(rest);
    let kind = Kind::parse(kind).with_context(|| format!("a part of kind {:?}", shown(kind)))?;
    let quoted = rest.strip_prefix(b"\"");
    let split = quoted.and_then(|rest| {
        let end = rest.iter().position(|byte| *byte == b'"')?;
        Some((&rest[..end], &rest[end + 1..]))
    });
    let (file, rest) = split.context("a part without a file")?;
    let offset = match (kind, trim(rest)) {
        (Kind::Flat, offset) => number(offset)?,
        (_, b"" | b"0") => 0,
        (_, rest) => bail!("{:?} behind the file", shown(rest)),
    };
    Ok(Extent {
        sectors,
        kind,
        file: OsString::from_vec(file.to_vec()),
        offset,
    })
}

fn number(word: &[u8]) -> Result<u64> {
    let is_number = !word.is_empty() && word.iter().all(u8::is_ascii_digit);
    let text = is_number.then(|| std::str::from_utf8(word).ok()).flatten();
    let number = text.and_then(|text| text.parse().ok());
    number
        .filter(|number| *number <= MAX_SECTORS)
        .with_context(|| format!("{:?} is no number of sectors", shown(word)))
}

/// Splits off the first word; the rest starts with the next.
fn next_word(line: &[u8]) -> (&[u8], &[u8]) {
    let end = line.iter().position(|byte| is_blank(*byte));
    let (word, rest) = line.split_at(end.unwrap_or(line.len()));
    (word, trim(rest))
}

/// Takes away the quotes around a value, which must be two or none.
fn unquoted(value: &[u8]) -> Option<&[u8]> {
    let inner = match value.strip_prefix(b"\"") {
        Some(rest) => rest.strip_suffix(b"\"")?,
        None => value,
    };
    (!inner.contains(&b'"')).then_some(inner)
}

fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [first, rest @ ..] = bytes
        && is_blank(*first)
    {
        bytes = rest;
    }
    while let [rest @ .., last] = bytes
        && is_blank(*last)
    {
        bytes = rest;
    }
    bytes
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// Shows the beginning of what is not understood.
fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(100)]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "# Disk DescriptorFile\nversion=1\nencoding=\"windows-1252\"\n\
                        CID=1a2b3c4d\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\n";

    #[test]
    fn what_programs_write_is_read_and_written_anew() {
        let text = format!(
            "{HEAD}\n# RW 1 FLAT \"no\" 0\r\nRW 4192256 FLAT \"a b.vmdk\" 128\r\n\
             RDONLY 5 SPARSE \"s001.vmdk\"\n\tRW  7 VMFS \"\u{e9}.vmdk\"\n\n\
             ddb.adapterType = \"lsilogic\"\nddb.geometry.heads=\"16\"\n\0\0"
        );
        let descriptor = parse(text.as_bytes()).unwrap();
        let seen: Vec<_> = descriptor
            .extents
            .iter()
            .map(|e| (e.sectors, e.kind, e.file.to_str().unwrap(), e.offset))
            .collect();
        let expected = [
            (4_192_256, Kind::Flat, "a b.vmdk", 128),
            (5, Kind::Sparse, "s001.vmdk", 0),
            (7, Kind::Vmfs, "\u{e9}.vmdk", 0),
        ];
        assert_eq!(seen, expected);
        let rendered = descriptor.render(&["/a", "/b", "/c"]);
        assert_eq!(
            rendered,
            "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\n\
             createType=\"monolithicFlat\"\n\nRW 4192256 FLAT \"/a\" 128\nRW 5 SPARSE \"/b\"\n\
             RW 7 VMFS \"/c\"\n"
        );
        assert!(has_parent(b"\xffparentFileNameHint=\"x\""));
    }

    #[test]
    fn blanks_that_a_scanner_takes_for_others_end_no_word() {
        for line in [
            &b"RW\n8\nFLAT\n\"/etc/shadow\" 0"[..],
            b"RW\x0b8 FLAT \"/etc/shadow\" 0",
            b"RW 8 FLAT \"/etc/shadow\"\x0b0",
            b"RW 8\x0cFLAT \"x\" 0",
            b"RW\r8 FLAT \"/etc/shadow\" 0",
            b"\x0bRW 8 FLAT \"/etc/shadow\" 0",
            b"RW 8 FLAT \"a\rb\" 0",
            b"RW 8 FLAT \"a\0b\" 0",
            b"ddb.x = \"\"RW 8 FLAT \"/etc/shadow\" 0",
            b"rw 8 FLAT \"x\" 0",
            b"RW 8 FLAT \"x\"",
            b"RW 8 FLAT \"x\" -1",
            b"RW 8 FLAT \"x\" 0 \"y\" 0",
            b"RW +8 FLAT \"x\" 0",
            b"RW 0 FLAT \"x\" 0",
            b"RW 99999999999 FLAT \"x\" 0",
            b"RW 8 ZERO",
            b"NOACCESS 8 FLAT \"x\" 0",
            b"parentCID=00000001",
            b"parentFileNameHint=\"x\"",
            b"createType=\"custom\"",
            b"createType=\"vmfs\"",
            b"anything",
        ] {
            let text = [HEAD.as_bytes(), b"RW 1 FLAT \"decoy\" 0\n", line, b"\n"].concat();
            let error = parse(&text).unwrap_err();
            let lines = 8..=9;
            let says_where = lines
                .map(|number| format!("line {number}"))
                .any(|place| format!("{error:#}").contains(&place));
            assert!(says_where, "{}: {error:#}", line.escape_ascii());
        }
    }

    #[test]
    fn names_are_kept_byte_by_byte() {
        let text = [HEAD.as_bytes(), b"RW 1 FLAT \"a\xffb\" 0"].concat();
        let name = parse(&text).unwrap().extents.remove(0).file;
        assert_eq!(name.into_vec(), b"a\xffb");
    }

    #[test]
    fn more_parts_than_a_disk_has_are_refused() {
        let text = format!("{HEAD}{}", "RW 1 SPARSE \"x\"\n".repeat(MAX_EXTENTS + 1));
        assert!(parse(text.as_bytes()).is_err());
    }
}
