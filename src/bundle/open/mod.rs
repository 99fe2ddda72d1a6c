//! Opens a bundle, from a file or a stream, and proves it genuine.
//!
//! 1. [`sealed`] holds what comes before the payload, unread, and checks the
//!    signatures over the raw manifest; only then is the manifest believed, and
//!    the index that it names.
//! 2. [`bundle`] hands out the payload, or checks it whole.
//! 3. [`feed`] gives the chunks to several threads, each chunk proved.
//! 4. [`pieces`] decodes them, one piece after the other.

pub mod bundle;
pub mod feed;
pub mod input;
pub mod pieces;
pub mod sealed;
