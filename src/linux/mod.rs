//! Small text formats and naming rules that every Linux shares. Pure: each is
//! parsed from text that somebody else has read.

pub mod device_mapper;
pub mod fstab;
pub mod initramfs;
pub mod meminfo;
pub mod mountinfo;
pub mod octal;
pub mod os_release;
pub mod sockets;
pub mod sysctl;
pub mod x509;
