//! Looks into a bundle without unpacking it.

pub mod contents;
pub mod proof;
pub mod visit;
