//! files.jsonl.xz: every name in the tree, with a digest of each file's content.
//!
//! One JSON object a line, in the order of the payload, each name once. Tells what
//! a system was delivered with after it has been changed, and which files another
//! system has already.

use std::io::{BufRead, BufReader, Read, Write};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use xz2::stream::{Check, Filters, LzmaOptions, Stream};

use crate::sha::Sha;
use crate::tree::meta::{Kind, Meta};
use crate::tree::path::{hex_unless_text, unhex};

/// The member's name.
pub const FILES: &str = "files.jsonl.xz";

/// The longest line accepted: a path and a link's end, all of it escaped.
const MAX_LINE_BYTES: u64 = 5 << 20;
/// The memory that unpacking the member may take.
const DECODER_BYTES: u64 = 64 << 20;
/// Half of each line is a digest, which nothing makes smaller.
const PRESET: u32 = 3;
const DICT_BYTES: u32 = 1 << 20;

/// One name in the tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileLine {
    /// Where it is, relative to the root, bytes that are not UTF-8 replaced.
    pub path: String,
    /// All of the path in hexadecimal, where it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_hex: Option<String>,
    /// `file`, `dir`, `symlink`, `hardlink`, `char`, `block` or `fifo`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The permission bits in octal.
    pub mode: String,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// A file's size in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// The SHA-256 of a file's content; absent where more of it is hole than is
    /// worth reading.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Sha>,
    /// Where a link points, bytes that are not UTF-8 replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// All of that in hexadecimal, where it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_hex: Option<String>,
}

impl FileLine {
    /// Describes the name `path` of an inode; `content` is the digest of a file's
    /// content, `link_end` where a link points.
    pub fn new(
        path: &[u8],
        meta: &Meta,
        is_hard_link: bool,
        link_end: &[u8],
        content: Option<Sha>,
    ) -> FileLine {
        let is_file = meta.kind == Kind::File && !is_hard_link;
        FileLine {
            path: String::from_utf8_lossy(path).into_owned(),
            path_hex: hex_unless_text(path),
            kind: match is_hard_link {
                true => "hardlink".to_owned(),
                false => meta.kind.name().to_owned(),
            },
            mode: format!("{:04o}", meta.mode),
            uid: meta.uid,
            gid: meta.gid,
            size: is_file.then_some(meta.size_bytes),
            sha256: content.filter(|_| is_file),
            target: (!link_end.is_empty()).then(|| String::from_utf8_lossy(link_end).into_owned()),
            target_hex: hex_unless_text(link_end),
        }
    }
}

impl FileLine {
    /// Returns the bytes of the path.
    ///
    /// # Errors
    /// When its hexadecimal form is none.
    pub fn path_bytes(&self) -> Result<Vec<u8>> {
        match &self.path_hex {
            None => Ok(self.path.clone().into_bytes()),
            Some(hex) => unhex(hex).context("a path in the list of files is unreadable"),
        }
    }
}

/// Writes the member.
pub struct FilesWriter(xz2::write::XzEncoder<Vec<u8>>);

impl FilesWriter {
    /// Begins an empty one.
    ///
    /// # Errors
    /// When there is no memory for the encoder.
    pub fn new() -> Result<FilesWriter> {
        let mut options = LzmaOptions::new_preset(PRESET)?;
        options.dict_size(DICT_BYTES);
        let mut filters = Filters::new();
        filters.lzma2(&options);
        let stream = Stream::new_stream_encoder(&filters, Check::Crc32)?;
        Ok(FilesWriter(xz2::write::XzEncoder::new_stream(
            Vec::new(),
            stream,
        )))
    }

    /// Adds a name.
    ///
    /// # Errors
    /// When it cannot be rendered.
    pub fn add(&mut self, line: &FileLine) -> Result<()> {
        serde_json::to_writer(&mut self.0, line).context("rendering the list of files")?;
        self.0.write_all(b"\n").context("packing the list of files")
    }

    /// Returns the member.
    ///
    /// # Errors
    /// When the encoder fails.
    pub fn finish(self) -> Result<Vec<u8>> {
        self.0.finish().context("packing the list of files")
    }
}

/// Reads the member line by line; what it takes is bounded whatever it holds.
pub struct FilesReader<R: Read>(BufReader<xz2::read::XzDecoder<R>>);

impl<R: Read> FilesReader<R> {
    /// Reads `member`, whose digest has been compared.
    ///
    /// # Errors
    /// When there is no memory for the decoder.
    pub fn new(member: R) -> Result<FilesReader<R>> {
        let stream = Stream::new_stream_decoder(DECODER_BYTES, 0)?;
        let decoder = xz2::read::XzDecoder::new_stream(member, stream);
        Ok(FilesReader(BufReader::new(decoder)))
    }

    /// Returns the next name; `None` at the end.
    ///
    /// # Errors
    /// When it is damaged or no such list.
    pub fn next_line(&mut self) -> Result<Option<FileLine>> {
        let mut line = Vec::new();
        let mut bounded = (&mut self.0).take(MAX_LINE_BYTES);
        let read = bounded.read_until(b'\n', &mut line);
        read.context("unpacking the list of files")?;
        if line.is_empty() {
            return Ok(None);
        }
        ensure!(line.ends_with(b"\n"), "the list of files is cut short");
        let line = serde_json::from_slice(&line).context("the list of files is unreadable")?;
        Ok(Some(line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines() -> Vec<FileLine> {
        let meta = |kind| Meta {
            kind,
            mode: 0o4755,
            uid: 1000,
            size_bytes: 3,
            ..Meta::default()
        };
        vec![
            FileLine::new(
                b"etc/a",
                &meta(Kind::File),
                false,
                b"",
                Some(Sha::of(b"abc")),
            ),
            FileLine::new(b"etc/\xff", &meta(Kind::File), true, b"etc/a", None),
            FileLine::new(b"etc", &meta(Kind::Dir), false, b"", None),
        ]
    }

    #[test]
    fn the_list_is_read_back_line_by_line() {
        let mut writer = FilesWriter::new().unwrap();
        for line in lines() {
            writer.add(&line).unwrap();
        }
        let member = writer.finish().unwrap();
        let mut reader = FilesReader::new(&member[..]).unwrap();
        let mut read = Vec::new();
        while let Some(line) = reader.next_line().unwrap() {
            read.push(line);
        }
        assert_eq!(read, lines());
        assert_eq!(read[1].path_hex.as_deref(), Some("6574632fff"));
        assert_eq!(read[1].path_bytes().unwrap(), b"etc/\xff");
        assert_eq!(read[0].path_bytes().unwrap(), b"etc/a");
        assert_eq!((&*read[0].mode, read[0].size), ("4755", Some(3)));
        assert_eq!(read[2].size, None);
    }

    #[test]
    fn a_list_that_is_none_is_refused() {
        for text in [&b"{}\n"[..], b"[", &[b'"'; 2 << 20]] {
            let mut encoder = xz2::write::XzEncoder::new(Vec::new(), 0);
            encoder.write_all(text).unwrap();
            let member = encoder.finish().unwrap();
            assert!(FilesReader::new(&member[..]).unwrap().next_line().is_err());
        }
        assert!(
            FilesReader::new(&b"rubbish"[..])
                .unwrap()
                .next_line()
                .is_err()
        );
    }
}
