//! Swap files, told by what mkswap(8) writes into them.

use std::fs::File;
use std::os::unix::fs::FileExt;

use anyhow::Result;

/// mkswap writes one of these at the end of the first page.
const MAGIC: [&[u8; 10]; 2] = [b"SWAPSPACE2", b"SWAP-SPACE"];
const MAGIC_AT: u64 = 4086;
/// mkswap refuses anything smaller than ten pages.
pub const MIN_BYTES: u64 = 40960;

/// Tells whether an open file of at least [`MIN_BYTES`] is a swap file.
pub fn is_swap(file: &File) -> Result<bool> {
    let mut magic = [0; 10];
    file.read_exact_at(&mut magic, MAGIC_AT)?;
    Ok(MAGIC.contains(&&magic))
}
