//! A file tree as such: walked, described, digested, and never left through a link.
//!
//! Works on any directory; knows no bundle, slot or appliance.

pub mod acl;
pub mod attributes;
pub mod content;
pub mod digest;
pub mod dirs;
pub mod file_hasher;
pub mod glob;
pub mod holes;
pub mod meta;
pub mod owners;
pub mod path;
pub mod resolve;
pub mod swap;
pub mod unsteady;
pub mod walk;
pub mod xattrs;
