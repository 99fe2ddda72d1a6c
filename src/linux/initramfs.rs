//! What distributions call a kernel's initramfs in `/boot`.

/// Returns the names of the initramfs of the kernel `release`: Debian's family
/// (initramfs-tools(7)) first, then RHEL's (dracut(8)).
pub fn names(release: &str) -> [String; 2] {
    [
        format!("initrd.img-{release}"),
        format!("initramfs-{release}.img"),
    ]
}
