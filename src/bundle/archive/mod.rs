//! The pax tar inside a bundle: its headers written, and read piece by piece.

pub mod batch;
pub mod block;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod header;
pub mod parse;
pub mod proof;
pub mod records;
pub mod sparse;
pub mod write;
