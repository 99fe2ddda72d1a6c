//! Looks into a bundle without unpacking it.

pub mod contents;
pub mod landmarks;
pub mod proof;
pub mod visit;
