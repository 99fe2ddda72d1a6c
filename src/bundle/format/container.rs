//! The bundle file itself: a plain tar with nothing left to chance, so that
//! any byte of it that is not as we would write it is damage.

use std::fs::File;
use std::io::{Read, Write};

use anyhow::{Context, Result, ensure};

use super::manifest::Manifest;
use crate::archive::block::{BLOCK, END, padding};
use crate::system::files;

/// The member that holds the manifest.
pub const MANIFEST: &str = "manifest.yaml";
/// The most signatures a bundle may have.
pub const MAX_SIGNATURES: usize = 16;
/// The largest signature member accepted.
pub const MAX_SIGNATURE_BYTES: u64 = 4096;

/// Returns the name of the `number`th signature, counted from 1.
pub fn signature_member(number: usize) -> String {
    format!("manifest.sig.{number}")
}

/// Builds the only header accepted for a member.
pub fn header(name: &str, size: u64, mtime: u64) -> [u8; BLOCK] {
    let mut header = tar::Header::new_ustar();
    // The member names are ours and short; a header without one would be
    // refused by the reader.
    header
        .set_path(name)
        .expect("member names fit into a header");
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(size);
    header.set_mtime(mtime);
    header.set_entry_type(tar::EntryType::Regular);
    header.set_cksum();
    *header.as_bytes()
}

/// Writes a whole member.
pub fn write_member(out: &mut impl Write, name: &str, content: &[u8], mtime: u64) -> Result<()> {
    let size = content.len() as u64;
    out.write_all(&header(name, size, mtime))?;
    out.write_all(content)?;
    out.write_all(&END[..padding(size)])?;
    Ok(())
}

/// Reads the content and the padding of a member of at most `limit` bytes.
pub fn read_member(input: &mut impl Read, name: &str, size: u64, limit: u64) -> Result<Vec<u8>> {
    ensure!(
        size <= limit,
        "its member {name} has {size} bytes, more than {limit}"
    );
    let mut content = Vec::new();
    input
        .take(size)
        .read_to_end(&mut content)
        .with_context(|| format!("reading member {name}"))?;
    ensure!(content.len() as u64 == size, "it ends inside member {name}");
    read_padding(input, name, size)?;
    Ok(content)
}

/// Reads the zeros after a member of `size` bytes.
pub fn read_padding(input: &mut impl Read, name: &str, size: u64) -> Result<()> {
    let mut pad = [0; BLOCK];
    let pad = &mut pad[..padding(size)];
    input
        .read_exact(pad)
        .with_context(|| format!("reading the end of member {name}"))?;
    ensure!(
        pad.iter().all(|byte| *byte == 0),
        "it is damaged after member {name}"
    );
    Ok(())
}

/// Reads the end of the tar and refuses anything after it.
pub fn read_end(input: &mut impl Read) -> Result<()> {
    let mut rest = Vec::new();
    input
        .take(END.len() as u64 + 1)
        .read_to_end(&mut rest)
        .context("reading its end")?;
    ensure!(rest.len() >= END.len(), "its end is missing");
    ensure!(rest == END, "its end is damaged or something follows it");
    Ok(())
}

/// Writes what comes before the index members.
pub fn write_front(
    out: &mut File,
    text: &[u8],
    signatures: &[Vec<u8>],
    created: u64,
) -> Result<()> {
    write_member(out, MANIFEST, text, created)?;
    for (i, signature) in signatures.iter().enumerate() {
        write_member(out, &signature_member(i + 1), signature, created)?;
    }
    Ok(())
}

/// Writes the payload member and the end; moves the payload out of `payload`.
pub fn write_payload(out: &mut File, manifest: &Manifest, payload: &File) -> Result<()> {
    let size = manifest.payload.packed_bytes;
    out.write_all(&header(&manifest.payload.member, size, manifest.created))?;
    files::move_bytes(payload, out, size).context("moving the payload")?;
    out.write_all(&END[..padding(size)])?;
    out.write_all(&END)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_beyond_eight_gigabytes_survive_the_header() {
        for size in [0, 1, 8 << 30, 5 << 40] {
            let bytes = header("rootfs.tar.xz", size, 1_700_000_000);
            let read = tar::Header::from_byte_slice(&bytes);
            assert_eq!(read.entry_size().unwrap(), size);
        }
    }

    #[test]
    fn a_member_is_read_back_and_its_damage_noticed() {
        let mut tar = Vec::new();
        write_member(&mut tar, "manifest.yaml", b"abc", 0).unwrap();
        let read = |tar: &[u8]| read_member(&mut &tar[BLOCK..], "m", 3, 10);
        assert_eq!(read(&tar).unwrap(), b"abc");
        assert!(read_member(&mut &tar[BLOCK..], "m", 3, 2).is_err());
        assert!(read(&tar[..BLOCK + 100]).is_err());
        tar[BLOCK + 400] = 1;
        assert!(read(&tar).is_err());
    }
}
