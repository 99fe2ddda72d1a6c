//! What the parts of a merge have in common.

use super::super::side::{OVERFLOW, Side};
use super::super::table::Name;
use crate::tree::path;

/// The systems that a merge looks at.
pub struct Sides {
    /// The old release as it was delivered, where that is known.
    pub pristine: Option<Side>,
    /// The running system.
    pub old: Side,
    /// The image.
    pub image: Side,
}

/// Shows a name in a message.
pub fn show(name: &Name) -> String {
    path::show(name)
}

/// Tells whether an id never moves: root's, and the one that stands for no owner.
pub fn is_fixed(id: u32) -> bool {
    id == 0 || id == OVERFLOW
}
