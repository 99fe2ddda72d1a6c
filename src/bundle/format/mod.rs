//! The bundle file: its members, its manifest, and what is in which chunk.

pub mod container;
pub mod index;
pub mod manifest;
