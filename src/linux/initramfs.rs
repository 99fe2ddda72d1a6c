//! What a kernel's initramfs is called in `/boot`: by distributions, and by us.

use std::path::PathBuf;

/// Returns the names of the initramfs of the kernel `release`: Debian's family
/// (initramfs-tools(7)) first, then RHEL's (dracut(8)).
pub fn names(release: &str) -> [String; 2] {
    [
        format!("initrd.img-{release}"),
        format!("initramfs-{release}.img"),
    ]
}

/// Returns where a tree has the migration environment's initramfs for the kernel
/// `release`, relative to it.
pub fn migration(release: &str) -> PathBuf {
    format!("boot/va-migrate-{release}.img").into()
}
