//! The real program as its callers see it: exit status, both outputs, and what
//! it leaves behind. Needs root, unshare, setpriv, openssl, qemu-img and rpmbuild.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod appliance;
mod bundle;
mod desk;
mod inside;
mod output;
mod source;
