//! Whole-root upgrades for virtual appliances with two LVM roots.
//!
//! Imports go one way: `main -> cli -> {build, compare, upgrade} -> {source, bundle,
//! packages, disk, boot} -> {state, slot, config, progress, failure, system}`.

pub mod boot;
pub mod build;
pub mod bundle;
pub mod cli;
pub mod compare;
pub mod config;
pub mod cpu;
pub mod disk;
pub mod failure;
pub mod packages;
pub mod progress;
pub mod slot;
pub mod source;
pub mod state;
pub mod system;
pub mod upgrade;
pub mod version;
