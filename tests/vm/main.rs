//! Real virtual machines: real firmware, GRUB, kernels, LVM and systemd.
//!
//! They need root, QEMU and the network for the first run, so plain `cargo
//! test` leaves them out; `scripts/test` runs them.

mod appliance;
#[cfg(test)]
mod lab;
mod machine;
