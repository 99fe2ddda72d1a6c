//! A pax tar: its headers written, and any tar read piece by piece.
//!
//! Both a bundle's payload and an archive that `build` is given are read here;
//! where the members go is for others to know.

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
