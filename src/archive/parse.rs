//! Reads a tar stream that comes in pieces of any size.
//!
//! The stream is hostile: every number is bounded before it is believed, and
//! every name is checked. The header fields are the `tar` crate's to decode;
//! what stands between them is handled here, because its reader pulls from
//! one stream and knows neither sparse maps nor all of pax.

use std::sync::Arc;

use anyhow::{Context, Error, Result, anyhow, ensure};
use tar::{EntryType, Header};

use super::batch::{Batch, Member, Part};
use super::block::{BLOCK, padding};
use super::header::{check_sum, extend_old_map, kind_of, read_link_end, read_meta};
use super::records::{Globals, Overrides, Sparse};
use super::sparse::{MapBuilder, MapReader, check_map};
use crate::tree::holes::Extent;
use crate::tree::meta::{Kind, Meta};
use crate::tree::path::{clean_path, show};
use crate::tree::xattrs::Xattr;

/// The most that the extended headers of a kind may have in front of one member.
const MAX_EXTENSION_BYTES: u64 = 8 << 20;
/// The largest global header accepted.
const MAX_GLOBAL_BYTES: u64 = 64 << 10;
/// The most headers accepted in front of one member.
const MAX_EXTENSIONS: u32 = 16;

/// The state between two pieces.
#[derive(Default)]
pub struct Parser {
    state: State,
    /// A block that the last piece held only the beginning of.
    partial: Vec<u8>,
    extensions: Extensions,
    globals: Globals,
    /// How much has been read before this piece.
    position: u64,
    /// Where the first header of the current member begins.
    begin: u64,
    /// The last name read, for messages.
    last_path: Vec<u8>,
}

#[derive(Default)]
struct Extensions {
    pax: Vec<u8>,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    count: u32,
}

#[derive(Default)]
enum State {
    #[default]
    Header,
    Extension {
        kind: Extension,
        body: Vec<u8>,
        left: u64,
    },
    /// More maps of an old GNU sparse file follow.
    OldMap(Box<Draft>, MapBuilder),
    /// The map of a format 1.0 sparse file comes before its data.
    Map(Box<Draft>, MapReader),
    Data(Data),
    Padding(usize),
    /// One of the two zero blocks at the end has been seen.
    Ending,
    End,
}

#[derive(Clone, Copy)]
enum Extension {
    Pax,
    Global,
    LongName,
    LongLink,
    Ignored,
}

/// A file whose data does not begin yet.
struct Draft {
    path: Vec<u8>,
    meta: Meta,
    xattrs: Vec<Xattr>,
    stored: u64,
}

/// A file whose data is being read.
#[derive(Clone)]
struct Data {
    extents: Arc<[Extent]>,
    current: usize,
    within: u64,
    stored: u64,
    /// How much of it is still to come.
    left: u64,
    is_carried: bool,
}

impl Data {
    /// Takes up to `room` bytes of what comes next, all of one extent.
    fn take(&mut self, room: usize) -> (u64, usize) {
        let extent = self.extents[self.current];
        let left = extent.length - self.within;
        let step = usize::try_from(left).map_or(room, |left| left.min(room));
        let offset = extent.offset + self.within;
        self.within += step as u64;
        self.left -= step as u64;
        if self.within == extent.length {
            self.within = 0;
            self.current += 1;
        }
        (offset, step)
    }
}

impl Parser {
    /// Reads a piece; `batch` is emptied first.
    pub fn parse(&mut self, piece: &[u8], batch: &mut Batch) -> Result<()> {
        batch.clear();
        if let State::Data(data) = &mut self.state {
            data.is_carried = true;
        }
        let result = self.parse_all(piece, batch);
        result.map_err(|error| self.blame(error))
    }

    /// Returns the parser as it will be `bytes` further on, if the data of the
    /// current file fills them all and goes on.
    pub fn after_data(&self, bytes: u64) -> Option<Parser> {
        let State::Data(data) = &self.state else {
            return None;
        };
        if data.left <= bytes {
            return None;
        }
        let mut data = data.clone();
        let mut left = bytes;
        while left > 0 {
            let room = usize::try_from(left).unwrap_or(usize::MAX);
            left -= data.take(room).1 as u64;
        }
        data.is_carried = true;
        Some(Parser {
            state: State::Data(data),
            globals: self.globals,
            last_path: self.last_path.clone(),
            ..Parser::default()
        })
    }

    /// Tells whether the next member owes nothing to what came before it.
    pub fn is_between_members(&self) -> bool {
        matches!(self.state, State::Header)
            && self.partial.is_empty()
            && self.extensions.count == 0
            && self.globals == Globals::default()
    }

    /// Returns how far the members go, or where the next one begins.
    pub fn members_end(&self) -> u64 {
        self.begin
    }

    /// Checks that the archive has come to its end.
    pub fn finish(&self) -> Result<()> {
        let is_whole = matches!(self.state, State::End) && self.partial.is_empty();
        match is_whole {
            true => Ok(()),
            false => Err(self.blame(anyhow!("the archive ends too early"))),
        }
    }

