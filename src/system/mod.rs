//! The only code that runs programs, mounts or reboots.

pub mod beneath;
mod cmd;
pub mod files;
mod host;
mod lock;
mod mounted;
pub mod signals;

pub use cmd::Cmd;
pub use host::Host;
pub use lock::Lock;
pub use mounted::{Mount, Mounted};

use std::path::Path;

use anyhow::Result;

/// The machine a flow works on: the real one, or a fake in tests.
pub trait System: Sync {
    /// Runs a program to its end and returns its standard output.
    ///
    /// # Errors
    /// When it cannot be started, fails or exceeds its time limit; the error
    /// holds the command, the exit status and the last lines of stderr.
    fn run(&self, cmd: &Cmd) -> Result<String>;

    /// Mounts a file system or binds a directory.
    ///
    /// # Errors
    /// What the kernel or mount(8) says.
    fn mount(&self, mount: &Mount) -> Result<()>;

    /// Unmounts what is mounted at `at`.
    ///
    /// # Errors
    /// When something still uses it, or its last writes failed.
    fn unmount(&self, at: &Path) -> Result<()>;

    /// Restarts the machine.
    ///
    /// # Errors
    /// When the service manager does not accept the request.
    fn reboot(&self, how: Restart) -> Result<()>;
}

/// How a machine restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// Services are stopped first.
    Orderly,
    /// Services are killed, file systems are unmounted: for a system in which
    /// stopping a service may hang.
    Forced,
}
