//! The fields of a tar header, none of them believed before it is checked.

use std::ops::Range;

use anyhow::{Context, Result, bail, ensure};
use tar::{EntryType, Header};

use super::records::Overrides;
use super::sparse::MapBuilder;
use crate::tree::meta::{Kind, Meta, Mtime};
use crate::tree::path::{clean_path, show};

/// The longest end of a symbolic link: what Linux allows (`PATH_MAX`, with its
/// zero).
const MAX_SYMLINK_BYTES: usize = 4095;
/// Owners that stand for none: chown(2) takes it for "leave it as it is".
const NO_ID: u32 = u32::MAX;

/// Compares the sum over a header with the one it names.
pub fn check_sum(header: &Header, block: &[u8]) -> Result<()> {
    const FIELD: Range<usize> = 148..156;
    let others = block[..FIELD.start].iter().chain(&block[FIELD.end..]);
    let sum: u32 = others.map(|byte| u32::from(*byte)).sum();
    let sum = sum + 8 * u32::from(b' ');
    ensure!(
        header.cksum().is_ok_and(|claimed| claimed == sum),
        "a header's checksum is wrong"
    );
    Ok(())
}

/// Tells what kind of inode a member is; a hard link counts as a file.
pub fn kind_of(header: &Header, name: &[u8]) -> Result<Kind> {
    Ok(match header.entry_type() {
        // Before POSIX, a directory was a file with a slash at its end.
        EntryType::Regular if name.ends_with(b"/") => Kind::Dir,
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse | EntryType::Link => {
            Kind::File
        }
        EntryType::Symlink => Kind::Symlink,
        EntryType::Directory => Kind::Dir,
        EntryType::Char => Kind::Char,
        EntryType::Block => Kind::Block,
        EntryType::Fifo => Kind::Fifo,
        other if other.as_byte() == b'D' => Kind::Dir,
        other => bail!("its type {:?} is unknown", char::from(other.as_byte())),
    })
}

/// Reads the inode's fixed-size part, where extended headers do not say otherwise.
pub fn read_meta(header: &Header, kind: Kind, overrides: &Overrides) -> Result<Meta> {
    let id = |field: std::io::Result<u64>| -> Result<u32> {
        u32::try_from(field?).context("its owner is beyond 32 bits")
    };
    let device = match kind {
        Kind::Char | Kind::Block => (
            header.device_major()?.unwrap_or(0).into(),
            header.device_minor()?.unwrap_or(0).into(),
        ),
        _ => (0, 0),
    };
    let mtime = match overrides.mtime {
        Some(mtime) => mtime,
        // GNU tar writes times before 1970 as negative binary numbers.
        None => Mtime {
            seconds: header.mtime()?.cast_signed(),
            nanoseconds: 0,
        },
    };
    let uid = overrides.uid.map_or_else(|| id(header.uid()), Ok)?;
    let gid = overrides.gid.map_or_else(|| id(header.gid()), Ok)?;
    ensure!(
        uid != NO_ID && gid != NO_ID,
        "its owner or group {NO_ID} stands for none"
    );
    Ok(Meta {
        kind,
        mode: header.mode()? & 0o7777,
        uid,
        gid,
        mtime,
        device,
        size_bytes: 0,
    })
}

/// Reads where a link points, which `link` of an extended header overrides;
/// empty where the member is no link.
pub fn read_link_end(header: &Header, kind: Kind, link: Option<Vec<u8>>) -> Result<Vec<u8>> {
    let link = || link.unwrap_or_else(|| header.link_name_bytes().unwrap_or_default().into_owned());
    let end = match kind {
        _ if header.entry_type() == EntryType::Link => {
            let link = link();
            clean_path(&link).with_context(|| format!("the end {} of the link", show(&link)))?
        }
        Kind::Symlink => link(),
        _ => Vec::new(),
    };
    ensure!(
        !end.contains(&0) && (kind != Kind::Symlink || !end.is_empty()),
        "its end is empty or has a zero in it"
    );
    ensure!(
        kind != Kind::Symlink || end.len() <= MAX_SYMLINK_BYTES,
        "its end has {} bytes, more than {MAX_SYMLINK_BYTES}",
        end.len()
    );
    Ok(end)
}

/// Adds the entries of an extension block of an old GNU sparse map; tells
/// whether it is the last.
pub fn extend_old_map(block: &[u8], map: &mut MapBuilder) -> Result<bool> {
    let mut extension = tar::GnuExtSparseHeader::new();
    extension.as_mut_bytes().copy_from_slice(block);
    for entry in extension.sparse().iter().filter(|e| !e.is_empty()) {
        map.push(entry.offset()?)?;
        map.push(entry.length()?)?;
    }
    Ok(!extension.is_extended())
}
