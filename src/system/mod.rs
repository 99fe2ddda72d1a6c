//! The only code that runs programs, mounts or reboots.
//!
//! [`System`] is the machine, [`Host`] the real one. [`Lock`], [`Mounted`],
//! [`Chroot`] and [`Draft`](draft::Draft) are guards; [`files`] is how files are replaced,
//! [`Sysrq`] and [`Watchdog`] what restarts when all else hangs.

mod calls;
mod chroot;
mod cmd;
pub mod draft;
pub mod files;
mod host;
mod lock;
mod mount;
mod mounted;
mod removal;
mod sysrq;
mod watchdog;

pub use calls::{Exited, Reader, Restart, System};
pub use chroot::Chroot;
pub use cmd::{Cmd, User};
pub use host::Host;
pub use lock::Lock;
pub use mount::Mount;
pub use mounted::Mounted;
pub use sysrq::Sysrq;
pub use watchdog::Watchdog;
