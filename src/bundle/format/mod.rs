//! The bundle file: its members, its manifest, what is in which chunk, which
//! files the tree has.

pub mod container;
pub mod files;
pub mod index;
pub mod landmarks;
pub mod manifest;