    fn blame(&self, error: Error) -> Error {
        match self.last_path.is_empty() {
            true => error,
            false => error.context(format!("member {}", show(&self.last_path))),
        }
    }

    fn parse_all(&mut self, piece: &[u8], batch: &mut Batch) -> Result<()> {
        let mut at = 0;
        while at < piece.len() {
            let is_first = self.extensions.count == 0 && self.partial.is_empty();
            if is_first && matches!(self.state, State::Header) {
                self.begin = self.position + at as u64;
            }
            at += match &mut self.state {
                State::Data(_) => self.take_data(piece, at, batch),
                State::Padding(left) => {
                    let step = (*left).min(piece.len() - at);
                    *left -= step;
                    if *left == 0 {
                        self.state = State::Header;
                    }
                    step
                }
                State::Extension { body, left, .. } => {
                    let step = usize::try_from(*left).map_or(piece.len(), |l| l);
                    let step = step.min(piece.len() - at);
                    body.extend_from_slice(&piece[at..at + step]);
                    *left -= step as u64;
                    if *left == 0 {
                        self.end_extension()?;
                    }
                    step
                }
                _ => self.take_block(&piece[at..], batch)?,
            };
        }
        self.position += piece.len() as u64;
        batch.is_unfinished = matches!(self.state, State::Data(_));
        Ok(())
    }

    /// Takes the next block, or what there is of it.
    fn take_block(&mut self, rest: &[u8], batch: &mut Batch) -> Result<usize> {
        if self.partial.is_empty() && rest.len() >= BLOCK {
            self.block(&rest[..BLOCK], batch)?;
            return Ok(BLOCK);
        }
        let step = rest.len().min(BLOCK - self.partial.len());
        self.partial.extend_from_slice(&rest[..step]);
        if self.partial.len() == BLOCK {
            let block = std::mem::take(&mut self.partial);
            self.block(&block, batch)?;
        }
        Ok(step)
    }

    fn block(&mut self, block: &[u8], batch: &mut Batch) -> Result<()> {
        let is_zero = block.iter().all(|byte| *byte == 0);
        match std::mem::take(&mut self.state) {
            State::Header if is_zero => {
                ensure!(self.extensions.count == 0, "a header without its member");
                self.state = State::Ending;
            }
            State::Header => self.header(block, batch)?,
            State::Ending | State::End => {
                ensure!(is_zero, "something follows the end of the archive");
                self.state = State::End;
            }
            State::OldMap(draft, mut map) => {
                let is_last = extend_old_map(block, &mut map)?;
                self.old_map(draft, map, is_last, batch)?;
            }
            State::Map(draft, mut reader) => match reader.take(block)? {
                Some(map) => {
                    let used = reader.blocks * BLOCK as u64;
                    self.begin_mapped(*draft, map, used, batch)?;
                }
                None => self.state = State::Map(draft, reader),
            },
            _ => unreachable!("the other states do not take blocks"),
        }
        Ok(())
    }

    fn header(&mut self, block: &[u8], batch: &mut Batch) -> Result<()> {
        let header = Header::from_byte_slice(block);
        check_sum(header, block)?;
        let size = header.entry_size().context("a size is not a number")?;
        let extension = match header.entry_type() {
            EntryType::XHeader => Extension::Pax,
            EntryType::XGlobalHeader => Extension::Global,
            EntryType::GNULongName => Extension::LongName,
            EntryType::GNULongLink => Extension::LongLink,
            kind if kind.as_byte() == b'V' => Extension::Ignored,
            _ => return self.member(header, batch),
        };
        self.extensions.count += 1;
        let limit = match extension {
            Extension::Global => MAX_GLOBAL_BYTES,
            Extension::Pax => MAX_EXTENSION_BYTES - self.extensions.pax.len() as u64,
            _ => MAX_EXTENSION_BYTES,
        };
        ensure!(
            size <= limit && self.extensions.count <= MAX_EXTENSIONS,
            "an extended header of {size} bytes, or too many of them"
        );
        self.state = State::Extension {
            kind: extension,
            body: Vec::new(),
            left: size,
        };
        if size == 0 {
            self.end_extension()?;
        }
        Ok(())
    }

    fn end_extension(&mut self) -> Result<()> {
        let State::Extension { kind, mut body, .. } = std::mem::take(&mut self.state) else {
            unreachable!("only called in this state");
        };
        let pad = padding(body.len() as u64);
        if pad > 0 {
            self.state = State::Padding(pad);
        }
        let text = |mut body: Vec<u8>| {
            while body.last() == Some(&0) {
                body.pop();
            }
            Some(body)
        };
        match kind {
            Extension::Pax => self.extensions.pax.append(&mut body),
            Extension::Global => {
                self.globals.apply(&body)?;
                self.extensions.count -= 1;
            }
            Extension::LongName => self.extensions.long_name = text(body),
            Extension::LongLink => self.extensions.long_link = text(body),
            Extension::Ignored => self.extensions.count -= 1,
        }
        Ok(())
    }

