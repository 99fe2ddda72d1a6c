//! What the fuzz targets share: sums put right, and what must hold of every
//! archive, however it comes.

pub mod bundle;
pub mod held;
pub mod members;

use va_upgrade::bundle::fuzzing::{Archive, SeenMember, parse};
use va_upgrade::sha::Sha;
use va_upgrade::tree::meta::Kind;

/// The size of tar's blocks.
pub const BLOCK: usize = 512;
/// What the last line of a manifest begins with.
const CHECKSUM_KEY: &[u8] = b"checksum: ";
const CHECKSUM_LINE_BYTES: usize = CHECKSUM_KEY.len() + 64 + 1;

/// Puts right the sum of every block that looks like a header: no fuzzer
/// guesses them.
pub fn mend_sums(archive: &mut [u8]) {
    for block in archive.as_chunks_mut::<BLOCK>().0 {
        if &block[257..262] == b"ustar" {
            mend_sum(block);
        }
    }
}

/// Puts right the sum of a header.
pub fn mend_sum(block: &mut [u8; BLOCK]) {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// Writes the right checksum over the last line of a manifest.
pub fn mend_manifest(text: &mut [u8]) {
    let Some(end) = text.len().checked_sub(CHECKSUM_LINE_BYTES) else {
        return;
    };
    let line = checksum_line(&text[..end]);
    text[end..].copy_from_slice(&line);
}

/// Returns the last line of a manifest whose other lines are `body`.
pub fn checksum_line(body: &[u8]) -> Vec<u8> {
    [CHECKSUM_KEY, Sha::of(body).to_string().as_bytes(), b"\n"].concat()
}

/// Numbers that depend on nothing but `bytes`, to cut something into pieces.
pub fn numbers(bytes: &[u8]) -> impl FnMut() -> u64 + use<> {
    let digest = Sha::of(bytes).0;
    let mut state = u64::from_le_bytes(digest[..8].try_into().expect("8 bytes")) | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state >> 16
    }
}

/// Parses an archive in pieces of several sizes and checks what comes out.
pub fn check_archive(archive: &[u8]) {
    let whole = parse(archive, |left| left);
    check(&whole, archive.len());
    let in_blocks = parse(archive, |_| BLOCK);
    assert_eq!(whole, in_blocks, "in blocks");
    let across_blocks = parse(archive, |_| BLOCK + 1);
    assert_eq!(whole, across_blocks, "across blocks");
    let mut number = numbers(archive);
    let at_random = parse(archive, |_| {
        let number = number();
        let limit = [8, 700, 5000][(number % 3) as usize];
        (number / 3 % limit) as usize
    });
    assert_eq!(whole, at_random, "at random");
}

fn check(archive: &Archive, length: usize) {
    let mut held = 0;
    for (i, member) in archive.members.iter().enumerate() {
        check_member(member);
        let data: usize = member.data.iter().map(|(_, data)| data.len()).sum();
        held += data;
        let is_cut = archive.error.is_some() && i + 1 == archive.members.len();
        assert!(data as u64 == member.stored || is_cut, "{member:?}");
    }
    assert!(held <= length, "more data than archive");
}

fn check_member(member: &SeenMember) {
    check_path(&member.path);
    if member.is_hard_link {
        check_path(&member.link_end);
    }
    assert!(!member.link_end.contains(&0), "{member:?}");
    assert!(member.meta.mode <= 0o7777, "{member:?}");
    assert!(member.meta.mtime.nanoseconds < 1_000_000_000, "{member:?}");
    let mut at = 0;
    for (offset, data) in &member.data {
        assert!(*offset >= at, "{member:?}");
        at = offset + data.len() as u64;
    }
    assert!(at <= member.meta.size_bytes, "{member:?}");
    let is_file = member.meta.kind == Kind::File && !member.is_hard_link;
    assert!(is_file || member.stored == 0, "{member:?}");
}

/// Checks that a path is relative and leads nowhere but down.
pub fn check_path(path: &[u8]) {
    if path.is_empty() {
        return;
    }
    for part in path.split(|byte| *byte == b'/') {
        let is_name = !part.is_empty() && part != b"." && part != b".." && !part.contains(&0);
        assert!(is_name, "{}", path.escape_ascii());
    }
}
