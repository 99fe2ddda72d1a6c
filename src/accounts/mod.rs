//! Accounts and groups of two systems made one: pure, from texts to texts.
//!
//! The target starts from the image's own files. System accounts keep the
//! image's ids, the customer's come over, and what was revoked stays revoked.
//! It knows no slot, writes nothing, and what it says holds no hash.
//!
//! - [`AccountFiles`]: the six texts, read from a tree within bounds
//! - [`Conventions`]: what else the tree says of accounts: ranges of ids, other
//!   sources of names, the hashes it can check
//! - `table`: lines and records; what is no record, and why it cannot do harm
//! - [`merge()`]: who comes over (`merge::users`, `merge::groups`), under which
//!   id (`merge::claims`), with which subordinate ids (`merge::subids`)
//! - [`IdMap`]: old ids and new ones, for whoever owns files; [`Ids`] those that files
//!   have already
//! - [`hashes`]: the kinds of password hashes and who can check them
//! - [`missing_shells`] and [`unverifiable`]: who cannot log in afterwards
//! - [`Note`]: what a person should know of it

mod checks;
mod conventions;
mod files;
pub mod hashes;
mod ids;
mod inside;
mod merge;
mod notes;
mod renumber;
mod side;
mod table;

pub use checks::{Entry, enterable, missing_shells, unverifiable};
pub use conventions::Conventions;
pub use files::AccountFiles;
pub use hashes::{Checker, checkable, hash_note};
pub use ids::{IdMap, rewrite_acl, rewrite_owner};
pub use merge::{Merge, merge};
pub use notes::{Note, Reason};
pub use renumber::Ids;

#[cfg(test)]
mod tests;
