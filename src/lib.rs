//! Whole-root upgrades for virtual appliances with two LVM roots.
//!
//! # Where things begin
//!
//! - an upgrade: [`upgrade::apply`], after [`upgrade::preflight`]; then, in the
//!   new system, [`upgrade::trial`]; by hand [`upgrade::rollback`]
//! - a system with one root: [`migrate`]; a disk that has grown: [`grow`]
//! - a bundle: [`build`]; what changed between two: [`compare`]
//! - the command line: [`cli`], one file a verb
//!
//! # The floors
//!
//! ```text
//! cli
//! migrate                                     a flow that ends with an upgrade
//! build  compare  grow  upgrade               flows: numbered steps
//! install                                     steps that several flows share
//! appliance                                   this machine
//! bundle  source  boot  disk  packages        parts
//! system                                      all that runs programs, mounts, locks
//! archive  accounts                           tar and pax; users and groups
//! tree                                        a file tree as such
//! config  progress  report  input             the ground
//! linux  merge  paths  slot  sha  signals  stderr  cpu  version  failure  yaml
//! ```
//!
//! Imports go down only, and parts on one floor do not import each other;
//! `tests/layering.rs` holds both.
//!
//! # Where something new goes
//!
//! - a check before an upgrade: [`upgrade::preflight`], in the file of its subject
//! - a codec: [`bundle`], its room `codec`
//! - a boot loader: a room beside [`boot::bios`]
//! - a step that another flow needs, too: [`install`]
//! - a way to carry the customer's settings over: [`sync`], called by [`install::customer`]
//! - a format of configuration that is merged by key: [`merge`]
//! - a text format of every Linux: [`linux`]
//!
//! `docs/layout.md` says more.

pub mod accounts;
pub mod appliance;
mod archive;
pub mod boot;
pub mod build;
pub mod bundle;
pub mod cli;
pub mod compare;
pub mod config;
pub mod cpu;
pub mod disk;
pub mod failure;
pub mod grow;
mod input;
pub mod install;
pub mod linux;
pub mod merge;
pub mod migrate;
pub mod packages;
pub mod paths;
pub mod progress;
pub mod report;
pub mod sha;
pub mod signals;
pub mod slot;
pub mod source;
pub mod stderr;
pub mod sync;
pub mod system;
pub mod tree;
pub mod upgrade;
pub mod version;
mod yaml;
