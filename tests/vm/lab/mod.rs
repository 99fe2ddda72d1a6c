//! The machinery of the VM tests: images made on this machine, and guests
//! driven one command at a time. Nothing here knows what is being tested.

pub mod cache;
pub mod channel;
pub mod disk;
pub mod dracut;
pub mod guest;
pub mod images;
pub mod qemu;
pub mod rhel;
pub mod rootfs;
pub mod single_disk;
pub mod tell;

use va_upgrade::system::Host;

/// The machine the tests run on.
pub fn host() -> Host {
    Host::new(false)
}