    fn member(&mut self, header: &Header, batch: &mut Batch) -> Result<()> {
        let extensions = std::mem::take(&mut self.extensions);
        let mut overrides = Overrides::new(self.globals);
        overrides.apply(&extensions.pax)?;
        let name = overrides
            .take_name()
            .or(extensions.long_name)
            .unwrap_or_else(|| header.path_bytes().into_owned());
        self.last_path.clone_from(&name);
        let path = clean_path(&name)?;

        let kind = kind_of(header, &name)?;
        let is_hard_link = header.entry_type() == EntryType::Link;
        ensure!(
            kind == Kind::Dir || !path.is_empty(),
            "its name stands for the root, and it is not a directory"
        );
        let meta = read_meta(header, kind, &overrides)?;
        let link = overrides.link_path.take().or(extensions.long_link);
        let link_end = read_link_end(header, kind, link)?;
        let xattrs = overrides.take_xattrs()?;
        if kind == Kind::File && !is_hard_link {
            let stored = overrides.size.map_or_else(|| header.entry_size(), Ok)?;
            let draft = Draft {
                path,
                meta,
                xattrs,
                stored,
            };
            return self.begin_file(draft, header, overrides.sparse, batch);
        }
        let path = batch.add_name(&path);
        let link_end = batch.add_name(&link_end);
        let parts = batch.parts.len()..batch.parts.len();
        batch.members.push(Member {
            begin: self.begin,
            path,
            link_end,
            is_hard_link,
            meta,
            xattrs,
            stored: 0,
            parts,
        });
        self.state = State::Header;
        // GNU tar's incremental archives list a directory's names after it.
        if header.entry_type().as_byte() == b'D' {
            self.skip_list(header.entry_size()?)?;
        }
        Ok(())
    }

    /// Passes over `size` bytes that belong to no file.
    fn skip_list(&mut self, size: u64) -> Result<()> {
        self.state = State::Extension {
            kind: Extension::Ignored,
            body: Vec::new(),
            left: size,
        };
        self.extensions.count = 1;
        ensure!(size <= MAX_EXTENSION_BYTES, "a list of {size} bytes");
        if size == 0 {
            self.end_extension()?;
        }
        Ok(())
    }

    fn begin_file(
        &mut self,
        mut draft: Draft,
        header: &Header,
        sparse: Option<Sparse>,
        batch: &mut Batch,
    ) -> Result<()> {
        if header.entry_type() == EntryType::GNUSparse {
            let gnu = header.as_gnu().context("an old sparse file")?;
            draft.meta.size_bytes = gnu.real_size()?;
            let mut map = MapBuilder::default();
            for entry in gnu.sparse.iter().filter(|e| !e.is_empty()) {
                map.push(entry.offset()?)?;
                map.push(entry.length()?)?;
            }
            return self.old_map(Box::new(draft), map, !gnu.is_extended(), batch);
        }
        let Some(sparse) = sparse else {
            draft.meta.size_bytes = draft.stored;
            let whole = Extent {
                offset: 0,
                length: draft.stored,
            };
            return self.begin_mapped(draft, vec![whole], 0, batch);
        };
        draft.meta.size_bytes = sparse.real_size.context("a sparse file without its size")?;
        if sparse.map_in_data {
            self.state = State::Map(Box::new(draft), MapReader::default());
            return Ok(());
        }
        let map = sparse.into_map()?;
        self.begin_mapped(draft, map, 0, batch)
    }

    fn old_map(
        &mut self,
        draft: Box<Draft>,
        map: MapBuilder,
        is_last: bool,
        batch: &mut Batch,
    ) -> Result<()> {
        if is_last {
            return self.begin_mapped(*draft, map.finish()?, 0, batch);
        }
        self.state = State::OldMap(draft, map);
        Ok(())
    }

    /// Begins the data of a file, `used` bytes of which were its map.
    fn begin_mapped(
        &mut self,
        draft: Draft,
        map: Vec<Extent>,
        used: u64,
        batch: &mut Batch,
    ) -> Result<()> {
        let stored = draft
            .stored
            .checked_sub(used)
            .context("its sparse map is longer than itself")?;
        let extents = check_map(map, draft.meta.size_bytes, stored)?;
        let path = batch.add_name(&draft.path);
        batch.members.push(Member {
            begin: self.begin,
            path,
            link_end: 0..0,
            is_hard_link: false,
            meta: draft.meta,
            xattrs: draft.xattrs,
            stored,
            parts: batch.parts.len()..batch.parts.len(),
        });
        self.state = match stored {
            0 => State::Header,
            _ => State::Data(Data {
                extents: extents.into(),
                current: 0,
                within: 0,
                stored,
                left: stored,
                is_carried: false,
            }),
        };
        Ok(())
    }

    /// Hands out the data of the current file from `at` on.
    fn take_data(&mut self, piece: &[u8], at: usize, batch: &mut Batch) -> usize {
        let State::Data(data) = &mut self.state else {
            unreachable!("only called in this state");
        };
        let (offset, step) = data.take(piece.len() - at);
        batch.parts.push(Part {
            offset,
            start: at,
            length: step,
        });
        batch.end_parts(data.is_carried);
        if data.left == 0 {
            self.state = match padding(data.stored) {
                0 => State::Header,
                pad => State::Padding(pad),
            };
        }
        step
    }
}
