//! The bundle: a whole root file system in one file that proves itself.
//!
//! A `.vab` is a plain tar of `manifest.yaml`, its signatures and the payload,
//! a packed pax tar cut into chunks. The manifest names the digest of every
//! chunk, so a chunk is proved genuine before it is unpacked, and chunks are
//! packed and unpacked on all cores. Nothing here mounts, prints or knows slots.

mod acl;
mod batch;
mod beneath;
mod chunks;
mod codec;
mod contents;
mod deep;
mod digest;
mod dir_ends;
mod draft;
mod extract;
mod fields;
mod file_hasher;
mod foreign;
#[cfg(fuzzing)]
pub mod fuzzing;
mod glob;
mod holes;
mod index;
mod keyring;
mod likeness;
mod listing;
mod manifest;
mod meta;
mod only;
mod order;
mod outer;
mod pack;
mod parse;
mod pax;
mod plan;
mod reader;
mod records;
mod release;
mod sign;
mod sparse;
mod strand;
mod unpack;
mod walk;
mod xattrs;
mod xz;
mod zstd;

pub use crate::cpu::CpuLevel;
pub use beneath::show_whole;
pub use contents::{Contents, Node};
pub use digest::digest_tree;
pub use extract::Devices;
pub use foreign::unpack_tar_xz;
pub use index::{Index, Names};
pub use keyring::{KeyId, Keyring, SIGNATURE_BYTES, Signedness, SigningKey, load_signing_key};
pub use listing::{Entry, Visitor};
pub use manifest::{
    BootFiles, Chunk, Codec, FORMAT, MAX_CHUNK_BYTES, MAX_MANIFEST_BYTES, Manifest, Payload, Sha,
    TreeSummary,
};
pub use meta::{Kind, Meta, Mtime};
pub use pack::{PackOptions, TreeFacts, pack};
pub use plan::{PackMode, PackPlan};
pub use reader::{Bundle, Sealed, Trust};
pub use release::Release;
pub use sign::{attach_signature, export_signed_bytes, sign_bundle};
pub use unpack::UnpackOptions;
pub use xattrs::Xattr;
