//! The bundle: a whole root file system in one file that proves itself.
//!
//! A `.vab` is a plain tar of `manifest.yaml`, its signatures and the payload,
//! a packed pax tar cut into chunks. The manifest names the digest of every
//! chunk, so a chunk is proved genuine before it is unpacked, and chunks are
//! packed and unpacked on all cores. Nothing here mounts, prints or knows slots.
//!
//! Rooms, from the top: [`inspect`], [`unpack`] and [`sign`] use what is open;
//! [`open`] and [`pack`] know the [`format`](mod@format); below are [`codec`]
//! and [`keyring`], which do not know each other. How a tar is read and written is
//! known to [`archive`](crate::archive).

mod codec;
mod format;
mod inspect;
mod keyring;
mod open;
mod pack;
mod sign;
mod unpack;

#[cfg(fuzzing)]
pub use crate::archive::fuzzing;
pub use codec::Codec;
pub use format::files::{FILES, FileLine, FilesReader};
pub use format::index::{Chunk, Index, MAX_CHUNK_BYTES};
pub use format::landmarks::{Landmarks, Names};
pub use format::manifest::{
    BootFiles, FORMAT, INDEX, IndexMember, MAX_MANIFEST_BYTES, Manifest, Payload, TreeSummary,
};
pub use inspect::contents::{Contents, Node};
pub use inspect::proof::verify_deep;
pub use inspect::visit::{Entry, Visitor, visit};
pub use keyring::{KeyId, Keyring, SIGNATURE_BYTES, Signedness, SigningKey, load_signing_key};
pub use open::bundle::Bundle;
pub use open::sealed::{Sealed, Trust};
pub use pack::plan::{PackMode, PackPlan};
pub use pack::release::Release;
pub use pack::{PackOptions, TreeFacts, pack};
pub use sign::{Signed, attach_signature, export_signed_bytes, sign_bundle};
pub use unpack::extract::{Devices, Rights};
pub use unpack::only::unpack_only;
pub use unpack::place::UnpackOptions;
pub use unpack::plain::unpack_tar;
pub use unpack::unpack;
