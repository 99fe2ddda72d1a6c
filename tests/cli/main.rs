//! The real program as its callers see it: exit status, both outputs, and what
//! it leaves behind. Needs root, unshare, setpriv, openssl, qemu-img, rpmbuild,
//! script, GNU tar, bsdtar, gzip, xz, zstd, setcap, setfacl, setfattr, pwck and grpck.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod accounts;
mod appliance;
mod archive;
mod bundle;
mod desk;
mod help;
mod hostile;
mod hostile_images;
mod inside;
mod output;
mod shapes;
mod signing;
mod source;
mod terminal;
