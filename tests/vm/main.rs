//! Real virtual machines: real firmware, GRUB, kernels, LVM and systemd.
//!
//! They need root, QEMU and the network for the first run, so plain `cargo
//! test` leaves them out; `scripts/test` runs them.

#![allow(
    clippy::disallowed_macros,
    reason = "a test that nobody watches may panic"
)]

mod appliance;
mod bench;
mod cards;
mod customer;
mod demo;
mod drill;
mod grub_failure;
mod initramfs;
mod kernel;
mod lab;
mod machine;
mod migrate;
mod migrate_in_ram;
mod power_cut;
mod prove;
mod refuse;
mod rhel;
mod rollback;
mod selinux;
mod trial;
mod upgrade;
