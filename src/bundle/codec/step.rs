//! What one step of packing or decoding tells.

use anyhow::Result;

/// Takes how many more bytes have been packed; its error ends the packing.
pub type OnStep<'r> = &'r mut dyn FnMut(usize) -> Result<()>;

/// How much is packed between two reports: a fraction of a second's work.
pub const STEP_BYTES: usize = 1 << 20;

/// What one call of a codec has done.
pub struct Decoded {
    pub read: usize,
    pub written: usize,
    pub is_end: bool,
}
