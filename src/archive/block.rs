//! The blocks a tar consists of (pax(1), "ustar Interchange Format").

/// The size of tar's blocks.
pub const BLOCK: usize = 512;
/// The two zero blocks that end a tar.
pub const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];
/// Returns how many zeros follow a member of `size` bytes.
pub fn padding(size: u64) -> usize {
    let over = usize::try_from(size % BLOCK as u64).expect("below 512");
    (BLOCK - over) % BLOCK
}
